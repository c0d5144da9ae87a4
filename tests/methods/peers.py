"""The tools that people use now, asked for the same maps as we are: networks and calls."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import captum.attr
import cv2
import numpy as np
import pytorch_grad_cam
import segmentation_models_pytorch as smp
import torch
import torchcam.methods
from captum._utils.models.linear_model import SkLearnLinearRegression
from torch import Tensor, nn

from tests.networks import Nameless, UNet, seeded
from unetcam import UNetCAM
from unetcam.methods import Method
from unetcam.methods.components import first_component
from unetcam.methods.refine import RefineCAM, products
from unetcam.methods.surrogate import LIME, KernelSHAP, _nearness, superpixels
from unetcam.targets import ClassScore, Region, Target

SIDE = 32
SAMPLES = 4


@dataclass(frozen=True, eq=False)
class Case:
    """A network at some layers, with images and region targets, in double precision.

    Attributes
    ----------
    name : str
    model : nn.Module
    layers : tuple of str
        Of these, the first is deep and the last fine.
    images : Tensor
    head : str
        The linear layer that makes the logits.
    """

    name: str
    model: nn.Module
    layers: tuple[str, ...]
    images: Tensor
    head: str = ""

    @property
    def targets(self) -> list[Target]:
        return [ClassScore(1), Region(2, region())]

    @property
    def peer_targets(self) -> list[Callable[[Tensor], Tensor]]:
        """The same scores of one image's logits (C, H, W)."""
        inside = region()
        return [lambda out: out[1].mean(), lambda out: out[2][inside].mean()]

    def score(self, target: int) -> Callable[[Tensor], Tensor]:
        """The same scores of a batch of images, (B, 1)."""
        return lambda images: torch.stack(
            [self.peer_targets[target](one) for one in self.model(images)]
        )[:, None]


def region() -> Tensor:
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inside[5:20, 10:25] = True
    return inside


def images(channels: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    drawn = torch.rand(2, channels, SIDE, SIDE, generator=generator, dtype=torch.float64)
    drawn[0, :, 6:20, 4:15] += 1
    drawn[1, :, 15:, 15:] += 2
    return drawn


def cases() -> list[Case]:
    """Three architectures, at layers whatever their kind."""
    unet, fpn = (
        seeded(kind("resnet18", encoder_weights=None, classes=3), norms=False).double()
        for kind in (smp.Unet, smp.FPN)
    )
    found = [
        Case("U-Net", seeded(UNet(1, 3)).double(), ("up1", "up3", "up4"), images(1)),
        Case("smp.Unet", unet, ("decoder.blocks.1", "decoder.blocks.4"), images(3)),
        Case("smp.FPN", fpn, ("decoder.p4", "decoder.merge"), images(3)),
    ]
    for case in found:
        shift_scores(case, above=0.1)
    return found


def shift_scores(case: Case, above: float | None = None, below: float | None = None) -> None:
    """Move the head's bias until all scores are above, or below, a value."""
    head = case.model.outc if case.name == "U-Net" else case.model.segmentation_head[0]
    with torch.no_grad():
        logits = case.model(case.images)
        scores = torch.stack([target.score(logits).value for target in case.targets])
        head.bias += above - scores.min() if above is not None else below - scores.max()


def curved() -> list[Case]:
    """The same with group normalisation and SiLU in the place of batch normalisation and ReLU,
    so that scores have a second derivative."""

    def bend(module: nn.Module) -> None:
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.GroupNorm(1, child.num_features).double())
            elif isinstance(child, nn.ReLU):
                setattr(module, name, nn.SiLU())
            else:
                bend(child)

    found = cases()
    for case in found:
        bend(case.model)
    return found


def single() -> list[Case]:
    """The same in single precision."""
    return [Case(one.name, one.model.float(), one.layers, one.images.float()) for one in cases()]


def rectified() -> list[Case]:
    """The same at layers that end in a ReLU and have one input, as some peers need them."""
    names = {
        "U-Net": ("up2.conv", "up4.conv"),
        "smp.Unet": ("decoder.blocks.2.conv2", "decoder.blocks.4.conv2"),
        "smp.FPN": ("decoder.seg_blocks.3",),
    }
    return [Case(one.name, one.model, names[one.name], one.images) for one in cases()]


def layered() -> list[Case]:
    """Two or more layers of decoders that end in a ReLU, deepest first."""
    names = {
        "U-Net": ("up1.conv", "up2.conv", "up4.conv"),
        "smp.Unet": ("decoder.blocks.1.conv2", "decoder.blocks.3.conv2"),
        "smp.FPN": ("encoder.layer3", "decoder.seg_blocks.3"),
    }
    return [Case(one.name, one.model, names[one.name], one.images) for one in cases()]


def deep() -> list[Case]:
    """At layers smaller than the image."""
    return [Case(one.name, one.model, one.layers[:1], one.images) for one in rectified()]


def negative() -> list[Case]:
    """Networks whose scores are negative."""
    found = rectified()
    for case in found:
        shift_scores(case, below=-0.1)
    return found


