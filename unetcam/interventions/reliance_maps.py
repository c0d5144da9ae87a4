"""What a network leans on beside the objects themselves: windows, near, far, everything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unetcam.errors import DataError, TargetError
from unetcam.interventions.effects import Baseline
from unetcam.interventions.fills import Fill, Filling, two_kinds
from unetcam.interventions.hiding import moved
from unetcam.interventions.prediction import Head, Predictor, predictor_of
from unetcam.interventions.regions import LEAST_PIXELS, Regions, agreed, window_masks
from unetcam.interventions.windows import Window

#: Regions whose masks are held at once.
_AT_ONCE = 16
_SHARES = ("flips", "control", "all", "near", "far", "edge")


@dataclass(frozen=True, eq=False)
class Reliance:
    """What the prediction of each region rests on beside the region itself.

    Attributes
    ----------
    image, classes : Tensor
        (N,) int64, in which image each region lies and of which class it is.
    regions : Tensor
        (N, *spatial) bool, where the class is and is predicted: what may flip.
    maps : Tensor
        (N, *spatial) float32, the reliance maps: the share of the region that flips when a window
        around a pixel is hidden, averaged over the smallest such windows that keep most of the
        effect. NaN where a pixel was
        spared, so in the class's own region and the band around it.
    windows : tuple of Window or None
        By region the smallest window that keeps most of the strongest one's effect.
    flips, control : Tensor
        (N,) float64, the share that flips (as far as two fills agree) when that window is hidden,
        and when the same shape is hidden elsewhere at a like distance; NaN where there is none.
    all, near, far : Tensor
        (N,) float64, the share that flips (as far as two fills agree) when everything but the
        region and the band is hidden, the ring next to the band, and all beyond that ring.
    edge : Tensor
        (N,) float64, the same when only the surroundings' first pixel is: the fill's own share.
    band : float
        The spared band in pixels.
    fills : tuple of str
    forwards : int
        How many images went through the network.
    """

    image: Tensor
    classes: Tensor
    regions: Tensor
    maps: Tensor
    windows: tuple[Window | None, ...]
    flips: Tensor
    control: Tensor
    all: Tensor
    near: Tensor
    far: Tensor
    edge: Tensor
    band: float
    fills: tuple[str, ...]
    forwards: int

    def __len__(self) -> int:
        return len(self.windows)

    def class_maps(self, images: int, classes: int) -> Tensor:
        """The maps by image and class, (images, classes, *spatial), NaN where there is no region.

        Of several objects of a class in an image, the largest share counts.
        """
        maps = self.maps.new_full((images, classes, *self.maps.shape[1:]), -torch.inf)
        flat, index = maps.flatten(0, 1), self.image * classes + self.classes
        values = torch.nan_to_num(self.maps, nan=-torch.inf)
        expanded = index.view(-1, *[1] * (values.ndim - 1)).expand_as(values)
        flat = flat.scatter_reduce(0, expanded, values, "amax")
        return torch.where(flat == -torch.inf, torch.nan, flat).view_as(maps)


def reliance(
    model: Any,
    images: Tensor,
    truth: Tensor,
    *,
    classes: Sequence[int] | None = None,
    objects: bool = False,
    band: float | None = None,
    smallest: float | None = None,
    fills: Sequence[str] = ("mean", "noise"),
    head: Head = "softmax",
    seed: int = 0,
    memory_budget: int | float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Reliance:
    """Find what each class leans on beside its own pixels, by hiding it and predicting again.

    Forwards only. The class's own region and a band around it are never touched, so that what
    flips does so because of the surroundings. Windows are searched with the first fill; the one
    that is named, its control and the rest count only as far as fills of two different looks agree.

    Parameters
    ----------
    model : nn.Module, LoadedModel, or callable from images to logits
    images : Tensor
        (B, C, *spatial), as the model takes them; 2-D or 3-D, on its device.
    truth : Tensor
        (B, *spatial) class indices, -1 where ignored; with ``head="sigmoid"`` also
        (B, classes, *spatial) of 1 and 0.
    classes : sequence of int, optional
        All by default.
    objects : bool
        Whether each connected object is a region of its own, with its own map and window.
    band : float, optional
        The spared band in pixels; 2 % of the image's diagonal, at least 1, by default.
    smallest : float, optional
        The finest windows' least side in pixels, as the network's stride; a tenth of the shortest
        side by default.
    fills : sequence of str
        Names of :func:`unetcam.interventions.fills.names`, of which two are of different kind.
    head : {"softmax", "sigmoid"}
        Whether the classes exclude one another.
    seed : int
        Seeds the fills that draw.
    memory_budget : int or float, optional
        Bytes, or a share of what is free; see :class:`~unetcam.UNetCAM`.
    progress : callable, optional
        Is told how many regions of how many are done, as two integers.

    Returns
    -------
    Reliance
        One region for each image and class of at least 12 right pixels.

    Raises
    ------
    DataError
        For truth that does not fit.
    TargetError
        For a class that the network does not have.
    UnetcamError
        For an unknown fill, or fills of one kind only.

    Examples
    --------
    A network that gives the left third to class 1, but only while the last column is bright:

    >>> import torch
    >>> left = (torch.arange(24) < 8).float()
    >>> def network(images):
    ...     cue = images[..., -1:].mean(dim=(2, 3), keepdim=True)
    ...     return torch.cat((0.5 + 0 * images, left * cue + 0 * images), dim=1)
    >>> image = torch.zeros(1, 1, 16, 24)
    >>> image[..., -1] = 1.0
    >>> truth = (left.long() * torch.ones(1, 16, 1).long())
    >>> found = reliance(network, image, truth, classes=[1])
    >>> found.all.item(), found.near.item(), found.windows[0].stop[1]
    (1.0, 0.0, 24)
    """
    predictor = predictor_of(model, head=head, memory_budget=memory_budget)
    start = predictor.forwards
    chosen = two_kinds(fills)
    baseline = Baseline.of(predictor, images, truth, predictor.head)
    wanted = range(baseline.classes) if classes is None else classes
    for index in wanted:
        if not 0 <= index < baseline.classes:
            raise TargetError(
                f"There is no class {index}: the network has {baseline.classes} classes (0 to "
                f"{baseline.classes - 1})."
            )
    sizes = baseline.correct.flatten(2).sum(2)
    pairs = [
        (image, index)
        for index in wanted
        for image in (sizes[:, index] >= LEAST_PIXELS).nonzero()[:, 0].tolist()
    ]
    if not pairs:
        raise DataError(
            f"No image holds {LEAST_PIXELS} pixels of a class that are predicted as it, so there "
            "is nothing that could flip: check the network's predictions first."
        )
    make = Regions.of_objects if objects else Regions.of_classes
    regions = make(baseline, pairs, band)
    fillings = {fill: fill.prepared(images, seed) for fill in chosen}
    parts = []
    for numbers in torch.split(torch.arange(len(regions), device=images.device), _AT_ONCE):
        parts.append(_of_some(predictor, baseline, regions.chosen(numbers), fillings, smallest))
        if progress is not None:
            progress(int(numbers[-1]) + 1, len(regions))
    columns = {key: torch.cat([part[key] for part in parts]) for key in ("maps", *_SHARES)}
    return Reliance(
        image=regions.image,
        classes=regions.classes,
        regions=regions.masks,
        windows=tuple(window for part in parts for window in part["windows"]),
        band=regions.surroundings.band,
        fills=tuple(fills),
        forwards=predictor.forwards - start,
        **columns,
    )


def _of_some(
    predictor: Predictor,
    baseline: Baseline,
    regions: Regions,
    fillings: Mapping[Fill, Filling],
    smallest: float | None,
) -> dict[str, Any]:
    first = next(iter(fillings.values()))
    searched = regions.searched(predictor, baseline, first, smallest=smallest)
    window = window_masks(regions, searched.strongest)
    around = regions.surroundings
    hidden = {
        "flips": window,
        "control": moved(window, around),
        "all": around.all,
        "near": around.near,
        "far": around.far,
        "edge": around.edge,
    }
    shares = {
        name: agreed(regions, predictor, baseline, masks, fillings)
        for name, masks in hidden.items()
    }
    return {"maps": searched.maps, "windows": searched.strongest, **shares}
