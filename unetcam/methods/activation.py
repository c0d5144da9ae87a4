r"""Methods made of activations.

Throughout, :math:`A^k` is channel k of the layer's activation as the layer gave it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unetcam.engine import Collected, Request, collect, observed
from unetcam.engine.request import Score, targets_of
from unetcam.engine.score_gradients import scored_leaf
from unetcam.engine.tensors import at_least_single, undefined_to_nan
from unetcam.errors import LayerError
from unetcam.methods.components import first_component
from unetcam.methods.gradient import weighted
from unetcam.methods.registry import Method, register


@register
@dataclass(frozen=True)
class EigenCAM(Method):
    """The first principal component of the activation: what the layer sees most of.

    It knows nothing of a target, so that all targets get the same map. The sign is that of
    :func:`~unetcam.methods.components.first_component`: the largest magnitude is positive.

    Parameters
    ----------
    centred : bool
        Whether each channel's mean is taken off first, as for a principal component. The paper's
        equation leaves it in; then the map of a layer behind a ReLU is mostly its mean activation.
    """

    centred: bool = True

    name = "eigencam"
    title = "Eigen-CAM"
    family = "activation"
    formula = "relu(A v),  v the first right singular vector of A less each channel's mean"
    paper = (
        "Muhammad and Yeasin, Eigen-CAM, IJCNN 2020; "
        "sign after Chung and Ying, Seg-Eigen-CAM, Applied Sciences 2025, equation 13"
    )
    when = "What a layer responds to, whatever the class; the map is the same for all targets."
    asks_why = False

    def explain(self, request: Request) -> Collected:
        with observed(request) as seen:
            return seen.collected(
                {name: self._map(one)[:, None] for name, one in seen.activations.items()}
            )

    def _map(self, activation: Tensor) -> Tensor:
        return first_component(activation, centred=self.centred).relu_()


@register
class CAM(Method):
    r"""Weighs each channel by the weight that a linear head gives it for the target's class.

    The layer has to feed the head: between it and the logits there is nothing but a linear map of
    the channels, the same at each pixel (a 1x1 convolution, a linear layer on tokens), and what
    treats all channels alike (dropout, interpolation). No name or type is looked at. At such a
    layer, and only there, the gradient of a weighted sum of a class's logits is the head's weights
    times one pattern that all channels share, whatever the pattern of the sum; that is how the
    head is recognised and its weights are read.

    The class's logit is the map before its ReLU, up to the head's bias. A target that mixes
    classes weighs them by its derivative with respect to their logits, summed over the pixels.

    Examples
    --------
    >>> from unetcam import UNetCAM
    >>> head = torch.nn.Conv2d(2, 2, 1)
    >>> head.weight.data = torch.tensor([[1.0, 0.0], [2.0, -1.0]]).view(2, 2, 1, 1)
    >>> images = torch.tensor([[[[1.0, 3.0]], [[0.0, 7.0]]]])
    >>> UNetCAM(torch.nn.Sequential(torch.nn.Identity(), head), ["0"], "cam")(images)["0"][0, 1]
    tensor([[2., 0.]])
    """

    name = "cam"
    title = "CAM"
    family = "activation"
    formula = "relu(sum_k w^k_c A^k),  w_c the weights of the linear head"
    paper = "Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016"
    when = "The last layer before a 1x1 head: the class's logit itself, without its bias."

    def suitable(self, layers: tuple[str, ...]) -> tuple[str, ...]:
        return layers[-1:]

    def explain(self, request: Request) -> Collected:
        head = _Head()
        by_class = collect(replace(request, score=_probes), head)
        tolerance = torch.finfo(by_class.logits.dtype).eps ** 0.5
        _check_heads(tuple(request.layers), head.residuals, tolerance)
        with torch.autocast(by_class.logits.device.type, enabled=False):
            scored = scored_leaf(request.score, at_least_single(by_class.logits))
            # How much of each channel of the logits a score is made of, (B, T, classes).
            shares = torch.stack([one.flatten(2).sum(dim=2) for one in scored.gradients()], dim=1)
            defined = torch.stack([score.defined for score in scored.scores], dim=1)
            maps = {
                name: undefined_to_nan(weighted(one, shares.to(one.dtype)).relu_(), defined)
                for name, one in by_class.maps.items()
            }
        return Collected(by_class.logits, maps, defined, targets_of(scored.scores))


class _Head:
    """A reduction that reads a linear head's weights off the probes' gradients."""

    needs_mean_only = False

    def __init__(self) -> None:
        self.residuals: list[Tensor] = []

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """The channels' weights (B, K), then how far the gradient is from one shared pattern."""
        pixels = gradient.flatten(2)
        weights = pixels.sum(dim=2)
        length = weights.square().sum(dim=1, keepdim=True)
        pattern = torch.einsum("bk,bkp->bp", weights, pixels) / length.clamp(min=_tiny(length))
        rest = pixels - weights[:, :, None] * pattern[:, None]
        norm = torch.linalg.norm(pixels.flatten(1), dim=1)
        residual = torch.linalg.norm(rest.flatten(1), dim=1) / norm.clamp(min=_tiny(norm))
        return torch.cat([weights, residual[:, None]], dim=1)

    def combine(self, activation: Tensor, statistics: Tensor) -> Tensor:
        """Each class's logit without its bias, (B, classes, *spatial)."""
        self.residuals.append(statistics[..., -1].max())
        return weighted(activation, statistics[..., :-1])


def _tiny(tensor: Tensor) -> float:
    return torch.finfo(tensor.dtype).tiny


def _probes(logits: Tensor, reference: Tensor | None = None) -> list[Score]:
    """A weighted mean of each class's logits."""
    # Uneven weights, so that what mixes neighbouring pixels shows everywhere and not at the
    # border alone; of the mean 1, so that the gradient's sum is the head's weight.
    generator = torch.Generator(logits.device).manual_seed(0)
    uneven = torch.rand(
        logits.shape[2:], generator=generator, device=logits.device, dtype=torch.float32
    )
    uneven = (0.5 + uneven).to(logits.dtype)
    uneven = uneven / uneven.sum()
    sums = (logits * uneven).flatten(2).sum(dim=2)
    defined = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    return [Score(one, defined, index) for index, one in enumerate(sums.unbind(dim=1))]


def _check_heads(layers: Sequence[str], residuals: Sequence[Tensor], tolerance: float) -> None:
    fitting = (torch.stack(list(residuals)) <= tolerance).tolist()
    if all(fitting):
        return
    first = layers[fitting.index(False)]
    good = [f"'{name}'" for name, fits in zip(layers, fitting, strict=True) if fits]
    remedy = (
        f"of the layers that were asked for, only {', '.join(good)} does"
        if good
        else "choose the last layer before a 1x1 head, or another method (gradcam needs no head)"
    )
    raise LayerError(
        f"CAM needs a layer that feeds a linear head, and between '{first}' and the logits there "
        f"is more than a 1x1 convolution: {remedy}."
    )
