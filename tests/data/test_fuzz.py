"""Thousands of damaged files: each is read, or told in one line, soon and within little memory."""

from __future__ import annotations

import os
import random
import resource
from pathlib import Path

import pytest

from tests.data import fuzzing

COUNT = int(os.environ.get("UNETCAM_FUZZ", "150"))
"""Mutations of each file; some hundred thousand in all are a matter of an hour."""

MOST_MEMORY = 2 * 2**20
"""KiB that the process may have grown to (Linux)."""


def seeds(folder: Path) -> dict[str, tuple[str, bytes]]:
    return {
        **fuzzing.image_seeds(),
        **fuzzing.volume_seeds(folder),
        **fuzzing.text_seeds(),
    }


def check(folder: Path, count: int, seed: int) -> None:
    files = seeds(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for kind, (suffix, content) in files.items():
        assert fuzzing.fault_of(folder / f"whole{suffix}", content, kind, random.Random(0)) is None
        for number in range(count):
            name = f"{seed}/{kind}/{number}"
            draw = random.Random(name)
            mutated = fuzzing.mutate(content, draw)
            fault = fuzzing.fault_of(folder / f"x{suffix}", mutated, kind, draw)
            assert fault is None, f"{name}: {fault}"
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            assert grown < before + MOST_MEMORY, f"{name}: grew to {grown / 2**20:.1f} GiB"


def test_some_damaged_files_of_every_format_are_met_with_a_line(tmp_path: Path) -> None:
    check(tmp_path, 6, seed=1)


@pytest.mark.slow
def test_many_damaged_files_of_every_format_are_met_with_a_line(tmp_path: Path) -> None:
    check(tmp_path, COUNT, seed=int(os.environ.get("UNETCAM_FUZZ_SEED", "2")))
