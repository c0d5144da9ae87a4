r"""ShapleyCAM: what each feature contributes, to second order.

Throughout, :math:`A` is the layer's activation, :math:`G = \partial s / \partial A` the gradient of
the target's score and :math:`H` its Hessian with respect to the activation.
"""

from __future__ import annotations

from torch import Tensor

from unetcam.engine import Collected, Request, differentiate_twice
from unetcam.methods.gradient import weighted
from unetcam.methods.registry import Method, register


@register
class ShapleyCAM(Method):
    r"""Grad-CAM whose gradient is corrected by the score's curvature along the activation.

    Let the activation's entries be players that are there or zero, and the score's second-order
    expansion about the whole activation what a coalition of them wins. The Shapley value of entry
    i is then :math:`A_i (G - \frac12 H A)_i` exactly: half of what two entries win together goes to
    each. As in Grad-CAM, a channel's weight is the mean over its pixels of what :math:`A` is
    multiplied with.

    Where everything between the layer and the score is linear piece by piece (convolution, ReLU,
    maximum pooling, batch normalisation in evaluation), the Hessian is zero and the map is
    Grad-CAM's. Instance and group normalisation, SiLU, GELU, gates, attention, and scores of
    probabilities are curved.

    Examples
    --------
    >>> import torch
    >>> activation = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    >>> gradient = torch.tensor([[[[2.0, 0.0]], [[-1.0, 1.0]]]])
    >>> product = torch.tensor([[[[0.0, 2.0]], [[0.0, 0.0]]]])
    >>> ShapleyCAM().reduce(activation, gradient, product)  # (2 + 0 - 1) / 2, (-1 + 1) / 2
    tensor([[0.5000, 0.0000]])
    """

    name = "shapleycam"
    title = "ShapleyCAM"
    family = "gradient"
    formula = "relu(sum_k mean(G^k - (H A)^k / 2) A^k),  H the score's Hessian at the layer"
    paper = "Cai, CAMs as Shapley Value-based Explainers, arXiv 2501.06261, 2025"
    when = (
        "Networks with instance or group normalisation, SiLU or GELU, where a gradient alone "
        "misses how the score bends; with ReLU and batch normalisation it is Grad-CAM."
    )

    def explain(self, request: Request) -> Collected:
        return differentiate_twice(request, self)

    def reduce(self, activation: Tensor, gradient: Tensor, product: Tensor) -> Tensor:
        """A channel's weights (B, K), from tensors (B, K, *layer_spatial)."""
        return (gradient - product / 2).flatten(2).mean(dim=2)

    def combine(self, activation: Tensor, statistics: Tensor) -> Tensor:
        """The raw maps (B, T, *layer_spatial)."""
        return weighted(activation, statistics).relu_()
