"""Networks that take one number of images at once, as exported and hand-written ones do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import unetcam
from tests.runs.factory import TinyUNet
from unetcam.errors import UnetcamError
from unetcam.models import LoadedModel


class Insisting(nn.Module):
    """A network whose forward is written for three images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits.view(3, 3, *images.shape[2:])


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain = TinyUNet().eval()
    return plain, Insisting(plain).eval()


def images(count: int) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_logits_of_any_number_of_images() -> None:
    plain, insisting = networks()
    loaded = LoadedModel.of(insisting, images(3))
    assert loaded.batch_size == 3
    for count in (1, 2, 3, 4, 7):
        expected = LoadedModel.of(plain).logits(images(count))
        torch.testing.assert_close(loaded.logits(images(count)), expected)


def test_a_report_is_that_of_the_same_network(tmp_path: Path) -> None:
    plain, insisting = networks()
    given, masks = images(4), torch.randint(0, 3, (4, 16, 16))
    names = ["a", "b", "c"]
    one = unetcam.report(plain, (given, masks), classes=names, out=tmp_path / "1", batch_size=3,
                         diagnose=False)  # fmt: skip
    two = unetcam.report(insisting, (given, masks), classes=names, out=tmp_path / "2", batch_size=3)
    measured = one.rows.assign(layer="network." + one.rows.layer)
    pd.testing.assert_frame_equal(two.rows, measured, rtol=1e-3, atol=1e-5)
    assert two.diagnosis is None
    assert "takes several images at once" in two.undiagnosed
    assert two.page.exists()


def test_maps_of_single_images(tmp_path: Path) -> None:
    plain, insisting = networks()
    raw = []
    for name, network in (("1", plain), ("2", insisting)):
        out = tmp_path / name
        done = unetcam.map(network, list(images(2)), out=out, batch_size=3)
        archives = [path for path in done.files if path.name == "maps.npz"]
        raw.append([np.load(path)["prediction"] for path in archives])
    np.testing.assert_array_equal(raw[0], raw[1])


@pytest.mark.parametrize(
    ("batch_size", "said"),
    [(None, "batch_size= where it takes one number"), (2, "batch_size= where")],
)
def test_the_number_has_to_be_said(tmp_path: Path, batch_size: int | None, said: str) -> None:
    _, insisting = networks()
    with pytest.raises(UnetcamError, match=said):
        unetcam.map(insisting, list(images(2)), out=tmp_path / "maps", batch_size=batch_size)