def signed() -> list[Case]:
    """At layers that end in no ReLU."""
    names = {
        "U-Net": ("up4.conv.3",),
        "smp.Unet": ("decoder.blocks.4.conv2.0",),
        "smp.FPN": ("decoder.p5",),
    }
    return [Case(one.name, one.model, names[one.name], one.images) for one in cases()]


def finest() -> list[Case]:
    """At the finest of those layers."""
    return [Case(one.name, one.model, one.layers[-1:], one.images) for one in rectified()]


def full_size() -> list[Case]:
    """The same at layers of the image's size, which no mask has to be enlarged for."""
    plain, unet, _ = rectified()
    nameless = Case("functional", seeded(Nameless()).double(), ("k.r",), images(1))
    return [
        Case(plain.name, plain.model, plain.layers[-1:], plain.images),
        Case(unet.name, unet.model, unet.layers[-1:], unet.images),
        nameless,
    ]


def headed() -> list[Case]:
    """Networks with a 1x1 head."""
    plain, _, fpn = cases()
    return [
        Case(plain.name, plain.model, ("up4",), plain.images, head="outc"),
        Case(fpn.name, fpn.model, ("decoder.merge",), fpn.images, head="segmentation_head.0"),
        Case("functional", seeded(Nameless()).double(), ("k.r",), images(1), head="z9"),
    ]


# -- what each of them gives -----------------------------------------------------------------


def ours(case: Case, layer: str, method: str | Method) -> Tensor:
    """(B, T, h, w), raw."""
    return UNetCAM(case.model, [layer], method)(case.images, case.targets)[layer]


def grad_cam(case: Case, layer: str, peer: Any) -> Tensor:
    """(B, T, H, W), scaled as pytorch-grad-cam scales."""
    found = []
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        for target in case.peer_targets:
            with peer(case.model, [case.model.get_submodule(layer)]) as cam:
                found.append(torch.from_numpy(cam(case.images, [target] * len(case.images))))
    return torch.stack(found, dim=1)


def torch_cam(case: Case, layer: str, peer: Any) -> Tensor:
    """(B, T, h, w), raw."""
    found = []
    for target in case.peer_targets:
        with peer(case.model, layer) as cam:
            logits = case.model(case.images.clone().requires_grad_())
            (maps,) = cam(scores=logits, targets=target, normalized=False)
            found.append(maps.detach())
    return torch.stack(found, dim=1)


def refined(case: Case, layer: str, *, from_zero: bool = False) -> Tensor:
    """(B, T, h, w): our product of LayerCAM's maps of the case's layers up to one.

    `from_zero` takes each map's smallest value off before.
    """
    if not from_zero:
        cam = UNetCAM(case.model, upto(case, layer), RefineCAM("layercam"))
        return cam(case.images, case.targets)[layer]
    plain = UNetCAM(case.model, upto(case, layer), "layercam")(case.images, case.targets).maps
    return products({n: m - m.amin(dim=(2, 3), keepdim=True) for n, m in plain.items()})[0][layer]


def torch_cam_refined(case: Case, layer: str) -> Tensor:
    """(B, T, h, w), of torchcam's LayerCAM; of a score so large that its epsilon does not count."""
    found = []
    for target in case.peer_targets:
        maps = []

        def large(logits: Tensor, target: Callable[[Tensor], Tensor] = target) -> Tensor:
            return 1e9 * target(logits)

        for image in case.images.split(1):
            with torchcam.methods.RefineCAM(
                case.model, upto(case, layer), base_method=torchcam.methods.LayerCAM
            ) as cam:
                logits = case.model(image.clone().requires_grad_())
                (one,) = cam(scores=logits, targets=large, normalized=False)
                maps.append(one.detach())
        found.append(torch.cat(maps))
    return torch.stack(found, dim=1)


def grad_cam_refined(case: Case, layer: str) -> Tensor:
    """(B, T, H, W), scaled as pytorch-grad-cam scales, of its LayerCAM."""
    modules = [case.model.get_submodule(name) for name in upto(case, layer)]
    found = []
    for target in case.peer_targets:
        peer = pytorch_grad_cam.RefineCAM(
            case.model, modules, base_method=pytorch_grad_cam.LayerCAM
        )
        maps = [peer(image, [target]) for image in case.images.split(1)]
        found.append(torch.from_numpy(np.concatenate(maps)))
        for one in peer.base_cam_per_layer:
            one.activations_and_grads.release()
    return torch.stack(found, dim=1)


def upto(case: Case, layer: str) -> list[str]:
    """A case's layers, deepest first, up to one."""
    return list(case.layers[: case.layers.index(layer) + 1])


def torch_cam_of_classes(case: Case, layer: str) -> Tensor:
    """(B, 2, h, w): torchcam's CAM takes a class and no region; without the ReLU of the paper's."""
    found = []
    for index in (1, 2):
        with torchcam.methods.CAM(case.model, layer, case.head) as cam, torch.no_grad():
            case.model(case.images)
            (maps,) = cam(class_idx=index, normalized=False)
            found.append(maps.relu())
    return torch.stack(found, dim=1)


