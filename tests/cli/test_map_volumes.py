"""unetcam map on volumes, and in tiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.networks import UNet3d, seeded
from tests.runs.factory import TinyUNet, write_data, write_network
from unetcam import UNetCAM
from unetcam.cli import main
from unetcam.cli.console import RichProgress
from unetcam.data import find_samples
from unetcam.data.volume_samples import whole_volumes
from unetcam.targets import Region

SHAPE = (12, 10, 8)
#: Stored from left to right, top to bottom and front to back; 2 x 4 x 3 mm.
AFFINE = np.array([[2.0, 0, 0, -11], [0, 0, -3, 40], [0, -4.0, 0, 25], [0, 0, 0, 1]])
VALUES = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)


def build() -> nn.Module:
    return seeded(UNet3d())


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "net3.py").write_text("from tests.cli.test_map_volumes import build\n")
    nib.save(nib.Nifti1Image(VALUES, AFFINE), tmp_path / "brain.nii.gz")
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> Any:
    assert main([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert main(arguments) == 2
    return capsys.readouterr().err


def command(work: Path, *images: str, out: str = "maps") -> list[str]:
    files = [str(work / name) for name in images]
    return ["map", f"{work / 'net3.py'}:build", *files, "--out", str(work / out), "--device", "cpu"]


def expected(values: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What UNetCAM says of a volume in the network's axes, filled up to 12 x 12 x 8 by hand."""
    volume = torch.zeros(1, 1, *[-(-side // 4) * 4 for side in values.shape])
    offset = [(-(-side // 4) * 4 - side) // 2 for side in values.shape]
    inside = tuple(slice(a, a + side) for a, side in zip(offset, values.shape, strict=True))
    volume[0, 0][inside] = torch.from_numpy(values.copy()).float()  # volumes are not divided
    area = torch.zeros(volume.shape[2:])
    area[inside] = 1
    result = UNetCAM(build())(volume, [Region(index, area) for index in range(3)]).resized()
    maps = {name: one[0][(slice(None), *inside)].numpy() for name, one in result.maps.items()}
    return maps, result.logits[0].argmax(0)[inside].numpy()


def test_maps_of_a_nifti_volume_lie_where_it_lies(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer(capsys, command(work, "brain.nii.gz"))
    assert found["skipped"] == []
    folder = work / "maps" / "brain"
    assert {path.name for path in folder.iterdir()} == {
        "prediction.nii.gz",
        *(f"{layer}.class_{index}.nii.gz" for layer in ("dec2", "dec1") for index in range(3)),
    }
    assert len(found["files"]) == 7
    # Right, front, up: the stored axes are right, down, back.
    maps, prediction = expected(VALUES.transpose(0, 2, 1)[:, ::-1, ::-1])
    for layer in ("dec2", "dec1"):
        for index in range(3):
            made = nib.load(folder / f"{layer}.class_{index}.nii.gz")
            np.testing.assert_array_equal(made.affine, AFFINE)
            assert made.get_data_dtype() == np.float32
            canonical = nib.as_closest_canonical(made).get_fdata(dtype=np.float32)
            np.testing.assert_allclose(canonical, maps[layer][index], rtol=1e-4, atol=1e-9)
    labels = nib.as_closest_canonical(nib.load(folder / "prediction.nii.gz"))
    assert labels.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(labels.dataobj), prediction)
    assert "--force" in refused(capsys, command(work, "brain.nii.gz"))
    assert main([*command(work, "brain.nii.gz"), "--force"]) == 0


def test_maps_of_a_nrrd_volume_in_the_order_of_its_file(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lps = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    header = {
        "space": "left-posterior-superior",
        "space directions": lps[:3, :3].T,
        "space origin": lps[:3, 3],
        "kinds": ["domain"] * 3,
    }
    nrrd.write(str(work / "ct.nrrd"), VALUES, header)
    answer(
        capsys,
        [*command(work, "ct.nrrd"), "--orientation", "file", "--classes", "air,bone,gut",
         "--layers", "dec1"],
    )  # fmt: skip
    maps, prediction = expected(VALUES)
    values, made = nrrd.read(str(work / "maps" / "ct" / "dec1.bone.nrrd"))
    np.testing.assert_allclose(values, maps["dec1"][1], rtol=1e-4, atol=1e-9)
    assert made["space"] == header["space"]
    for name in ("space directions", "space origin"):
        np.testing.assert_array_equal(made[name], header[name])
    labels, _ = nrrd.read(str(work / "maps" / "ct" / "prediction.nrrd"))
    np.testing.assert_array_equal(labels, prediction)


def test_volumes_in_tiles(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tile as large as the volume gives the same; smaller ones nearly, as a logit sees far."""
    values = np.tile(VALUES, (2, 1, 1))
    nib.save(nib.Nifti1Image(values, np.eye(4)), work / "long.nii")
    answer(capsys, command(work, "long.nii"))
    answer(capsys, [*command(work, "long.nii", out="one"), "--tile", "24x12x8"])
    answer(
        capsys,
        [*command(work, "long.nii", out="tiles"), "--tile", "12", "--overlap", "8"],
    )
    read = [
        nib.load(work / out / "long" / "dec1.class_1.nii.gz").get_fdata()
        for out in ("maps", "one", "tiles")
    ]
    peak = read[0].max()
    assert peak > 0
    np.testing.assert_allclose(read[1], read[0], rtol=1e-4, atol=1e-6 * peak)
    assert np.abs(read[2] - read[0]).max() > 1e-3 * peak
    assert np.corrcoef(read[2].flatten(), read[0].flatten())[0, 1] > 0.9


def test_images_in_tiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path, 1, lambda i: (40, 36))
    write_network(tmp_path)
    image = str(tmp_path / "images" / "im00.png")
    start = ["map", f"{tmp_path / 'net.py'}:build", image, "--device", "cpu"]
    answer(capsys, [*start, "--out", str(tmp_path / "tiled"), "--tile", "24", "--overlap", "8"])
    raw = np.load(tmp_path / "tiled" / "im00" / "maps.npz")
    torch.manual_seed(2)
    prepared = torch.from_numpy(np.array(Image.open(image))).float() / 255
    result = UNetCAM(TinyUNet()).tiled(prepared.permute(2, 0, 1), 24, 8).resized()
    for layer in result.layers:
        np.testing.assert_allclose(
            raw[f"map:{layer}"], result[layer][0].numpy(), rtol=1e-3, atol=1e-7
        )


def test_what_is_no_volume_is_skipped_by_name(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(work, 1)
    bands = np.zeros((*SHAPE, 5), np.float32)
    nib.save(nib.Nifti1Image(bands, AFFINE), work / "bands.nii.gz")
    found = answer(capsys, command(work, "brain.nii.gz", "images", "bands.nii.gz"))
    assert len(found["files"]) == 7
    reasons = {Path(one["file"]).name: one["reason"] for one in found["skipped"]}
    assert "is no volume, and the network is three-dimensional" in reasons["im00.png"]
    assert reasons["bands.nii.gz"].startswith("'bands.nii.gz': the image has 5 bands")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--orientation", "RAL"], "'RAL' is no orientation"),
        (["--tile", "12x12"], "A tile of 2 sides does not fit the network"),
        (["--tile", "12x"], "--tile 12x is no size"),
        (["--overlap", "4"], "give --tile as well"),
        (["--tile", "12", "--overlap", "12"], "can't overlap by 12"),
        (["--size", "64x64"], "The network takes volumes, and a size of 64 x 64"),
    ],
)
def test_what_does_not_fit_a_volume_is_refused(
    work: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert words in refused(capsys, [*command(work, "brain.nii.gz"), *more])


def test_the_layers_of_a_network_of_volumes_are_listed(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["layers", f"{work / 'net3.py'}:build"]
    assert answer(capsys, start)["layers"][0]["size"] == [64, 64, 64]
    assert answer(capsys, [*start, "--size", "16x8x24"])["layers"][0]["size"] == [16, 8, 24]


def test_the_bar_moves_within_an_image() -> None:
    with RichProgress(quiet=True) as progress:
        progress.within(1, 2)  # nothing has begun, so nothing moves
        progress.begin(total=2, done=0)
        (task,) = progress._bar.tasks
        seen = []
        for step in ((1, 4), (4, 4)):
            progress.within(*step)
            seen.append(task.completed)
        progress.advance(1)
        assert [*seen, task.completed] == [0.25, 1, 1]


def test_slices_become_their_volumes_again(work: Path) -> None:
    samples, _ = find_samples(work / "brain.nii.gz")
    assert len(samples) == 10
    volumes, others = whole_volumes(samples)
    assert [(one.id, one.image, one.plane) for one in volumes] == [
        ("brain", work / "brain.nii.gz", None)
    ]
    assert others == []


class Cued3d(nn.Module):
    """Gives the first third of the last axis to class 1, but only while a corner is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv3d(1, 1, 2, 2), nn.ConvTranspose3d(1, 1, 2, 2)
        self.head = nn.Conv3d(1, 2, 1)
        with torch.no_grad():
            for module in (self.down, self.up, self.head):
                module.weight.fill_(1e-6)
                module.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        plain = self.head(self.up(self.down(x)))
        first = (torch.arange(x.shape[-1], device=x.device) < x.shape[-1] // 3).to(x.dtype)
        bright = (x[..., -4:, -4:, -4:] > 200).to(x.dtype).mean(dim=(2, 3, 4), keepdim=True)
        return plain + torch.cat((0.9 + 0 * x, first * bright + 0 * x), dim=1)


def build_cued() -> nn.Module:
    return Cued3d()


def test_the_reliance_map_of_a_volume_lies_where_it_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net3.py").write_text(
        "from tests.cli.test_map_volumes import build_cued as build\n"
    )
    values = np.random.default_rng(0).integers(0, 60, (18, 16, 12)).astype(np.uint8)
    corners = np.array(np.meshgrid(*[[0, 1]] * 3)).reshape(3, -1).T
    for corner in corners:  # whichever way the axes are turned, one of them is the cue
        values[tuple(slice(0, 4) if one else slice(-4, None) for one in corner)] = 255
    nib.save(nib.Nifti1Image(values, AFFINE), tmp_path / "brain.nii.gz")
    told = answer(capsys, [*command(tmp_path, "brain.nii.gz"), "--method", "reliance"])
    by_name = {Path(name).name: Path(name) for name in told["files"]}
    (volume,) = [one for name, one in by_name.items() if name.endswith("1.nii.gz")]
    made = nib.load(volume)
    np.testing.assert_allclose(made.affine, AFFINE)
    maps = made.get_fdata()
    assert maps.shape == values.shape
    assert np.isnan(maps).any()  # the class's own voxels
    assert np.nanmax(maps) > 0.9
    hot = np.argwhere(np.nan_to_num(maps) > 0.5)
    assert len(hot)
    centre = hot.mean(axis=0) / np.array(values.shape)
    assert ((centre < 0.35) | (centre > 0.65)).all()  # in a corner, where the cue is
    shares = json.loads(by_name["reliance.json"].read_text(encoding="utf-8"))["classes"]
    assert shares["class 1"]["all"] == 1.0
