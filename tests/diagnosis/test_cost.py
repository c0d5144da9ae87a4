"""What a diagnosis of the demo costs, in forwards: time is no matter of tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from unetcam.demo import DEMO_STATISTICS, write_demo_data
from unetcam.runs import Spec, prepare
from unetcam.tasks.demo import MODEL
from unetcam.tasks.diagnose import examine

pytestmark = pytest.mark.slow


def test_the_demo_is_diagnosed_with_few_forwards(tmp_path: Path) -> None:
    pytest.importorskip("nilearn")
    write_demo_data(tmp_path)
    spec = Spec.of(
        model=MODEL,
        device="cpu",
        classes=tmp_path / "classes.csv",
        images=tmp_path / "images",
        masks=tmp_path / "masks",
        mean=DEMO_STATISTICS.mean,
        std=DEMO_STATISTICS.std,
    )
    diagnosis = examine(prepare(spec)).diagnosis
    assert diagnosis is not None
    # It was 752 when every question was asked on every image of its sample with every fill.
    assert diagnosis.forwards <= 300
    assert [(one.kind, one.severity) for one in diagnosis.findings] == [
        ("small-objects-missed", "low")
    ]
