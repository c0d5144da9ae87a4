"""Volumes in TIFF and NumPy files, for networks of volumes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from torch import Tensor, nn

import unetcam
from unetcam.data import ClassTable, Preprocessing, open_source
from unetcam.data.memory import Item
from unetcam.data.samples import Skipped
from unetcam.data.volumes import Volume
from unetcam.data.whole_volumes import read_whole
from unetcam.errors import DataError, UnetcamError

pytest.importorskip("nibabel")

LABELS = np.zeros((6, 16, 12), np.uint8)
LABELS[1:4, 2:9, 3:8], LABELS[3:5, 10:14, 1:6] = 1, 2
VALUES = (LABELS * np.uint16(50)).astype(np.uint16)


class Solid(nn.Module):
    """A network of volumes whose prediction is the value divided by 50."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.low = nn.Conv3d(1, 2, 1), nn.Conv3d(2, 2, 1)
        self.up, self.head = nn.Conv3d(4, 2, 1), nn.Conv3d(2, 3, 1)
        with torch.no_grad():
            for layer in (self.down, self.low, self.up, self.head):
                layer.weight.zero_()
                layer.bias.zero_()
            self.down.weight[0] = self.low.weight[:] = self.up.weight[0, 0] = 1.0
            steps = torch.arange(3.0)
            self.head.weight[:, 0, 0, 0, 0] = 2 * steps / 50
            self.head.bias[:] = -steps * steps

    def forward(self, images: Tensor) -> Tensor:
        first = self.down(images)
        low = self.low(nn.functional.max_pool3d(first, 2))
        up = nn.functional.interpolate(low, scale_factor=2)
        return self.head(self.up(torch.cat([first, up], 1)))


def tif(path: Path, values: Any, **options: Any) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    tifffile.imwrite(path, values, **options)
    return path


def npy(path: Path, values: Any) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    np.save(path, values)
    return path