def captum_layer(case: Case, layer: str) -> Tensor:
    """(B, T, h, w), raw."""
    module = case.model.get_submodule(layer)
    found = []
    for target in range(len(case.targets)):
        cam = captum.attr.LayerGradCam(case.score(target), module)
        found.append(cam.attribute(case.images, target=0, relu_attributions=True).detach())
    return torch.cat(found, dim=1)


def captum_noise(case: Case, layer: str) -> Tensor:
    """(B, T, h, w), raw: one image at a time, as the noise is drawn for the whole batch."""
    module = case.model.get_submodule(layer)
    rows = []
    for image in case.images.split(1):
        row = []
        for target in range(len(case.targets)):
            tunnel = captum.attr.NoiseTunnel(captum.attr.LayerGradCam(case.score(target), module))
            torch.manual_seed(0)
            row.append(
                tunnel.attribute(
                    image,
                    nt_type="smoothgrad",
                    nt_samples=SAMPLES,
                    nt_samples_batch_size=1,
                    stdevs=0.15 * float(image.max() - image.min()),
                    target=0,
                    relu_attributions=True,
                ).detach()
            )
        rows.append(torch.cat(row, dim=1))
    return torch.cat(rows)


def captum_pieces(case: Case, layer: str, method: LIME | KernelSHAP) -> Tensor:
    """(B, T, H, W), raw: one call for each image and target."""
    rows = []
    for image in case.images.split(1):
        row = []
        for target in range(len(case.targets)):
            score = case.score(target)

            def forward(batch: Tensor, score: Callable[[Tensor], Tensor] = score) -> Tensor:
                with torch.no_grad():
                    return score(batch)[:, 0]

            peer: Any
            if isinstance(method, LIME):
                peer = captum.attr.Lime(
                    forward, SkLearnLinearRegression(), similarity_func=_nearness
                )
            else:
                peer = captum.attr.KernelShap(forward)
            segments = superpixels(image[0], method.superpixels)
            torch.manual_seed(method.seed)
            found = peer.attribute(
                image,
                feature_mask=segments.expand(1, *image.shape[1:]),
                n_samples=method.samples,
            )
            row.append(found[0, 0].relu())
        rows.append(torch.stack(row))
    return torch.stack(rows)


# -- how far they are apart ------------------------------------------------------------------


def the_peers_own_scaling(raw: np.ndarray, side: int = SIDE) -> np.ndarray:
    """What pytorch-grad-cam does to a raw map on its way out."""

    def scaled(image: np.ndarray) -> np.ndarray:
        image = image - image.min()
        return image / (1e-7 + image.max())

    resized = cv2.resize(scaled(np.maximum(raw, 0)).astype(np.float32), (side, side))
    return scaled(resized)


def scaled_apart(raw: Tensor, theirs: Tensor) -> float:
    """The largest difference of scaled maps, which lie in [0, 1]."""
    mine = np.stack([the_peers_own_scaling(one) for one in raw.flatten(0, 1).numpy()])
    return float(np.abs(mine - theirs.flatten(0, 1).numpy()).max())


def raw_apart(raw: Tensor, theirs: Tensor) -> float:
    """The largest difference, as a share of the layer's largest value."""
    return float((raw - theirs).abs().max() / theirs.abs().max())


def shapes_apart(raw: Tensor, theirs: Tensor) -> float:
    """The largest difference of maps that are each divided by their own maximum."""

    def shape(maps: Tensor) -> Tensor:
        peaks = maps.flatten(2).amax(dim=2).clamp(min=torch.finfo(maps.dtype).tiny)
        return maps / peaks[..., None, None]

    return raw_apart(shape(raw), shape(theirs))


def component_apart(case: Case, layer: str, name: str, peer: Any) -> float:
    """Of a component, whose sign is arbitrary: the nearer of the two signs, map by map."""
    theirs = grad_cam(case, layer, peer).numpy()
    mine = ours(case, layer, name)
    both = components(case, layer, times_gradient=name == "eigengradcam")
    assert raw_apart(both.relu(), mine) < 1e-9
    nearer = [
        min(np.abs(the_peers_own_scaling(sign * one) - them).max() for sign in (1, -1))
        for one, them in zip(
            both.flatten(0, 1).numpy(), theirs.reshape(-1, SIDE, SIDE), strict=True
        )
    ]
    return float(max(nearer))


def components(case: Case, layer: str, *, times_gradient: bool) -> Tensor:
    """(B, T, h, w): the first components before the ReLU."""
    kept: list[Tensor] = []
    handle = case.model.get_submodule(layer).register_forward_hook(
        lambda module, args, out: kept.append(out)
    )
    logits = case.model(case.images.clone().requires_grad_())
    handle.remove()
    found = []
    for target in case.peer_targets:
        score = torch.stack([target(one) for one in logits]).sum()
        (gradient,) = torch.autograd.grad(score, kept[0], retain_graph=True)
        product = (kept[0] * gradient).detach()
        found.append(
            first_component(product, along=product.sum(dim=1))
            if times_gradient
            else first_component(kept[0].detach())
        )
    return torch.stack(found, dim=1)
