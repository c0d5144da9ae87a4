"""The worked examples of the contributing page run as they stand, in a process of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "contributing.md"

TRIED = """
from pathlib import Path
import tempfile
from unetcam import methods
from unetcam.data import open_source, Preprocessing
assert {"mean-activation", "positive-gradient"} <= set(methods.names())
folder = Path(tempfile.mkdtemp())
(folder / "a.sq8").write_bytes(bytes(range(64)))
item = open_source(folder).dataset(Preprocessing(channels=1, stride=8))[0]
assert item.prepared.image.shape == (1, 8, 8), item
"""


def test_the_worked_examples_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*blocks, TRIED])], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
