"""Attention: the gates themselves, where a network has them."""

from __future__ import annotations

from collections.abc import Container, Sequence

import torch
from torch import Tensor, nn

from unetcam.engine import Collected, Request, observed, preserved
from unetcam.engine.gates import Gate, watched
from unetcam.errors import LayerError
from unetcam.methods.registry import Method, register
from unetcam.resizing import averaged, interpolated


@register
class Attention(Method):
    """The share of the features that a network's own gates let through, at each pixel.

    A gate is a sigmoid that a feature map is multiplied with: squeeze-and-excitation, CBAM, scSE,
    the attention gates of an Attention U-Net. They are found by watching a forward, whatever the
    modules are called. A layer's map is that of the last gate on the way to it, averaged with
    those that weigh the same feature map beside it (scSE has one for channels and one for pixels).

    It shows what the network passes on, for all targets alike, and not what speaks for a class.
    """

    name = "attention"
    title = "Attention gates"
    family = "activation"
    formula = "sum_k g^k |X^k| / sum_k |X^k|,  g the gate of the feature map X"
    paper = (
        "Hu et al., Squeeze-and-Excitation, CVPR 2018; Woo et al., CBAM, ECCV 2018; "
        "Roy et al., scSE, MICCAI 2018; Oktay et al., Attention U-Net, MIDL 2018"
    )
    when = "Networks with attention: what their gates close, and whether they close anything."
    asks_why = False

    def explain(self, request: Request) -> Collected:
        with observed(request) as seen:
            modules = {name: point.whole(name) for name, point in request.layers.items()}
            before = watched(request.model, modules, lambda: seen.forward(seen.images)).before
            _check_gated(tuple(request.layers), before)
            maps = {}
            for name, activation in seen.activations.items():
                gates = torch.stack([gate.passed for gate in before[name]]).mean(dim=0)
                maps[name] = _at(gates[:, None], activation).to(activation.dtype)
            return seen.collected(maps)


def find_gates(model: nn.Module, images: Tensor) -> tuple[Gate, ...]:
    """Every gate of a network, in the order in which they are applied.

    Parameters
    ----------
    model : nn.Module
        Left exactly as found.
    images : Tensor
        (B, C, *spatial) on the model's device.

    Returns
    -------
    tuple of Gate
        Empty for a network without gates.

    Examples
    --------
    >>> class Gated(nn.Module):
    ...     def forward(self, x):
    ...         return x * torch.sigmoid(x.mean(dim=1, keepdim=True))
    >>> (gate,) = find_gates(Gated(), torch.tensor([[[[0.0, 2.0]], [[0.0, -2.0]]]]))
    >>> gate.kind, gate.passed
    ('spatial', tensor([[[0.5000, 0.5000]]]))
    """
    with preserved(model), torch.no_grad():
        plain = images.as_subclass(Tensor).detach().clone()
        return watched(model, {}, lambda: model(plain)).gates


def _check_gated(layers: Sequence[str], gated: Container[str]) -> None:
    without = [name for name in layers if name not in gated]
    if not without:
        return
    good = [f"'{name}'" for name in layers if name in gated]
    remedy = (
        f"of the layers that were asked for, only {', '.join(good)} lie behind one"
        if good
        else "the method 'attention' needs a network with squeeze-and-excitation, CBAM, scSE or "
        "attention gates before the layer"
    )
    raise LayerError(f"There is no gate on the way to the layer '{without[0]}': {remedy}.")


def _at(maps: Tensor, activation: Tensor) -> Tensor:
    """Maps at the size of a layer."""
    size = activation.shape[2:]
    grows = any(new > old for new, old in zip(size, maps.shape[2:], strict=True))
    return interpolated(maps, size) if grows else averaged(maps, size)
