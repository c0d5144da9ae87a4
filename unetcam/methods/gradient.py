r"""Methods made of gradients.

Throughout, :math:`A^k` is channel k of the layer's activation as the layer gave it, and
:math:`G^k = \partial s / \partial A^k` the gradient of the target's score. A map is the ReLU of
what the formula gives.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from unetcam.engine import Collected, Run, collect
from unetcam.methods.registry import Method, register


class GradientMethod(Method):
    """A method that turns one layer's activation and gradients into its maps, in two steps.

    `reduce` condenses one target's gradient as it arrives in the backward, `combine` makes the
    maps of all targets.
    """

    #: Whether `reduce` asks for no more of a gradient than each channel's spatial mean.
    needs_mean_only: ClassVar[bool] = False

    #: What the statistics of an image's tiles make for the whole image: their mean where they are
    #: one spatial mean per channel, their sum where they are maps before the ReLU; None for a
    #: method that is not linear in the gradient.
    over_tiles: ClassVar[Literal["mean", "sum"] | None] = None

    @abstractmethod
    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Condense a gradient, (B, K, *spatial) as the activation, to what the map needs."""

    @abstractmethod
    def combine(self, activation: Tensor, statistics: Tensor) -> Tensor:
        """The raw maps (B, T, *spatial) of T targets, from their statistics (B, T, ...)."""

    def explain(self, run: Run) -> Collected:
        return collect(run, self)


class _ChannelWeighted(GradientMethod):
    """A map that is a weighted sum of the activation's channels."""

    def combine(self, activation: Tensor, statistics: Tensor) -> Tensor:
        sums = torch.bmm(statistics, activation.flatten(2))
        return sums.view(*statistics.shape[:2], *activation.shape[2:]).relu_()


class _ElementWeighted(GradientMethod):
    """A map that is there, but for the ReLU, as soon as its gradient is."""

    def combine(self, activation: Tensor, statistics: Tensor) -> Tensor:
        return statistics.relu()


@register
class GradCAM(_ChannelWeighted):
    """Weighs each channel by the spatial mean of its gradient.

    Examples
    --------
    >>> activation = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])  # (1, 2, 1, 2)
    >>> gradient = torch.tensor([[[[2.0, 0.0]], [[-1.0, 1.0]]]])
    >>> weights = GradCAM().reduce(activation, gradient)
    >>> weights
    tensor([[1., 0.]])
    >>> GradCAM().combine(activation, weights[:, None])
    tensor([[[[1., 2.]]]])
    """

    name = "gradcam"
    title = "Grad-CAM"
    formula = "relu(sum_k mean(G^k) A^k)"
    paper = (
        "Selvaraju et al., Grad-CAM, ICCV 2017, equations 1 and 2; "
        "Vinogradova et al., Seg-Grad-CAM, AAAI 2020"
    )
    when = "The default: which features speak for the class, with one weight for each."
    needs_mean_only = True
    over_tiles = "mean"

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return gradient.flatten(2).mean(dim=2)


@register
class GradCAMPlusPlus(_ChannelWeighted):
    r"""Weighs each channel by its positive gradients, each pixel with a coefficient of its own.

    With :math:`Y = \exp(s)` as in the paper, equation 19 has
    :math:`\alpha = G^2 / (2 G^2 + \sum A \, G^3)`, which is :math:`1 / (2 + \sum A \, G)` wherever
    the gradient isn't zero. It is computed in that form: it needs no epsilon, which would drown
    the small gradients of a mean over many pixels.

    Unlike the other methods' maps, this one's shape depends on the scale of the score.
    """

    name = "gradcam++"
    title = "Grad-CAM++"
    formula = "relu(sum_k w^k A^k),  w^k = sum relu(G^k) / (2 + G^k sum(A^k))"
    paper = "Chattopadhay et al., Grad-CAM++, WACV 2018, equations 13 and 19"
    when = "Several separate objects of a class, of which Grad-CAM shows only the strongest."

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        gradient, activation = gradient.flatten(2), activation.flatten(2)
        denominator = 2 + gradient * activation.sum(dim=2, keepdim=True)
        counts = (gradient > 0) & (denominator != 0)
        return torch.where(counts, gradient / denominator, torch.zeros_like(gradient)).sum(dim=2)


@register
class HiResCAM(_ElementWeighted):
    """Multiplies activation and gradient pixel by pixel: faithful to where the evidence lies.

    Examples
    --------
    >>> activation = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    >>> gradient = torch.tensor([[[[2.0, 0.0]], [[-1.0, 1.0]]]])
    >>> HiResCAM().reduce(activation, gradient)  # 1*2 - 3*1, 2*0 + 0*1; the ReLU comes later
    tensor([[[-1.,  0.]]])
    """

    name = "hirescam"
    title = "HiResCAM"
    formula = "relu(sum_k G^k A^k)"
    paper = "Draelos and Carin, Use HiResCAM instead of Grad-CAM, 2020, equation 4"
    when = "Where exactly the evidence lies: no averaging moves it, as Grad-CAM's can."
    over_tiles = "sum"

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return (activation * gradient).sum(dim=1)


@register
class LayerCAM(_ElementWeighted):
    """Multiplies the activation with the positive part of the gradient, pixel by pixel.

    Examples
    --------
    >>> activation = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    >>> gradient = torch.tensor([[[[2.0, 0.0]], [[-1.0, 1.0]]]])
    >>> LayerCAM().reduce(activation, gradient)
    tensor([[[2., 0.]]])
    """

    name = "layercam"
    title = "LayerCAM"
    formula = "relu(sum_k relu(G^k) A^k)"
    paper = "Jiang et al., LayerCAM, IEEE TIP 2021, equations 5 to 7"
    when = "Fine layers: keeps what speaks for the class, drops what speaks against it."

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return (activation * gradient.clamp(min=0)).sum(dim=1)
