"""The benchmark runs as a whole, on tiny work, and its page tells what was measured."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from unetcam.engine.request import Shortcut

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "benchmark.py"
SECTIONS = {"main", "targets", "scaling", "shortcuts", "field", "demo"}

missing = [
    name
    for name in ("torchcam", "captum", "pytorch_grad_cam", "nilearn")
    if importlib.util.find_spec(name) is None
]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("benchmark")
    command = [sys.executable, str(SCRIPT), "--quick", "--repeats", "1", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def results(written: Path) -> Any:
    return json.loads((written / "benchmarks-cpu.json").read_text(encoding="utf-8"))


def is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0


def test_every_section_is_measured(results: Any) -> None:
    assert set(results["sections"]) == SECTIONS


def test_every_tool_has_positive_times_and_ratios(results: Any) -> None:
    main = results["sections"]["main"]
    assert len(main["ratios"]) == 8
    assert {"plain forward", "unetcam", "torchcam, best use"} <= set(main["ratios"])
    assert all(map(is_positive, main["ratios"].values()))
    assert all(is_positive(t) for times in main["times"].values() for t in times)
    assert main["ratios"]["unetcam"] == pytest.approx(1)


def test_the_tools_that_give_raw_maps_give_ours(results: Any) -> None:
    errors = results["sections"]["main"]["errors"]
    assert {"torchcam, best use", "captum LayerGradCam"} <= set(errors)
    assert max(errors.values()) < 1e-4


def test_memory_is_measured_in_a_process_of_its_own(results: Any) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell a process's peak")
    assert is_positive(results["sections"]["main"]["memory"]["unetcam"])


def test_scaling_field_targets_and_demo_have_positive_figures(results: Any) -> None:
    sections = results["sections"]
    points = [point for axis in sections["scaling"]["axes"].values() for point in axis]
    assert points
    assert all(is_positive(point["ratio"]) for point in points)
    widths = sections["field"]["widths"]
    assert widths
    for one in widths.values():
        assert is_positive(one["build"])
        assert is_positive(one["maps_per_second"])
    assert all(map(is_positive, sections["targets"]["forwards"].values()))
    assert is_positive(sections["demo"]["ratio"])
    rooms = sections["demo"]["rooms"]
    assert sum(rooms.values()) == pytest.approx(sections["demo"]["wall"], rel=0.05)


def test_each_shortcut_is_switched_off_alone(results: Any) -> None:
    brought = results["sections"]["shortcuts"]["brought"]
    assert len(brought) == 8  # seven steps, and all of them
    assert all(math.isfinite(share) and share < 1 for share in brought.values())


def test_the_page_holds_its_tables_and_plots(written: Path) -> None:
    page = (written / "benchmarks.md").read_text(encoding="utf-8")
    assert page.count("\n## ") == len(SECTIONS)
    assert "A trial run" in page
    assert re.search(r"^\| CPU \| \S", page, re.MULTILINE)
    assert re.search(r"^\| GPU \| not measured \|", page, re.MULTILINE)
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        lines = block.splitlines()
        assert len(lines) > 2
        assert len({line.count("|") for line in lines}) == 1
    plots = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page)
    assert len(plots) == 3
    for plot in plots:
        assert (written / plot).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_each_shortcut_is_measured_on_three_networks(tmp_path: Path) -> None:
    out = tmp_path / "shortcuts.json"
    script = SCRIPT.with_name("benchmark_shortcuts.py")
    command = [sys.executable, str(script), "--quick", "--rounds", "1", "--threads", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text(encoding="utf-8"))
    assert len(results) == 3
    assert all(is_positive(one["seconds"]) for one in results.values())
    for name in get_args(Shortcut):
        assert any(one["saved"][name] is not None for one in results.values()), name
        assert name in done.stdout
