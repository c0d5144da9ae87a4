"""The page of networks is what one command writes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from tests.models.zoo import ZOO

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "networks.py"
SOME = ["A plain U-Net", "smp Unet", "MONAI AttentionUnet, 2-D", "MONAI AttentionUnet, 3-D"]


def test_one_command_writes_what_the_page_shows(tmp_path: Path) -> None:
    out = tmp_path / "networks.md"
    options = [option for name in SOME for option in ("--only", name)]
    command = [sys.executable, str(SCRIPT), "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written, kept = out.read_text("utf-8"), (ROOT / "docs" / "networks.md").read_text("utf-8")
    drawings = written.split("```text\n")[1:]
    assert len(drawings) == 3  # the last two share one
    for drawing in drawings:
        assert drawing.partition("```")[0] in kept
    assert "### MONAI AttentionUnet, 2-D and 3-D" in written


def test_the_page_shows_every_network() -> None:
    spec = importlib.util.spec_from_file_location("networks_page", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kept = (ROOT / "docs" / "networks.md").read_text("utf-8")
    headings = [line for line in kept.splitlines() if line.startswith("### ")]
    assert f"on {len(ZOO)} networks" in kept, "python scripts/networks.py writes the page anew"
    for name in ZOO:
        kind = name.removesuffix(", 2-D").removesuffix(", 3-D")
        dimensions = name[len(kind) + 2 :]
        assert any(line.startswith(f"### {kind}") and dimensions in line for line in headings), name
    assert {module.library_of(name) for name in ZOO} == {
        line.removeprefix("## ") for line in kept.splitlines() if line.startswith("## ")
    } & {*module.LIBRARIES.values(), module.BY_HAND}