Write = Callable[[Path, Any], Path]
WRITERS: dict[str, Write] = {
    "npy": lambda path, values: npy(path.with_suffix(".npy"), values),
    "plain": lambda path, values: tif(path.with_suffix(".tif"), values, photometric="minisblack"),
    "pages": lambda path, values: tif(
        path.with_suffix(".tif"), values, photometric="minisblack", metadata=None
    ),
    "imagej": lambda path, values: tif(
        path.with_suffix(".tif"), values, imagej=True, metadata={"axes": "ZYX"}
    ),
    "ome": lambda path, values: tif(
        path.with_suffix(".ome.tif"), values, ome=True, metadata={"axes": "ZYX"},
        photometric="minisblack",
    ),
    "lzw": lambda path, values: tif(
        path.with_suffix(".tiff"), values, compression="lzw", photometric="minisblack"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITERS)
def test_a_report_reads_images_and_masks_as_they_are_stored(kind: str, tmp_path: Path) -> None:
    for name, shift in (("a", 0), ("b", 3)):
        WRITERS[kind](tmp_path / "images" / name, np.roll(VALUES, shift, 1))
        WRITERS[kind](tmp_path / "masks" / name, np.roll(LABELS, shift, 1))
    run = unetcam.report(
        Solid(),
        (tmp_path / "images", tmp_path / "masks"),
        classes=["ground", "cell", "rim"],
        out=tmp_path / "run",
        size=(8, 16, 16),
        diagnose=False,
    )
    assert run.meta["counts"]["explained"] == 2
    assert run.rows.class_dice.tolist() == [1.0] * len(run.rows)
    assert run.page.exists()


@pytest.mark.parametrize("kind", ["npy", "imagej"])
def test_maps_are_written_as_stacks(kind: str, tmp_path: Path) -> None:
    path = WRITERS[kind](tmp_path / "a", VALUES)
    done = unetcam.map(Solid(), path, out=tmp_path / "maps", size=(8, 16, 16), layers=["up"])
    (prediction,) = [one for one in done.files if one.name.startswith("prediction")]
    assert prediction.suffix == path.suffix
    read = tifffile.imread if path.suffix == ".tif" else np.load
    np.testing.assert_array_equal(read(prediction), LABELS)
    assert len(done.files) == 4
    assert all(read(one).shape == VALUES.shape for one in done.files)


@pytest.mark.parametrize(
    ("axes", "turn"),
    [("ZYX", (0, 1, 2)), ("YXZ", (1, 2, 0)), ("XYZ", (2, 1, 0)), ("zxy", (0, 2, 1))],
)
@pytest.mark.parametrize("write", [npy, tif], ids=["npy", "tif"])
def test_axes_say_which_is_which(
    write: Callable[..., Path], axes: str, turn: tuple[int, ...], tmp_path: Path
) -> None:
    suffix = ".npy" if write is npy else ".tif"
    path = write(tmp_path / f"a{suffix}", VALUES.transpose(turn))
    whole = read_whole(path, "file", axes=axes)
    np.testing.assert_array_equal(whole.values[..., 0], VALUES)


@pytest.mark.parametrize(("axes", "at"), [("CZYX", 0), ("ZCYX", 1), ("ZYXC", 3)])
def test_bands_lie_where_axes_say(axes: str, at: int, tmp_path: Path) -> None:
    two = np.stack([VALUES, VALUES + 1], at)
    whole = read_whole(npy(tmp_path / "a.npy", two), "file", axes=axes)
    np.testing.assert_array_equal(whole.values, np.stack([VALUES, VALUES + 1], -1))
    if axes == "ZCYX":
        path = tif(tmp_path / "a.tif", two, imagej=True, metadata={"axes": axes})
        np.testing.assert_array_equal(read_whole(path, "file").values, whole.values)


def test_a_colour_stack_has_its_colours_as_bands(tmp_path: Path) -> None:
    colours = np.stack([LABELS, LABELS * 2, LABELS * 3], -1)
    path = tif(tmp_path / "a.tif", colours, photometric="rgb", metadata={"axes": "ZYXS"})
    np.testing.assert_array_equal(read_whole(path, "file").values, colours)


@pytest.mark.parametrize(
    ("shape", "axes", "said"),
    [
        ((6, 16, 12), "TYX", "are not the axes of a volume"),
        ((6, 16, 12), "CZYX", r"name 4 axes, and its array has the shape \(6, 16, 12\)"),
        ((2, 6, 16, 12), None, r"may be read in several ways.*axes='CZYX'"),
        ((16, 12), None, "is an image and no volume"),
        ((2, 3, 6, 16, 12), None, "may be read in several ways"),
    ],
)
def test_wrong_axes_are_told(
    shape: tuple[int, ...], axes: str | None, said: str, tmp_path: Path
) -> None:
    path = npy(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match=said):
        read_whole(path, "file", axes=axes)


def test_time_is_no_depth_until_that_is_said(tmp_path: Path) -> None:
    path = tif(tmp_path / "a.tif", VALUES, imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(DataError, match=r"its axes are TYX.*axes='ZYX'"):
        read_whole(path, "file")
    np.testing.assert_array_equal(read_whole(path, "file", axes="ZYX").values[..., 0], VALUES)


@pytest.mark.parametrize(
    ("options", "millimetres"),
    [
        (
            {
                "imagej": True,
                "metadata": {"axes": "ZYX", "spacing": 3.0, "unit": "um"},
                "resolution": (4, 2),
            },
            (0.00025, 0.0005, 0.003),
        ),
        (
            {
                "ome": True,
                "photometric": "minisblack",
                "metadata": {
                    "axes": "ZYX",
                    "PhysicalSizeX": 0.5,
                    "PhysicalSizeXUnit": "mm",
                    "PhysicalSizeY": 250.0,
                    "PhysicalSizeYUnit": "µm",
                    "PhysicalSizeZ": 2e6,
                    "PhysicalSizeZUnit": "nm",
                },
            },
            (0.5, 0.25, 2.0),
        ),
        ({"photometric": "minisblack"}, (1.0, 1.0, 1.0)),
    ],
    ids=["imagej", "ome", "none"],
)
def test_spacing_is_what_the_file_knows(
    options: dict[str, Any], millimetres: tuple[float, ...], tmp_path: Path
) -> None:
    path = tif(tmp_path / "a.tif", VALUES, **options)
    np.testing.assert_allclose(Volume(path).spacing, millimetres, rtol=1e-6)
    if options.get("imagej"):
        again = tmp_path / "again.tif"
        again.write_bytes(read_whole(path, "file").encoded(VALUES.astype(np.float32)))
        np.testing.assert_allclose(Volume(again).spacing, millimetres, rtol=1e-4)


def test_a_volume_that_is_too_large_is_not_decoded(tmp_path: Path) -> None:
    for path in (npy(tmp_path / "a.npy", VALUES), tif(tmp_path / "a.tif", VALUES)):
        with pytest.raises(DataError, match=r"6 x 16 x 12 pixels.*max_pixels="):
            read_whole(path, "file", max_pixels=6 * 16 * 12 - 1)
        assert read_whole(path, "file", max_pixels=6 * 16 * 12).values.shape == (6, 16, 12, 1)


def test_an_ome_text_that_could_grow_is_not_read(tmp_path: Path) -> None:
    bomb = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa">]><OME><Pixels/></OME>'
    path = tif(
        tmp_path / "a.tif", VALUES, description=bomb, metadata=None, photometric="minisblack"
    )
    assert Volume(path).spacing == (1.0, 1.0, 1.0)


def test_image_and_mask_of_two_sizes_or_kinds_are_told(tmp_path: Path) -> None:
    import nibabel

    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    npy(tmp_path / "images/a.npy", VALUES)
    npy(tmp_path / "masks/a.npy", LABELS[:5])
    npy(tmp_path / "images/b.npy", VALUES)
    nibabel.save(nibabel.Nifti1Image(LABELS, np.eye(4)), tmp_path / "masks/b.nii.gz")
    table = ClassTable(("a", "b", "c"))
    source = open_source((tmp_path / "images", tmp_path / "masks"), classes=table).volumes("RAS")
    reasons = {one.id: one.reason for one in source.skipped}
    assert "is a stack of planes and its mask 'b.nii.gz'" in reasons["b"]
    (entry,) = source.dataset(Preprocessing(channels=1, dims=3))
    assert isinstance(entry, Skipped)
    assert re.search(r"5 x 16 x 12|\(5, 16, 12\)", entry.reason), entry.reason


def test_values_are_taken_as_stored_and_that_is_said(tmp_path: Path) -> None:
    npy(tmp_path / "images/a.npy", VALUES)
    npy(tmp_path / "masks/a.npy", LABELS)
    table = ClassTable(("a", "b", "c"))
    source = open_source((tmp_path / "images", tmp_path / "masks"), classes=table).volumes("RAS")
    settled = source.settled(Preprocessing(channels=1, dims=3, stride=2))
    assert "as they are stored" in " ".join(source.remarks)
    (entry,) = source.dataset(settled)
    assert isinstance(entry, Item)
    assert entry.prepared.image.max() == 100


def test_masks_of_0_and_255_are_surveyed_as_volumes(tmp_path: Path) -> None:
    npy(tmp_path / "images/a.npy", VALUES)
    npy(tmp_path / "masks/a.npy", (LABELS > 0) * np.uint8(255))
    table = ClassTable(("ground", "cell"))
    source = open_source((tmp_path / "images", tmp_path / "masks"), classes=table).volumes("RAS")
    assert source.classes is not None
    assert source.classes.values == (0, 255)


def test_axes_are_for_networks_of_volumes(tmp_path: Path) -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, 2, 1), nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 1)
    )
    path = npy(tmp_path / "a.npy", LABELS[0])
    with pytest.raises(UnetcamError, match="the network takes images"):
        unetcam.map(network, path, out=tmp_path / "maps", axes="ZYX")
