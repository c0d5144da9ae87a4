r"""Methods made of gradients.

Throughout, :math:`A^k` is channel k of the layer's activation as the layer gave it, and
:math:`G^k = \partial s / \partial A^k` the gradient of the target's score. A map is the ReLU of
what the formula gives.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from unetcam.engine import Collected, Request, collect, differentiate
from unetcam.errors import UnetcamError
from unetcam.methods.components import first_component
from unetcam.methods.registry import Method, register


class GradientMethod(Method):
    """A method that turns one layer's activation and gradients into its maps, in two steps.

    `reduce` condenses one target's gradient as it arrives in the backward, `combine` makes the
    maps of all targets.
    """

    family = "gradient"

    #: Whether `reduce` is each channel's spatial mean: then backwards may leave out the rest, and
    #: `reduce` itself need not be called.
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

    def explain(self, request: Request) -> Collected:
        return differentiate(request, self) if request.create_graph else collect(request, self)


class _ChannelWeighted(GradientMethod):
    """A map that is a weighted sum of the activation's channels."""

    def combine(self, activation: Tensor, statistics: Tensor) -> Tensor:
        return weighted(activation, statistics).relu_()


def weighted(activation: Tensor, weights: Tensor) -> Tensor:
    """The sums of an activation's channels (B, K, *spatial) by weights (B, T, K).

    Returns
    -------
    Tensor
        (B, T, *spatial).
    """
    sums = torch.bmm(weights, activation.flatten(2))
    return sums.view(*weights.shape[:2], *activation.shape[2:])


class _ElementWeighted(GradientMethod):
    """A map that is there, but for the ReLU, as soon as its gradient is."""

    def combine(self, activation: Tensor, statistics: Tensor) -> Tensor:
        return statistics.relu()


def check_graph(method: Method) -> None:
    """Raise :class:`~unetcam.errors.UnetcamError` for a method whose maps have no graph."""
    if not isinstance(method, GradientMethod):
        raise UnetcamError(
            f"Maps of the method '{method.name}' have no graph: use a method made of one "
            "gradient, as gradcam."
        )


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


@register
class XGradCAM(_ChannelWeighted):
    r"""Weighs each channel by its gradient's mean, each pixel as much as the activation there.

    The weight is :math:`\sum G A / \sum A`: what the channel contributes to the score, to first
    order, for each unit of its activation. A channel whose activation sums to zero gets no weight.
    The paper has layers behind a ReLU in mind, where that is a silent channel; where activations
    of both signs cancel, the weight is large and means little.

    Examples
    --------
    >>> activation = torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]]])
    >>> gradient = torch.tensor([[[[2.0, -1.0]], [[5.0, 5.0]]]])
    >>> XGradCAM().reduce(activation, gradient)  # (1*2 - 3*1) / (1 + 3)
    tensor([[-0.2500,  0.0000]])
    """

    name = "xgradcam"
    title = "XGrad-CAM"
    formula = "relu(sum_k w^k A^k),  w^k = sum(G^k A^k) / sum(A^k)"
    paper = "Fu et al., Axiom-based Grad-CAM, BMVC 2020"
    when = "Layers behind a ReLU, where Grad-CAM's mean counts pixels at which nothing is active."

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        total = activation.flatten(2).sum(dim=2)
        product = (activation * gradient).flatten(2).sum(dim=2)
        silent = total == 0
        return torch.where(silent, 0, product / torch.where(silent, 1, total))


@register
class GradCAMElementWise(_ElementWeighted):
    """Multiplies activation and gradient, and keeps of each channel what speaks for the class.

    HiResCAM with the ReLU before the sum: what one channel says against the class at a pixel can't
    cancel what another says for it.

    Examples
    --------
    >>> activation = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    >>> gradient = torch.tensor([[[[2.0, 0.0]], [[-1.0, 1.0]]]])
    >>> GradCAMElementWise().reduce(activation, gradient)
    tensor([[[2., 0.]]])
    """

    name = "gradcam-elementwise"
    title = "Grad-CAM, element-wise"
    formula = "sum_k relu(G^k A^k)"
    paper = "Pillai and Pirsiavash, Explainable Models with Consistent Interpretations, AAAI 2021"
    when = "All evidence for a class, also where other channels speak against it."

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return (activation * gradient).clamp(min=0).sum(dim=1)


