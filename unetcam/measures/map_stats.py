"""What a batch of maps holds, brought into the shape that every measure reads."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from unetcam.errors import MeasureError
from unetcam.measures.checks import require_maps
from unetcam.measures.regions import ZONES, Geometry


def where_known(known: Tensor, values: Tensor) -> Tensor:
    """The values as float64 where they are known, and NaN elsewhere."""
    return torch.where(known, values.double(), torch.nan)


class MapStats:
    """The maps of one layer over a :class:`Geometry`: maximum, mass and order, computed once.

    Parameters
    ----------
    maps : Tensor
        ``(B, T, *spatial)`` of values >= 0, on the geometry's pixels and device. float16 and
        bfloat16 are widened to float32; float32 and float64 are kept.
    geometry : Geometry
        Where the classes lie.

    Raises
    ------
    MeasureError
        If the maps do not lie on the geometry's pixels or hold a negative value.

    Notes
    -----
    A map with a value that is not finite is *unknown*, and all its numbers are NaN. A map that
    is zero on every pixel that counts is *empty*: it has no maximum to be scaled by and no
    mass to be shared out, so its numbers are NaN too and it is counted apart.

    Sums over pixels run in float64, so the device must have it (CPU and CUDA do).
    """

    def __init__(self, maps: Tensor, geometry: Geometry) -> None:
        require_maps(maps, geometry.batch, len(geometry.classes), geometry.spatial)
        if maps.device != geometry.device:
            raise MeasureError(
                f"The maps lie on {maps.device} and the masks on {geometry.device}: "
                "move both to one device."
            )
        self.geometry = geometry
        flat = maps.detach().flatten(2)
        if flat.dtype in (torch.float16, torch.bfloat16):
            flat = flat.float()
        self.finite = torch.isfinite(flat).all(-1)
        counts = geometry.valid & self.finite[..., None]
        self.values = torch.where(counts, flat, 0.0)
        self.peak = self.values.amax(-1)

    @cached_property
    def usable(self) -> Tensor:
        """``(B, T)`` bool: maps that are finite and not empty."""
        return self.peak > 0

    @cached_property
    def empty(self) -> Tensor:
        """``(B, T)`` bool: finite maps that are zero on every pixel, where any pixel counts."""
        return self.finite & (self.peak == 0) & (self.geometry.valid_pixels > 0)

    @cached_property
    def weights(self) -> Tensor:
        """``(B, T, N)`` float64: the values, 0 where ignored or unknown."""
        return self.values.double()

    @cached_property
    def mass(self) -> Tensor:
        """``(B, T)`` float64: the sum of each map."""
        return self.weights.sum(-1)

    @cached_property
    def zone_mass(self) -> Tensor:
        """``(B, T, ZONES)`` float64: the mass in each zone of signed distance."""
        sums = self.weights.new_zeros(*self.values.shape[:2], ZONES + 1)
        return sums.scatter_add_(2, self.geometry.zones.long(), self.weights)[..., :ZONES]

    @cached_property
    def ranking(self) -> tuple[Tensor, Tensor]:
        """The values in descending order, ignored pixels last as -1, and their pixels.

        Two ``(B, T, N)`` tensors: values in the map's dtype, and int64 pixel indices.
        """
        # Values >= 0 order as their bits do when read as integers, which sort faster; adding 0
        # turns -0 into 0, and the bits of -1 are those of a negative integer.
        ranked = torch.where(self.geometry.valid, self.values + 0.0, -1.0)
        bits = torch.int64 if ranked.dtype == torch.float64 else torch.int32
        ordered, pixels = ranked.view(bits).sort(dim=-1, descending=True)
        return ordered.view(ranked.dtype), pixels
