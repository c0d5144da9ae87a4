"""Does the prediction follow the map? Pixels are taken away, or given back, in the map's order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from unetcam.errors import MeasureError
from unetcam.measures.imputation import imputed

Predict = Callable[[Tensor], Tensor]
Mode = Literal["deletion", "insertion"]
Fill = Literal["road", "mean"]
Score = Literal["probability", "soft-dice", "iou"]

_RANDOM_ORDERS = 3


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """How a class's score follows the share of pixels that are taken away or given back.

    Attributes
    ----------
    shares : Tensor
        ``(S + 1,)`` float64, from 0 to 1.
    curve : Tensor
        ``(B, S + 1)`` float64, the score in the map's order.
    random : Tensor
        ``(B, S + 1)`` float64, the mean of the scores in orders drawn at random.
    area, random_area, ideal_area : Tensor
        ``(B,)`` float64, the areas under the curves. The ideal order reaches at its first step
        what the last step shows: with nothing left for a deletion, with everything for an
        insertion.
    normalised : Tensor
        ``(B,)`` float64: 0 for an order as good as random, 1 for the ideal one, below 0 for one
        that is worse than random. NaN where random and ideal are the same, as for an image
        whose score does not depend on its pixels, and where there is nothing to score.
    """

    shares: Tensor
    curve: Tensor
    random: Tensor
    area: Tensor
    random_area: Tensor
    ideal_area: Tensor
    normalised: Tensor


@torch.no_grad()
def faithfulness(
    predict: Predict,
    images: Tensor,
    maps: Tensor,
    region: Tensor,
    class_index: int,
    *,
    mode: Mode = "deletion",
    fill: Fill = "road",
    score: Score = "probability",
    steps: int = 10,
    seed: int = 0,
) -> Faithfulness:
    """Deletion and insertion for dense prediction, on the images' device.

    The pixels with the map's highest values are taken away first (deletion), or given back
    first to an image of which nothing is left (insertion); what is missing is filled. The score
    is that of one class in a frozen region: the pixels are named beforehand, by the
    unperturbed prediction or by the truth, and stay the same.

    Parameters
    ----------
    predict : callable
        Gives logits ``(b, C, *spatial)`` for images ``(b, channels, *spatial)``; of a single
        channel, class 1 is the foreground.
    images : Tensor
        ``(B, channels, H, W)`` or ``(B, channels, D, H, W)``.
    maps : Tensor
        ``(B, H, W)`` or ``(B, D, H, W)``, the maps at the images' size, floating and finite.
    region : Tensor
        ``(B, H, W)`` or ``(B, D, H, W)`` bool, the class's pixels.
    class_index : int
        The class.
    mode : {"deletion", "insertion"}
    fill : {"road", "mean"}
        What stands in for a missing pixel: ROAD's noisy linear imputation, which leaves no
        edge that the network could read [1]_, or the image's mean.
    score : {"probability", "soft-dice", "iou"}
        The mean probability of the class in the region; 2 sum(p r) / (sum(p) + sum(r)) for
        probabilities p and the region r; or the IoU of the predicted class with the region.
    steps : int
        In how many steps of equal size.
    seed : int
        Seeds the noise and the random orders.

    Returns
    -------
    Faithfulness

    Raises
    ------
    MeasureError
        If shapes or options do not fit.

    Notes
    -----
    Deletion and insertion are those of Petsiuk et al. [2]_, with pixels of one value in raster
    order. An empty region has NaN scores.

    References
    ----------
    .. [1] Y. Rong, T. Leemann, V. Borisov, G. Kasneci and E. Kasneci, "A Consistent and Efficient
       Evaluation Strategy for Attribution Methods", ICML 2022.
    .. [2] V. Petsiuk, A. Das and K. Saenko, "RISE: Randomized Input Sampling for Explanation of
       Black-box Models", BMVC 2018.

    Examples
    --------
    A network that calls bright pixels class 1 follows a map of the brightness:

    >>> import torch
    >>> images = torch.tensor([[[[0.0, 0.0, 4.0, 4.0]]]])
    >>> bright = lambda x: torch.cat([2 - x, x - 2], dim=1)
    >>> region = images[:, 0] > 2
    >>> found = faithfulness(bright, images, images[:, 0], region, 1, fill="mean", steps=4)
    >>> found.curve.round(decimals=2)
    tensor([[0.9800, 0.7400, 0.5000, 0.5000, 0.5000]], dtype=torch.float64)
    """
    _check(images, maps, region, mode, fill, score, steps)
    shares = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device=images.device)
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    generator = torch.Generator().manual_seed(seed)

    def curve(order: Tensor) -> Tensor:
        scores = []
        rank = torch.empty_like(order).scatter_(
            1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
        )
        for share in shares.tolist():
            first = (rank < round(share * order.shape[1])).view_as(region)
            missing = first if mode == "deletion" else ~first
            logits = predict(_filled(images, missing, fill, seed))
            scores.append(_score(logits, region, class_index, score))
        return torch.stack(scores, dim=1)

    mine = curve(order)
    orders = (
        torch.rand(order.shape, generator=generator).argsort(dim=1).to(order.device)
        for _ in range(_RANDOM_ORDERS)
    )
    random = torch.stack([curve(one) for one in orders]).mean(0)
    ideal = mine[:, -1:].expand_as(mine).clone()
    ideal[:, 0] = mine[:, 0]
    area, random_area, ideal_area = (torch.trapezoid(c, shares) for c in (mine, random, ideal))
    span = ideal_area - random_area
    normalised = torch.where(span != 0, (area - random_area) / span, torch.nan)
    return Faithfulness(shares, mine, random, area, random_area, ideal_area, normalised)


def _check(
    images: Tensor, maps: Tensor, region: Tensor, mode: str, fill: str, score: str, steps: int
) -> None:
    wanted = (images.shape[0], *images.shape[2:])
    for name, tensor in (("maps", maps), ("region", region)):
        if tensor.shape != wanted:
            raise MeasureError(
                f"The {name} has shape {tuple(tensor.shape)}: give {wanted}, as the images have."
            )
    if region.dtype != torch.bool:
        raise MeasureError(f"The region has dtype {region.dtype}: give torch.bool.")
    if not bool(maps.isfinite().all()):
        raise MeasureError("A map holds NaN or infinity: leave out images without the class.")
    for name, value, known in (("mode", mode, Mode), ("fill", fill, Fill), ("score", score, Score)):
        if value not in get_args(known):
            raise MeasureError(
                f"There is no {name} '{value}': choose from {', '.join(get_args(known))}."
            )
    if steps < 1:
        raise MeasureError(f"{steps} steps take nothing away: give 1 or more.")


def _filled(images: Tensor, missing: Tensor, fill: Fill, seed: int) -> Tensor:
    if fill == "road":
        return imputed(images, missing, seed=seed)
    mean = images.flatten(2).mean(-1).view(*images.shape[:2], *[1] * (images.ndim - 2))
    return torch.where(missing[:, None], mean, images)


def _score(logits: Tensor, region: Tensor, class_index: int, score: Score) -> Tensor:
    """``(B,)`` float64; NaN where the region is empty."""
    logits = logits.double()
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    if not 0 <= class_index < logits.shape[1]:
        raise MeasureError(
            f"Class {class_index} is out of range: {logits.shape[1]} classes have the indices "
            f"0 to {logits.shape[1] - 1}."
        )
    inside = region.flatten(1).double()
    size = inside.sum(1)
    if score == "iou":
        predicted = (logits.argmax(1) == class_index).flatten(1).double()
        common = (predicted * inside).sum(1)
        return torch.where(size > 0, common / (predicted.sum(1) + size - common), torch.nan)
    probability = logits.softmax(1)[:, class_index].flatten(1)
    mass = (probability * inside).sum(1)
    if score == "probability":
        return mass / size
    return torch.where(size > 0, 2 * mass / (probability.sum(1) + size), torch.nan)
