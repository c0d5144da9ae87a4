"""A long run does not grow."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path

import psutil
import pytest

from tests.runs.factory import plan
from unetcam.runs import execute
from unetcam.runs.progress import Silent

IMAGES = 10_000


class Measured(Silent):
    """Notes the process's memory while images are explained."""

    def __init__(self) -> None:
        self.explained = 0
        self.bytes: dict[int, int] = {}

    def advance(self, images: int) -> None:
        self.explained += images
        if self.explained % 1000 == 0:
            gc.collect()
            self.bytes[self.explained] = psutil.Process().memory_info().rss


@pytest.mark.slow
def test_ten_thousand_images_take_no_more_memory_than_two_thousand(tmp_path: Path) -> None:
    """Measured in the loop; the report's table of rows, which is read at the end, is no part."""
    ready = plan(tmp_path, 8, size=lambda i: (16, 16), batch_size=20)
    source = ready.source.subset([number % 8 for number in range(IMAGES)])
    source.samples = [
        dataclasses.replace(one, id=f"image {number:05d}")
        for number, one in enumerate(source.samples)
    ]
    progress = Measured()
    execute(dataclasses.replace(ready, source=source), tmp_path / "run", progress=progress)
    assert progress.explained == IMAGES
    assert progress.bytes[IMAGES] - progress.bytes[2000] < 32 << 20
