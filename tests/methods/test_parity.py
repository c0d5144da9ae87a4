"""Every method agrees with the tools that people use now."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torchcam.methods
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM
from torch import Tensor, nn

from tests.methods.comparisons import Comparison, Departure, comparisons, departures
from tests.methods.peers import Case, cases, raw_apart, the_peers_own_scaling, torch_cam
from tests.networks import UNet, seeded
from unetcam import UNetCAM
from unetcam.methods import GradientMethod
from unetcam.methods.gradient import weighted
from unetcam.targets import ClassScore, Region

PEERS = {
    "gradcam": GradCAM,
    "gradcam++": GradCAMPlusPlus,
    "hirescam": HiResCAM,
    "layercam": LayerCAM,
}
TOLERANCE = 1e-5  # absolute, of maps in [0, 1]

SIDE = 64


def networks() -> dict[str, tuple[nn.Module, list[str], Tensor]]:
    generator = torch.Generator().manual_seed(7)
    return {
        "plain": (
            seeded(UNet(1, 3)),
            ["up1", "up3", "up4"],
            torch.rand(2, 1, SIDE, SIDE, generator=generator),
        ),
        "smp-unet": (
            seeded(smp.Unet("resnet18", encoder_weights=None, classes=3), norms=False),
            ["decoder.blocks.1", "decoder.blocks.4"],
            torch.rand(2, 3, SIDE, SIDE, generator=generator),
        ),
        "smp-fpn": (
            seeded(smp.FPN("resnet18", encoder_weights=None, classes=3), norms=False),
            ["decoder.p4", "decoder.merge"],
            torch.rand(2, 3, SIDE, SIDE, generator=generator),
        ),
    }


#: In single precision the plain path, which does the peers' own operations; in double precision
#: what users get, whose other order of summation single precision would show.
PATHS = pytest.mark.parametrize(
    ("dtype", "shortcuts"),
    [(torch.float32, False), (torch.float64, True)],
    ids=["f32-plain", "f64-shortcuts"],
)


@PATHS
@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("method", ["gradcam", "hirescam", "layercam"])
def test_agrees_with_pytorch_grad_cam(
    name: str, method: str, dtype: torch.dtype, shortcuts: bool
) -> None:
    model, layers, images = networks()[name]
    model, images = model.to(dtype), images.to(dtype)
    region = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    region[10:40, 20:50] = True
    targets = [ClassScore(1), Region(2, region)]
    peer_targets = [lambda out: out[1].mean(), lambda out: out[2][region].mean()]
    result = UNetCAM(model, layers, method, shortcuts=shortcuts)(images, targets)
    for layer in layers:
        for index, peer_target in enumerate(peer_targets):
            with PEERS[method](model, [model.get_submodule(layer)]) as peer:
                theirs = peer(images, [peer_target] * len(images))
            for image in range(len(images)):
                ours = the_peers_own_scaling(result[layer][image, index].numpy(), SIDE)
                np.testing.assert_allclose(ours, theirs[image], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", networks())
def test_gradcam_plus_plus_agrees_where_the_peers_epsilon_does_not_rule(name: str) -> None:
    """The peer adds 1e-6 to a denominator made of squared gradients, which are below 1e-9 for a
    mean over an image. Scores as large as a sum, in double precision, make that negligible; the
    formula is not linear in the score, so both explain the same scaled logits."""
    model, layers, images = networks()[name]
    scale = 1e6
    model = nn.Sequential(model.double(), Scaled(scale))
    images = images.double()
    layers = [f"0.{layer}" for layer in layers]
    result = UNetCAM(model, layers, "gradcam++")(images, [ClassScore(1)])
    for layer in layers:
        with GradCAMPlusPlus(model, [model.get_submodule(layer)]) as peer:
            theirs = peer(images, [lambda out: out[1].mean()] * len(images))
        for image in range(len(images)):
            ours = the_peers_own_scaling(result[layer][image, 0].numpy(), SIDE)
            np.testing.assert_allclose(ours, theirs[image], atol=TOLERANCE, rtol=0)


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits: Tensor) -> Tensor:
        return logits * self.factor


@PATHS
@pytest.mark.parametrize("name", networks())
def test_agrees_with_captum_raw(name: str, dtype: torch.dtype, shortcuts: bool) -> None:
    """To 3e-6 relative in single precision, where both round, and 1e-13 in double."""
    model, layers, images = networks()[name]
    model, images = model.to(dtype), images.to(dtype)
    region = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    region[10:40, 20:50] = True

    def score(batch: Tensor) -> Tensor:
        return model(batch)[:, 1, region].mean(dim=1, keepdim=True)

    result = UNetCAM(model, layers, shortcuts=shortcuts)(images, [Region(1, region)])
    for layer in layers:
        theirs = (
            LayerGradCam(score, model.get_submodule(layer))
            .attribute(images, target=0, relu_attributions=True)
            .detach()
        )
        assert (theirs > 0).any()
        difference = torch.linalg.norm(result[layer] - theirs) / torch.linalg.norm(theirs)
        assert difference <= (3e-6 if dtype == torch.float32 else 1e-13)


def named(found: Sequence[Comparison]) -> list[str]:
    return [f"{one.method}-{one.peer}" for one in found]


#: Both run through captum here and there, and are held against it in test_surrogate.py as well.
SLOW = ("lime", "kernelshap")


@pytest.mark.parametrize(
    "comparison",
    [
        pytest.param(one, marks=pytest.mark.slow if one.method in SLOW else ())
        for one in comparisons()
    ],
    ids=named(comparisons()),
)
def test_a_shared_method_gives_the_peers_map(comparison: Comparison) -> None:
    """On three architectures, with a region target; tolerances stand with the comparisons."""
    differences = list(comparison.differences())
    assert len({name for name, _, _ in differences}) == 3
    for _, _, difference in differences:
        assert difference <= comparison.tolerance


@pytest.mark.slow
@pytest.mark.parametrize("departure", departures(), ids=named(departures()))
def test_where_we_differ_on_purpose_we_do(departure: Departure) -> None:
    """Should a peer come to agree, the page would be wrong."""
    assert departure.why
    assert max(difference for _, _, difference in departure.differences()) > 1e-3


@pytest.mark.parametrize("case", cases(), ids=[case.name for case in cases()])
def test_torchcams_gradcam_plus_plus_has_lost_its_division(case: Case) -> None:
    """With the weights sum(G^2 relu(G)) we get its maps: the reason on the page holds."""

    class Undivided(GradientMethod):
        name, title, formula, paper, when = "undivided", "", "", "", ""

        def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
            return (gradient.square() * gradient.relu()).flatten(2).sum(dim=2)

        def combine(self, activation: Tensor, statistics: Tensor) -> Tensor:
            return weighted(activation, statistics).relu()

    for layer in case.layers:
        ours = UNetCAM(case.model, [layer], Undivided())(case.images, case.targets)[layer]
        assert raw_apart(ours, torch_cam(case, layer, torchcam.methods.GradCAMpp)) < 1e-9


@pytest.mark.slow
def test_one_command_writes_the_page(tmp_path: Path) -> None:
    """With the methods and peers of the page that is there; numbers may differ by rounding."""
    root = Path(__file__).parents[2]
    out = tmp_path / "parity.md"
    command = [sys.executable, str(root / "scripts" / "parity.py"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    def rows(page: Path) -> list[list[str]]:
        lines = [line for line in page.read_text(encoding="utf-8").splitlines() if "| `" in line]
        return [line.split(" | ")[:4] for line in lines]

    assert rows(out) == rows(root / "docs" / "parity.md")
    assert len(rows(out)) == len(comparisons()) + len(departures())
