"""RefineCAM: maps of several layers, multiplied."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unetcam.engine import Collected, Request
from unetcam.methods.registry import Method, get, register
from unetcam.resizing import interpolated


@register
@dataclass(frozen=True)
class RefineCAM(Method):
    """The product of another method's maps at a layer and at all coarser ones that are explained.

    Each map is divided by its own maximum and enlarged to the layer's size. A pixel is left where
    *every* one of the layers says something, so that a fine layer's noise goes; with it goes
    everything that one of the layers is silent about, in the end the whole map:
    :attr:`~unetcam.CAMResult.emptied` tells which maps that happened to. The paper has
    classification in mind, where each layer's map is about the one object; a decoder's layers
    often speak of different parts of a class.

    The coarsest layer's map is the other method's alone, over its maximum, and with one layer
    there is nothing else. Maps depend on which layers are explained together.

    Parameters
    ----------
    base : str
        The name of the method whose maps are multiplied; the paper's is Grad-CAM++.

    Examples
    --------
    >>> coarse, fine = torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[[3.0, 0.0, 1.0, 3.0]]]])
    >>> refined, emptied = products({"up1": coarse, "up2": fine})
    >>> refined["up2"]  # of 0, 1/4, 3/4, 1 and 1, 0, 1/3, 1
    tensor([[[[0.0000, 0.0000, 0.2500, 1.0000]]]])
    >>> emptied["up2"]
    tensor([[False]])
    """

    base: str = "gradcam++"

    name = "refinecam"
    title = "RefineCAM"
    family = "gradient"
    formula = "prod_l M_l / max(M_l) over the layer and all coarser ones,  M_l Grad-CAM++'s map"
    paper = (
        "Domeniconi et al., How to Evaluate and Refine your CAM, arXiv 2605.14641, 2026; "
        "Grad-CAM++ as its base, as in the authors' experiments and both peers' code"
    )
    when = (
        "Fine layers without their noise, where all layers speak of the same place; count the "
        "maps that it empties."
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "asks_why", get(self.base).asks_why)

    def check(self) -> None:
        get(self.base).check()

    def suitable(self, layers: tuple[str, ...]) -> tuple[str, ...]:
        return get(self.base).suitable(layers)

    def explain(self, request: Request) -> Collected:
        collected = get(self.base).explain(request)
        maps, emptied = products(collected.maps)
        return replace(collected, maps=maps, emptied=emptied)


def products(maps: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """At each layer, the product of its scaled maps with those of all coarser layers.

    Parameters
    ----------
    maps : Mapping of str to Tensor
        By layer, (B, T, *layer_spatial), not negative, NaN where a target does not exist.

    Returns
    -------
    maps : dict of str to Tensor
        By layer, (B, T, *layer_spatial), from 0 to 1.
    emptied : dict of str to Tensor
        By layer, (B, T) bool: each of the maps has some evidence, and their product none.
    """
    scaled = {name: _scaled(one) for name, one in maps.items()}
    refined, emptied = {}, {}
    for name, own in scaled.items():
        size = own.shape[2:]
        product, speaking = own, _speaks(own)
        for other in scaled.values():
            if math.prod(other.shape[2:]) < math.prod(size):
                product = product * interpolated(other, size)
                speaking = speaking & _speaks(other)
        refined[name] = product
        emptied[name] = speaking & ~_speaks(product)
    return refined, emptied


def _scaled(maps: Tensor) -> Tensor:
    """Each map over its maximum; one without evidence stays zero."""
    peaks = maps.flatten(2).amax(dim=2).view(*maps.shape[:2], *[1] * (maps.ndim - 2))
    return torch.where(peaks > 0, maps / peaks, maps)


def _speaks(maps: Tensor) -> Tensor:
    """(B, T) bool: whether a map has a positive value."""
    return (maps > 0).flatten(2).any(dim=2)
