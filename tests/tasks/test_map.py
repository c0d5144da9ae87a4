"""Maps and comparisons from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import unetcam
from tests.runs.factory import TinyUNet, write_data, write_network
from tests.runs.test_compare import run as made_up_run
from unetcam.errors import RunError


def network() -> TinyUNet:
    torch.manual_seed(2)
    return TinyUNet().eval()


def test_images_in_memory_are_mapped_as_by_hand(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(0))
    made = unetcam.map(network(), images, out=tmp_path / "maps", layers=["up1"])
    assert not made.skipped
    with unetcam.UNetCAM(network(), layers=["up1"]) as cam:
        expected = cam(images).resized()["up1"]
    for number, folder in enumerate(sorted((tmp_path / "maps").iterdir())):
        with np.load(folder / "maps.npz") as arrays:
            np.testing.assert_allclose(arrays["map:up1"], expected[number], rtol=1e-4, atol=1e-7)


def test_files_are_mapped_and_not_overwritten(tmp_path: Path) -> None:
    write_data(tmp_path, 2)
    model, images = write_network(tmp_path), tmp_path / "images"
    options = {"out": tmp_path / "maps", "classes": ["a", "b", "c"], "device": "cpu"}
    made = unetcam.map(model, images, **options)
    assert len(made.files) == 2 * (1 + 2 * 3)
    with pytest.raises(RunError, match="force=True"):
        unetcam.map(model, [images / "im00.png"], **options)
    unetcam.map(model, [images / "im00.png"], force=True, **options)


def test_runs_are_compared_as_they_are_and_into_a_file(tmp_path: Path) -> None:
    a, b = made_up_run(0), made_up_run(1)
    comparison = unetcam.compare(a, b, ["entropy"], out=tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text() == comparison.markdown()
    with pytest.raises(RunError, match="force=True"):
        unetcam.compare(a, b, out=tmp_path / "table.md")