@register
class EigenGradCAM(_ElementWeighted):
    """The first principal component of activation times gradient.

    The component itself does not say what speaks for and what against the class: the sign is taken
    that goes along their sum over the channels, the map of HiResCAM before its ReLU.
    """

    name = "eigengradcam"
    title = "Eigen-Grad-CAM"
    formula = "relu(X v),  X = G A less each channel's mean, v its first right singular vector"
    paper = "Gildenblat, pytorch-grad-cam, 2021, after Muhammad and Yeasin, Eigen-CAM, IJCNN 2020"
    when = "A cleaner map than HiResCAM's where many channels share one pattern."

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        product = activation * gradient
        return first_component(product, along=product.sum(dim=1))


@register
class SegEigenCAM(_ElementWeighted):
    """The first principal component of the activation times the gradient's magnitude.

    The magnitude says how much a pixel matters for the target, and not which way: a target and its
    negation have the same map, and what speaks against a class stands beside what speaks for it.
    The sign is that of :func:`~unetcam.methods.components.first_component`: the largest magnitude
    is positive.

    Examples
    --------
    >>> activation = torch.tensor([[[[1.0, 2.0, 3.0]]]])  # one channel, whose mean goes
    >>> gradient = torch.tensor([[[[0.0, 0.0, -1.0]]]])
    >>> method = SegEigenCAM()
    >>> method.combine(activation, method.reduce(activation, gradient)[:, None])
    tensor([[[[0., 0., 2.]]]])
    """

    name = "seg-eigen-cam"
    title = "Seg-Eigen-CAM"
    formula = "relu(X v),  X = |G| A less each channel's mean, v its first right singular vector"
    paper = "Chung and Ying, Seg-Eigen-CAM, Applied Sciences 2025, equations 10 to 13"
    when = "What a target depends on at all, for or against, in one pattern with little noise."
    asks_why = False

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return first_component(activation * gradient.abs())


@register
@dataclass(frozen=True)
class SegXResCAM(_ElementWeighted):
    """Multiplies the activation with the gradient's means over windows.

    Between HiResCAM (a window of one pixel) and Grad-CAM (the whole map). The authors' code pools
    by the maximum as well; only the mean leads to Grad-CAM.

    Parameters
    ----------
    window : int, optional
        The windows' side in pixels of the layer; None takes the whole map. At the far edges the
        windows end with the map.

    Examples
    --------
    >>> activation = torch.tensor([[[[1.0, 2.0, 1.0, 2.0]]]])
    >>> gradient = torch.tensor([[[[4.0, 0.0, 0.0, 1.0]]]])
    >>> SegXResCAM(window=2).reduce(activation, gradient)
    tensor([[[2.0000, 4.0000, 0.5000, 1.0000]]])
    """

    window: int | None = 4

    name = "seg-xres-cam"
    title = "Seg-XRes-CAM"
    formula = "relu(sum_k pooled(G^k) A^k),  pooled: each window's mean, at each of its pixels"
    paper = "Hasany, Petitjean and Meriaudeau, Seg-XRes-CAM, CVPR Workshops 2023"
    when = "A region's own evidence with less noise than HiResCAM's, and nearer than Grad-CAM's."

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ValueError(f"window={self.window!r} must be a number of pixels above zero.")

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return (activation * self._pooled(gradient)).sum(dim=1)

    def _pooled(self, gradient: Tensor) -> Tensor:
        size = gradient.shape[2:]
        if self.window is None or self.window >= max(size):
            return gradient.mean(dim=tuple(range(2, gradient.ndim)), keepdim=True)
        pool = F.avg_pool2d if len(size) == 2 else F.avg_pool3d
        pooled = pool(gradient, [min(self.window, side) for side in size], ceil_mode=True)
        for axis, side in enumerate(size, start=2):
            at = torch.arange(side, device=gradient.device) // min(self.window, side)
            pooled = pooled.index_select(axis, at)
        return pooled
