"""What a batch of maps holds, brought into the shape that every measure reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import torch
from torch import Tensor

from unetcam.errors import MeasureError
from unetcam.measures.checks import require_maps
from unetcam.measures.ranking import Ranking
from unetcam.measures.regions import REGIONS, ZONES, Geometry

VALUES_AT_ONCE = {"cpu": 1 << 18}
VALUES_AT_ONCE_ELSEWHERE = 1 << 22
"""Map values measured at once. On a CPU what a core's cache holds: memory that is fresh from the
system costs more than all the arithmetic; on a GPU what keeps it busy."""


def where_known(known: Tensor, values: Tensor) -> Tensor:
    """The values as float64 where they are known, and NaN elsewhere."""
    return torch.where(known, values.double(), torch.nan)


class MapStats:
    """The maps of some images and classes over a :class:`Geometry`, each statistic made once.

    Parameters
    ----------
    maps : Tensor
        ``(b, t, *spatial)`` of values >= 0, on the geometry's pixels and device: those of
        `images` and `targets`. float16 and bfloat16 are widened to float32; float32 and float64
        are kept.
    geometry : Geometry
        Where the classes lie, of all images and classes; that of one image serves any number of
        maps of it.
    images, targets : slice
        Which of the geometry's B images and T maps these are.

    Raises
    ------
    MeasureError
        If a map holds a negative value.

    Notes
    -----
    A map with a value that is not finite is *unknown*, and all its numbers are NaN. A map that
    is zero on every pixel that counts is *empty*: it has no maximum to be scaled by and no
    mass to be shared out, so its numbers are NaN too and it is counted apart.

    Sums over pixels run in float64, so the device must have it (CPU and CUDA do).
    """

    def __init__(
        self,
        maps: Tensor,
        geometry: Geometry,
        images: slice = slice(None),
        targets: slice = slice(None),
    ) -> None:
        self.geometry = geometry
        self._images, self._targets = images, targets
        flat = maps.detach().flatten(2)
        if flat.dtype in (torch.float16, torch.bfloat16):
            flat = flat.float()
        lowest, highest = flat.amin(-1), flat.amax(-1)
        if bool((lowest < 0).any()):
            raise MeasureError(
                "A map has negative values: measure positive evidence, as it is after a ReLU."
            )
        # A NaN is the smallest and the largest of its map.
        self.finite = torch.isfinite(lowest) & torch.isfinite(highest)
        whole = bool(self.finite.all()) and geometry.all_valid
        counts = None if whole else self.part(geometry.valid) & self.finite[..., None]
        self.values = flat if counts is None else torch.where(counts, flat, 0.0)
        self.peak = highest if counts is None else self.values.amax(-1)

    def part(self, of_all: Tensor) -> Tensor:
        """What a tensor (B, T, ...) or (B, 1, ...) of the geometry holds for these maps."""
        here = of_all[self._images]
        return here if of_all.shape[1] == 1 else here[:, self._targets]

    @cached_property
    def usable(self) -> Tensor:
        """``(b, t)`` bool: maps that are finite and not empty."""
        return self.peak > 0

    @cached_property
    def empty(self) -> Tensor:
        """``(b, t)`` bool: finite maps that are zero on every pixel, where any pixel counts."""
        return self.finite & (self.peak == 0) & (self.part(self.geometry.valid_pixels) > 0)

    @cached_property
    def present(self) -> Tensor:
        """``(b, t)`` bool: usable maps whose class the truth holds."""
        return self.usable & self.part(self.geometry.present)

    @cached_property
    def valid_pixels(self) -> Tensor:
        """``(b, 1)`` float64: how many pixels count."""
        return self.part(self.geometry.valid_pixels).double()

    @cached_property
    def _mass(self) -> Tensor:
        """``(b, t, ZONES, C, REGIONS)`` float64: the mass by zone, true class and prediction."""
        bins = self.geometry.bin_count
        sums = torch.zeros(*self.peak.shape, bins, dtype=torch.float64, device=self.values.device)
        index = self.part(self.geometry.bins).expand_as(self.values)
        sums.scatter_add_(2, index, self.values.double())
        sums = sums.view(*self.peak.shape, ZONES + 1, self.geometry.num_classes + 1, REGIONS)
        return sums[:, :, :-1, :-1]

    @cached_property
    def mass(self) -> Tensor:
        """``(b, t)`` float64: the sum of each map."""
        return self.zone_mass.sum(-1)

    @cached_property
    def zone_mass(self) -> Tensor:
        """``(b, t, ZONES)`` float64: the mass in each zone of signed distance."""
        return self._mass.sum((-1, -2))

    @cached_property
    def class_mass(self) -> Tensor:
        """``(b, t, C)`` float64: the mass on each true class."""
        return self._mass.sum((-1, -3))

    @cached_property
    def predicted_mass(self) -> Tensor:
        """``(b, t)`` float64: the mass on the pixels that are predicted as the map's class."""
        return self._mass[..., 1].sum((-1, -2))

    @cached_property
    def ranking(self) -> Ranking:
        """The values in order."""
        membership = self.part(self.geometry.membership)
        return Ranking(self.values.flatten(0, 1), self.peak.flatten(), membership.flatten(0, 1))


def by_blocks(
    maps: Tensor, geometry: Geometry, numbers: Callable[[MapStats], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The numbers (B, T) of maps (B, T, *spatial), a block of images and classes at a time.

    Raises
    ------
    MeasureError
        If the maps do not lie on the geometry's pixels, or hold a negative value.
    """
    require_maps(maps, geometry.batch, len(geometry.classes), geometry.spatial)
    if maps.device != geometry.device:
        raise MeasureError(
            f"The maps lie on {maps.device} and the masks on {geometry.device}: "
            "move both to one device."
        )
    rows = [
        [numbers(MapStats(maps[images, targets], geometry, images, targets)) for targets in across]
        for images, across in _blocks(maps)
    ]
    return {
        name: torch.cat([torch.cat([one[name] for one in row], dim=1) for row in rows])
        for name in rows[0][0]
    }


def block_values(device: torch.device) -> int:
    """How many map values are measured at once on a device."""
    return VALUES_AT_ONCE.get(device.type, VALUES_AT_ONCE_ELSEWHERE)


def _blocks(maps: Tensor) -> Iterator[tuple[slice, list[slice]]]:
    batch, count = maps.shape[:2]
    fit = max(1, block_values(maps.device) // maps[0, 0].numel())
    images, targets = max(1, fit // count), min(fit, count)
    across = [slice(start, start + targets) for start in range(0, count, targets)]
    for start in range(0, batch, images):
        yield slice(start, start + images), across
