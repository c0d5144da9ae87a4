"""What UNetCAM returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import index
from typing import Any, Literal

import torch
from torch import Tensor

from unetcam.engine.request import Named
from unetcam.errors import DataError, LayerError
from unetcam.resizing import interpolated
from unetcam.targets.channels import Head, predict

Sharing = Literal["map", "layer", "image"]


@dataclass(frozen=True, eq=False, repr=False)
class CAMResult:
    """The maps of a batch of images: one for each image, layer and target.

    Attributes
    ----------
    logits : Tensor
        (B, C, *spatial), detached but for ``create_graph=True``.
    targets : tuple of Target
        The T targets, in order.
    maps : Mapping of str to Tensor
        By layer, (B, T, *layer_spatial), on the model's device; float32, and float64 for a float64
        network. Raw as the method gave them, never negative but for ``sign="signed"``; NaN where
        the target does not exist in the image. A map of zeros only has no evidence of its sign:
        see :attr:`empty`.
    method : str
        The method's name.
    spread : Mapping of str to Tensor, optional
        With ``augment=``, of the maps' shape: the standard deviation of the maps over the views,
        of which they are the mean. It is resized and scaled along with them.
    settings : Mapping of str to Any
        The method's settings by name; the seed is among them where something is drawn, and the
        sign where it is not positive.
    head : {"softmax", "sigmoid"}
        How the network's channels are read, see :class:`~unetcam.targets.RegionScore`.
    emptied : Mapping of str to Tensor
        Of the method "refinecam", by layer, (B, T) bool: which maps are empty though each of the
        maps that they are the product of is not. Otherwise empty.

    Examples
    --------
    >>> from unetcam.targets import ClassScore
    >>> maps = {"up": torch.tensor([[[[0.0, 2.0], [4.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]]])}
    >>> result = CAMResult(torch.zeros(1, 2, 4, 4), (ClassScore(0), ClassScore(1)), maps, "gradcam")
    >>> result.scaled(by="layer")["up"][0, 1]  # class 1 beside class 0, on one scale
    tensor([[0.0000, 0.2500],
            [0.0000, 0.0000]])
    >>> result.resized()["up"].shape
    torch.Size([1, 2, 4, 4])
    """

    logits: Tensor
    targets: tuple[Named, ...]
    maps: Mapping[str, Tensor]
    method: str
    spread: Mapping[str, Tensor] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    head: Head = "softmax"
    emptied: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        """What there is, in a line; not the numbers."""
        maps = ", ".join(f"{name} {tuple(maps.shape)}" for name, maps in self.maps.items())
        return f"CAMResult({self.method}: {maps})"

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers' names, in the maps' order."""
        return tuple(self.maps)

    @property
    def prediction(self) -> Tensor:
        """What the network predicts: the class of every pixel, (B, *spatial) int64.

        Of a one-channel output 1 where the logit is above zero. Of several channels that are read
        by a "sigmoid" whether a pixel has each class, (B, C, *spatial) bool.

        >>> CAMResult(torch.tensor([[[[-1.0, 2.0]]]]), (), {}, "gradcam").prediction
        tensor([[[0, 1]]])
        """
        return predict(self.logits.detach(), self.head)

    @property
    def empty(self) -> dict[str, Tensor]:
        """By layer, (B, T) bool: maps without any positive evidence."""
        return {name: (maps == 0).flatten(2).all(dim=2) for name, maps in self.maps.items()}

    def __getitem__(self, layer: str) -> Tensor:
        try:
            return self.maps[layer]
        except KeyError:
            raise LayerError(
                f"There are no maps of a layer '{layer}': this result holds {', '.join(self.maps)}."
            ) from None

    def resized(self, size: Sequence[int] | None = None) -> CAMResult:
        """The same result with every map at one size.

        Parameters
        ----------
        size : sequence of int, optional
            The spatial size; the logits' by default. A classifier's logits are one pixel, and so
            it must be given.

        Returns
        -------
        CAMResult
            Maps of (B, T, *size): bilinear in 2-D and trilinear in 3-D, ``align_corners=False``.

        Raises
        ------
        DataError
            For a classifier's result without a size, and for what is no spatial size.
        """
        target = tuple(self.logits.shape[2:]) if size is None else _checked(size, self.logits)
        if size is None and math.prod(target) == 1:
            raise DataError(
                "The logits are one pixel, which is no size for maps: give the image's, as in "
                "resized(images.shape[2:])."
            )
        return self._each(lambda name, maps: interpolated(maps, target))

    def scaled(self, by: Sharing = "map") -> CAMResult:
        """The same result with its maps divided by an exact maximum, to [0, 1].

        Signed maps are divided by their largest magnitude, to [-1, 1].

        Parameters
        ----------
        by : {"map", "layer", "image"}
            Whose maximum: of each map alone; of all targets of an image at one layer, so that
            classes can be compared; or of all targets and layers of an image, so that layers can
            be compared as well. Images never share a scale.

        Returns
        -------
        CAMResult
            A map without positive evidence stays zero; NaN stays NaN.
        """
        if by not in ("map", "layer", "image"):
            raise ValueError(f"by={by!r} is no scale: use 'map', 'layer' or 'image'.")
        peaks = {
            name: torch.nan_to_num(maps).abs().flatten(2).amax(dim=2)
            for name, maps in self.maps.items()
        }
        if by != "map":
            peaks = {name: peak.amax(dim=1, keepdim=True) for name, peak in peaks.items()}
        if by == "image":
            shared = torch.stack(list(peaks.values())).amax(dim=0)
            peaks = dict.fromkeys(peaks, shared)
        return self._each(lambda name, maps: _divided(maps, peaks[name]))

    def _each(self, change: Callable[[str, Tensor], Tensor]) -> CAMResult:
        """The same result with the maps of every layer, and their spread, changed."""
        maps = {name: change(name, one) for name, one in self.maps.items()}
        if self.spread is None:
            return replace(self, maps=maps)
        return replace(
            self, maps=maps, spread={name: change(name, one) for name, one in self.spread.items()}
        )


def _checked(size: Any, logits: Tensor) -> tuple[int, ...]:
    try:
        sides = tuple(index(side) for side in size)
    except TypeError:
        sides = ()
    if len(sides) != logits.ndim - 2 or min(sides) < 1:
        axes = "(height, width)" if logits.ndim == 4 else "(depth, height, width)"
        raise DataError(
            f"size={size!r} is no size of these maps: give whole numbers above zero, as {axes}."
        )
    return sides


def _divided(maps: Tensor, peak: Tensor) -> Tensor:
    peak = peak.view(*peak.shape, *[1] * (maps.ndim - 2))
    return torch.where(peak > 0, maps / torch.where(peak > 0, peak, torch.ones_like(peak)), maps)
