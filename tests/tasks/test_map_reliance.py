"""Reliance maps as files: the cue that a network was built to lean on, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import unetcam
from tests.runs.factory import write_data, write_network
from unetcam.cli import main
from unetcam.errors import RunError, UnetcamError


class Cued(nn.Module):
    """Gives the left third to class 1, but only while a patch at the right edge is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 1, 2, 2), nn.ConvTranspose2d(1, 1, 2, 2)
        self.head = nn.Conv2d(1, 2, 1)
        with torch.no_grad():
            for module in (self.down, self.up, self.head):
                module.weight.fill_(1e-3)
                module.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        plain = self.head(self.up(self.down(x)))
        left = (torch.arange(x.shape[-1], device=x.device) < x.shape[-1] // 3).to(x.dtype)
        bright = (x[..., -4:] > 0.9).to(x.dtype)
        cue = bright.mean(dim=(2, 3), keepdim=True) * x.shape[-2] / 4  # 1 of four bright rows
        return plain + torch.cat((0.9 + 0 * x, left * cue + 0 * x), dim=1)


def image() -> Tensor:
    made = torch.rand(1, 24, 36, generator=torch.Generator().manual_seed(3)) * 0.2
    made[..., 8:12, -4:] = 1.0
    return made


def test_the_cue_that_decides_is_where_the_map_is_hot(tmp_path: Path) -> None:
    made = unetcam.map(
        Cued(), [image()], out=tmp_path / "maps", method="reliance", classes=["ground", "cell"]
    )
    (folder,) = (tmp_path / "maps").iterdir()
    assert {path.name for path in made.files} >= {"maps.npz", "reliance.json", "reliance.cell.png"}
    with np.load(folder / "maps.npz") as arrays:
        cell = arrays["map:reliance"][1]
        prediction = arrays["prediction"]
    assert (prediction[:, :12] == 1).all()
    assert np.isnan(cell[:, :12]).all()  # its own pixels are spared
    assert np.nanmax(cell) <= 1
    assert np.nanmax(cell[8:12, -4:]) > 0.9
    assert np.nanmax(cell[:, 14:20]) == 0
    assert np.nanmax(cell[-6:]) == 0
    told = json.loads((folder / "reliance.json").read_text(encoding="utf-8"))
    assert told["unit"] == "share of the class's predicted pixels that flip"
    assert told["classes"]["cell"]["all"] == 1.0
    assert told["classes"]["cell"]["far"] == 1.0
    with Image.open(folder / "reliance.cell.png") as picture:
        assert min(picture.size) > 400


def test_the_command_writes_what_the_call_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(tmp_path, 1)
    arguments = [
        "map", write_network(tmp_path), str(tmp_path / "images"), "--out", str(tmp_path / "maps"),
        "--classes", "background,cell,border", "--device", "cpu", "--method", "reliance", "--json",
    ]  # fmt: skip
    assert main(arguments) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert any(name.endswith("reliance.json") for name in files)
    assert any(name.endswith(".png") for name in files)


def test_an_image_in_which_nothing_could_flip_is_skipped_with_the_reason(tmp_path: Path) -> None:
    """Eight pixels are too few for a share of them to say anything."""
    with pytest.raises(UnetcamError, match=r"No image could be explained.*nothing that could flip"):
        unetcam.map(Cued(), [torch.zeros(1, 2, 4)], out=tmp_path / "maps", method="reliance")


def test_logits_of_half_the_size_have_a_map_of_the_images_size(tmp_path: Path) -> None:
    class Half(Cued):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[..., ::2, ::2]

    unetcam.map(Half(), [image()], out=tmp_path / "maps", method="reliance")
    (archive,) = (tmp_path / "maps").rglob("maps.npz")
    with np.load(archive) as arrays:
        assert arrays["map:reliance"].shape == (2, 24, 36)
        assert np.nanmax(arrays["map:reliance"][1][8:12, -4:]) > 0.9


@pytest.mark.parametrize(
    ("options", "name"),
    [({"layers": ["up"]}, "layers="), ({"tile": 16}, "tile="), ({"amp": True}, "amp=")],
)
def test_options_that_would_do_nothing_are_refused(
    tmp_path: Path, options: dict[str, object], name: str
) -> None:
    with pytest.raises(RunError, match=f"leave out {name}"):
        unetcam.map(Cued(), [image()], out=tmp_path / "maps", method="reliance", **options)
    assert not (tmp_path / "maps").exists()


def test_a_report_and_a_cam_refuse_it_and_say_where_it_is(tmp_path: Path) -> None:
    for refused in (
        lambda: unetcam.UNetCAM(Cued(), method="reliance"),
        lambda: unetcam.report(
            Cued(), (image()[None], torch.zeros(1, 24, 36, dtype=torch.long)),
            classes=["ground", "cell"], out=tmp_path / "run", method="reliance",
        ),
    ):  # fmt: skip
        with pytest.raises(UnetcamError, match="'reliance' is no method of layers and targets"):
            refused()
    assert not (tmp_path / "run").exists()
