"""Files of a run that were damaged: what can't be read is made again, and nothing raw is raised."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.data.fuzzing import LONGEST, time_limit
from tests.runs.factory import plan
from tests.runs.test_loop import StopAfter, run
from unetcam.errors import UnetcamError
from unetcam.runs import Run, compare

Runs = tuple[Any, Path, Path, bytes, int]
Damage = Callable[[bytes, random.Random], bytes]


def cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


def flip(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice([1, 4, 64])):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def fill(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content))
    length = draw.randrange(1, 64)
    return content[:start] + draw.choice([b"\0", b"9", b"[", b'"']) * length + content[start:]


def empty(content: bytes, draw: random.Random) -> bytes:
    return b""


def other_json(content: bytes, draw: random.Random) -> bytes:
    """Values of other types at places of a JSON object; for other files the same as a flip."""
    try:
        values = json.loads(content)
    except ValueError:
        return flip(content, draw)
    inner = values
    while isinstance(inner, dict) and inner:
        key = draw.choice(sorted(inner))
        if not isinstance(inner[key], dict) or draw.random() < 0.4:
            inner[key] = draw.choice([None, -1, 1e300, "x\0y", [], {}, [[]], True, "9" * 5000])
            break
        inner = inner[key]
    return json.dumps(values).encode()


COUNT = int(os.environ.get("UNETCAM_FUZZ", "150"))
"""Stopped runs that are damaged and go on; twice as many finished ones are read and compared."""

MOST_MEMORY = 2 * 2**20
"""KiB that the process may have grown to (Linux)."""

DAMAGES: tuple[Damage, ...] = (cut, flip, fill, empty, other_json)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A plan, a finished run of it, one stopped half-way, and the rows of the finished one."""
    folder = tmp_path_factory.mktemp("damaged")
    ready = plan(folder, 20, batch_size=2)
    run(ready, folder / "finished")
    with pytest.raises(KeyboardInterrupt):
        run(ready, folder / "stopped", progress=StopAfter(18))
    return (
        ready,
        folder / "finished",
        folder / "stopped",
        (folder / "finished/rows.csv").read_bytes(),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    )


def damaged(source: Path, target: Path, seed: int) -> str:
    """A copy of a run with one file damaged; gives what was done."""
    draw = random.Random(seed)
    shutil.copytree(source, target)
    files = sorted(p for p in target.rglob("*") if p.is_file() and p.stat().st_size)
    path, damage = draw.choice(files), draw.choice(DAMAGES)
    path.write_bytes(damage(path.read_bytes(), draw))
    return f"{damage.__name__} of {path.relative_to(target)}, seed {seed}"


def check_sentence(error: UnetcamError, what: str) -> None:
    assert str(error).endswith((".", "?")), what
    assert "\n" not in str(error), what


def read(runs: Runs, folder: Path, seed: int) -> None:
    """A damaged run is read and compared, or refused in one sentence."""
    what = damaged(runs[1], folder, seed)
    try:
        one = Run.load(folder)
        compare(one, Run.load(runs[1])).markdown()
        _ = one.findings, one._repr_html_()
    except UnetcamError as error:
        check_sentence(error, what)
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


def go_on(runs: Runs, folder: Path, seed: int) -> None:
    """A stopped run with a damaged file ends with the same rows, or is refused in one sentence."""
    what = damaged(runs[2], folder, seed)
    try:
        run(runs[0], folder)
        assert (folder / "rows.csv").read_bytes() == runs[3], what
    except UnetcamError as error:
        check_sentence(error, what)
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_run_is_read_or_refused(runs: Runs, tmp_path: Path, seed: int) -> None:
    read(runs, tmp_path / "run", seed)


@pytest.mark.parametrize("seed", range(1000, 1012))
def test_a_damaged_run_goes_on_or_is_refused(runs: Runs, tmp_path: Path, seed: int) -> None:
    go_on(runs, tmp_path / "run", seed)


@pytest.mark.slow
def test_many_damaged_runs(runs: Runs, tmp_path: Path) -> None:
    first = 10_000 * int(os.environ.get("UNETCAM_FUZZ_SEED", "1"))
    for seed in range(first, first + 3 * COUNT):
        folder = tmp_path / str(seed)
        with time_limit(LONGEST):
            (go_on if seed % 3 == 0 else read)(runs, folder, seed)
        shutil.rmtree(folder)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert grown < runs[4] + MOST_MEMORY, f"seed {seed}: grew to {grown / 2**20:.1f} GiB"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no table at all"])
def test_a_damaged_part_is_made_again_and_that_is_said(
    runs: Runs, tmp_path: Path, content: bytes
) -> None:
    shutil.copytree(runs[2], tmp_path / "run")
    (part,) = (tmp_path / "run" / "parts").glob("000000-*.parquet")
    part.write_bytes(content)
    found = run(runs[0], tmp_path / "run")
    assert (tmp_path / "run" / "rows.csv").read_bytes() == runs[3]
    assert "explained again" in " ".join(found.meta["remarks"])


def test_lost_rows_of_a_finished_run_are_made_again(runs: Runs, tmp_path: Path) -> None:
    shutil.copytree(runs[1], tmp_path / "run")
    (tmp_path / "run" / "rows.parquet").write_bytes(b"PAR1")
    found = run(runs[0], tmp_path / "run")
    pd.testing.assert_frame_equal(found.rows, Run.load(runs[1]).rows)
    assert "explained again" in " ".join(found.meta["remarks"])
