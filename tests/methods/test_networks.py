"""Every method on networks of other makers, at the last decoder layer that was found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import segmentation_models_pytorch as smp
import torch
import torchvision
from monai.networks.nets import UNETR, AttentionUnet, BasicUNetPlusPlus, DynUNet, SegResNet
from monai.networks.nets import UNet as MonaiUNet
from torch import nn

from tests.methods.harness import NAMES, quick
from tests.networks import Nameless, ValidUNet
from unetcam import UNetCAM
from unetcam.errors import LayerError
from unetcam.targets import ClassScore


@dataclass(frozen=True)
class Made:
    """A network, the images it takes, and which methods refuse it."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    refused: set[str] = field(default_factory=lambda: {"attention"})


def of_smp(name: str, refused: set[str] | None = None) -> Made:
    def build() -> nn.Module:
        made: nn.Module = getattr(smp, name)("resnet18", encoder_weights=None, classes=3)
        return made

    return Made(build, (3, 64, 64), {"attention"} if refused is None else refused)


#: A 3x3 head, or a normalisation over pixels before it: no class activation mapping.
HEADLESS = {"attention", "cam"}
MADE = {
    "smp.FPN": of_smp("FPN"),
    "monai.AttentionUnet": Made(
        lambda: AttentionUnet(2, 1, 3, channels=(4, 8, 16), strides=(2, 2)), (1, 32, 32), set()
    ),
    "smp.UnetPlusPlus": of_smp("UnetPlusPlus", HEADLESS),
    "smp.Linknet": of_smp("Linknet"),
    "smp.PSPNet": of_smp("PSPNet", HEADLESS),
    "smp.DeepLabV3Plus": of_smp("DeepLabV3Plus"),
    "smp.UPerNet": of_smp("UPerNet"),
    "smp.Segformer": of_smp("Segformer"),
    "valid": Made(ValidUNet, (1, 92, 92)),
    "nameless": Made(Nameless, (1, 32, 32)),
    "monai.UNet": Made(lambda: MonaiUNet(3, 1, 3, (4, 8, 16), (2, 2)), (1, 16, 16, 16), HEADLESS),
    "monai.BasicUNetPlusPlus": Made(
        lambda: BasicUNetPlusPlus(2, 1, 3, features=(4, 4, 8, 8, 8, 4)), (1, 32, 32)
    ),
    "monai.DynUNet": Made(
        lambda: DynUNet(2, 1, 3, (3, 3, 3), (1, 2, 2), (2, 2), filters=(4, 8, 16)), (1, 32, 32)
    ),
    "monai.SegResNet": Made(lambda: SegResNet(2, 8, 1, 3), (1, 32, 32), HEADLESS),
    "monai.UNETR": Made(lambda: UNETR(1, 3, (32, 32), 4, 32, 64, 4, spatial_dims=2), (1, 32, 32)),
    "torchvision.fcn": Made(
        lambda: torchvision.models.segmentation.fcn_resnet50(
            weights=None, weights_backbone=None, num_classes=3
        ),
        (3, 64, 64),
    ),
    "torchvision.lraspp": Made(
        lambda: torchvision.models.segmentation.lraspp_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=3
        ),
        (3, 64, 64),
        set(),
    ),
}
QUICK = ("smp.FPN", "monai.AttentionUnet", "nameless")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in MADE]
)
def test_every_method_explains_it_or_says_why_not(name: str) -> None:
    made = MADE[name]
    torch.manual_seed(0)
    model = made.build().eval()
    images = torch.rand(1, *made.shape)
    layer = UNetCAM(model, example=images).layers[-1]
    size = UNetCAM(model, [layer])(images)[layer].shape[2:]
    for method in (*NAMES, "smooth-layercam"):
        cam = UNetCAM(model, [layer], quick(method))
        if method in made.refused:
            with pytest.raises(LayerError, match=f"'{layer}'"):
                cam(images)
            continue
        maps = cam(images, ClassScore(1))[layer]
        assert maps.shape[2:] == size
        assert torch.isfinite(maps[:, 0]).all()
        assert (maps[:, 0] >= 0).all()
