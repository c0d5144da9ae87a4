"""What holds for every method: one set of checks, a few lines for each method."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tests.networks import GatedUNet, GatedUNet3d, UNet, UNet3d, seeded
from unetcam import UNetCAM, methods
from unetcam.methods import Method
from unetcam.result import CAMResult
from unetcam.targets import ClassScore, PredictedRegion, Region, Target

SIDE = 32
IMAGES = torch.rand(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(11))
IMAGES[0, :, 8:20, 12:28] += 1
IMAGES[1, :, 16:, :10] += 2
VOLUMES = torch.rand(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(12))

#: Fewer samples than by default, so that every method takes a blink.
FEW = {
    "rise": {"samples": 24},
    "lime": {"samples": 24, "superpixels": 8},
    "kernelshap": {"samples": 24, "superpixels": 8},
}
NAMES = list(methods.names())
WRAPPED = ("smooth-gradcam", "smooth-scorecam", "smooth-eigencam")


def quick(name: str) -> Method:
    """The method of that name, with so few samples that it takes no time."""
    method = methods.get(name)
    if isinstance(method, methods.smooth.Smooth):
        return replace(method, samples=3)
    return replace(method, **FEW[name]) if name in FEW else method


def kind(name: str) -> type[UNet]:
    """The U-Net's class: one with gates where the method needs them."""
    return GatedUNet if name == "attention" else UNet


def network(name: str) -> tuple[torch.nn.Module, list[str]]:
    """A small U-Net that predicts each class somewhere, and layers where the method has a map."""
    model = seeded(kind(name)(1, 3))
    with torch.no_grad():
        model.outc.bias -= model(IMAGES).mean(dim=(0, 2, 3))
    return model, ["up4"] if name == "cam" else ["up4", "up2"]


def network_3d(name: str) -> tuple[torch.nn.Module, list[str]]:
    model = GatedUNet3d() if name == "attention" else UNet3d()
    return seeded(model), ["dec1"] if name == "cam" else ["dec2", "dec1"]


def explain(name: str, images: Tensor, targets: list[Target] | None = None) -> CAMResult:
    model, layers = network(name) if images.ndim == 4 else network_3d(name)
    return UNetCAM(model, layers, quick(name))(images, targets)


def region(side: int = SIDE) -> Tensor:
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[side // 4 : side // 2, side // 3 :] = True
    return mask


TARGETS: list[Target] = [ClassScore(0), Region(2, region()), PredictedRegion(1)]
