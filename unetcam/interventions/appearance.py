"""Change the whole image a little (brightness, contrast, tint, blur, ...) and predict again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unetcam.engine.tensors import at_least_single
from unetcam.errors import UnetcamError, suggestion
from unetcam.interventions.effects import Baseline, measure_all_classes
from unetcam.interventions.prediction import Predictor

#: Shares of an image's values that are taken for its darkest and brightest.
_DARKEST, _BRIGHTEST = 0.005, 0.995


@dataclass(frozen=True)
class Appearance:
    """A change of a whole image, made by albumentations.

    Attributes
    ----------
    name : str
    description : str
        What is done, to be read behind "with"; ``{}`` stands for the amount.
    amount : float
        How much by default.
    make : callable
        Gives the albumentations transform of an amount.
    channels : int, optional
        How many channels the images must have; None for any.
    """

    name: str
    description: str
    amount: float
    make: Callable[[Any, float], Any]
    channels: int | None = None

    def described(self, amount: float) -> str:
        """The description with its amount.

        >>> get("brighter").described(0.1)
        '10 % of the range added'
        """
        return self.description.format(f"{100 * amount:.0f} %")


def _brightness(album: Any, by: float) -> Any:
    return album.RandomBrightnessContrast((by, by), (0.0, 0.0), p=1.0)


def _contrast(album: Any, by: float) -> Any:
    return album.RandomBrightnessContrast((0.0, 0.0), (by, by), p=1.0)


def _tint(album: Any, by: float) -> Any:
    return album.RGBShift((by, by), (0.0, 0.0), (-by, -by), p=1.0)


#: The changes by name.
APPEARANCES: dict[str, Appearance] = {
    one.name: one
    for one in (
        Appearance("brighter", "{} of the range added", 0.1, _brightness),
        Appearance("darker", "{} of the range taken off", 0.1, lambda a, by: _brightness(a, -by)),
        Appearance("more contrast", "the contrast raised by {}", 0.2, _contrast),
        Appearance(
            "less contrast", "the contrast lowered by {}", 0.2, lambda a, by: _contrast(a, -by)
        ),
        Appearance("warmer", "red up and blue down by {} of the range", 0.08, _tint, 3),
        Appearance(
            "colder",
            "blue up and red down by {} of the range",
            0.08,
            lambda a, by: _tint(a, -by),
            3,
        ),
        Appearance(
            "grey",
            "the colours taken out",
            1.0,
            lambda a, by: a.ToGray(num_output_channels=3, method="average", p=1.0),
            3,
        ),
        Appearance(
            "blurred",
            "a Gaussian blur of 1 pixel",
            1.0,
            lambda a, by: a.GaussianBlur(blur_limit=0, sigma_limit=(by, by), p=1.0),
        ),
        Appearance(
            "noisy",
            "Gaussian noise of {} of the range",
            0.03,
            lambda a, by: a.GaussNoise(std_range=(by, by), p=1.0),
        ),
    )
}

#: The least and the most that a change is made of, whatever the images are like.
_BOUNDS = {"brightness": (0.02, 0.1), "contrast": (0.04, 0.2), "tint": (0.01, 0.08)}
#: How many standard deviations over images a change is made of.
_DEVIATIONS = 1.5


def usual_amounts(images: Tensor) -> dict[str, float]:
    """How much of each change is no more than images of a set differ by among themselves.

    One and a half standard deviations over images of the mean brightness, of the logarithm of
    the contrast and of red less blue, between bounds.

    Parameters
    ----------
    images : Tensor
        (B, C, *spatial).

    Returns
    -------
    dict of str to float
        By the names of :data:`APPEARANCES`; those of which the images say nothing keep their own.

    Examples
    --------
    >>> import torch
    >>> alike = torch.linspace(0.0, 1.0, 256).view(1, 1, 16, 16).repeat(4, 1, 1, 1)
    >>> usual_amounts(alike)["brighter"]
    0.02
    """
    low, span = _ranges(images)
    scaled = (at_least_single(images).double() - low) / span.median()
    values = scaled.flatten(2)
    channel_means = values.mean(dim=2)
    contrast = values.std(dim=2, correction=0).mean(dim=1).clamp(min=1e-6).log()
    spreads = {"brightness": channel_means.mean(dim=1), "contrast": contrast}
    if images.shape[1] == 3:
        spreads["tint"] = (channel_means[:, 0] - channel_means[:, 2]) / 2
    amounts = {name: one.amount for name, one in APPEARANCES.items()}
    of = {"brightness": ("brighter", "darker"), "tint": ("warmer", "colder")}
    of["contrast"] = ("more contrast", "less contrast")
    for kind, spread in spreads.items():
        least, most = _BOUNDS[kind]
        usual = _DEVIATIONS * float(spread.std(correction=0))
        for name in of[kind]:
            amounts[name] = round(min(most, max(least, usual)), 3)
    return amounts


def get(name: str) -> Appearance:
    """The change of that name.

    Raises
    ------
    UnetcamError
        For an unknown name; the message gives the nearest.

    Examples
    --------
    >>> get("grey").channels
    3
    """
    if name not in APPEARANCES:
        raise UnetcamError(f"There is no change '{name}': {suggestion(name, APPEARANCES)}")
    return APPEARANCES[name]


def fitting(channels: int) -> tuple[str, ...]:
    """The changes that images of so many channels can be given.

    >>> fitting(1)
    ('brighter', 'darker', 'more contrast', 'less contrast', 'blurred', 'noisy')
    """
    return tuple(
        name
        for name, one in APPEARANCES.items()
        if one.channels is None or one.channels == channels
    )


def changed(images: Tensor, name: str, amount: float | None = None, seed: int = 0) -> Tensor:
    """Images with their appearance changed, wherever their values lie.

    Each image is brought to [0, 1] by its own darkest and brightest values (of all channels
    together, but for half a percent at either end), changed, and brought back; what lies beyond
    those values is kept as it was. Of a volume the slices are changed alike.

    Parameters
    ----------
    images : Tensor
        (B, C, *spatial), on any device.
    name : str
        Of :data:`APPEARANCES`.
    amount : float, optional
        The change's own by default.
    seed : int

    Returns
    -------
    Tensor
        Of the same shape, dtype and device.

    Raises
    ------
    UnetcamError
        For an unknown change, or one for images of other channels.

    Examples
    --------
    >>> import torch
    >>> image = torch.linspace(-1.0, 1.0, 1000).view(1, 1, 20, 50)
    >>> brighter = changed(image, "brighter") - image
    >>> round(brighter.median().item(), 2)  # 10 % of the range
    0.2
    """
    import albumentations as A

    one = get(name)
    if one.channels not in (None, images.shape[1]):
        raise UnetcamError(
            f"The change '{name}' is for images of {one.channels} channels, and these have "
            f"{images.shape[1]}: leave it out."
        )
    transform = A.Compose([one.make(A, one.amount if amount is None else amount)], seed=seed)
    low, span = _ranges(images)
    scaled = (at_least_single(images).double() - low) / span
    inside = scaled.clamp(0, 1)
    arrays = inside.movedim(1, -1).float().cpu().numpy()
    target = "image" if images.ndim == 4 else "images"
    if not len(arrays):
        return images.clone()
    after = np.stack([transform(**{target: array})[target] for array in arrays])
    back = torch.from_numpy(after).to(scaled).movedim(-1, 1)
    return ((back - inside + scaled) * span + low).to(images.dtype)


def _ranges(images: Tensor) -> tuple[Tensor, Tensor]:
    """Each image's darkest value and its range, but for half a percent at either end."""
    order = at_least_single(images).double().flatten(1).sort(dim=1).values
    last = order.shape[1] - 1
    low, high = (order[:, round(share * last)] for share in (_DARKEST, _BRIGHTEST))
    shape = [-1, *[1] * (images.ndim - 1)]
    return low.view(shape), torch.where(high > low, high - low, 1.0).view(shape)


def appearance_effects(
    predictor: Predictor,
    baseline: Baseline,
    image: Tensor,
    amounts: Mapping[str, float],
    seed: int = 0,
) -> Tensor:
    """How much of each class flips under each change.

    Parameters
    ----------
    predictor, baseline
    image : Tensor
        (N,) which images are changed.
    amounts : Mapping of str to float
        How much of K changes of :data:`APPEARANCES`.
    seed : int

    Returns
    -------
    Tensor
        (K, N, classes) float64, the share of right pixels that flip; NaN where there are none.
    """
    rows = []
    for name, amount in amounts.items():
        after = changed(baseline.images[image], name, amount, seed)
        rows.append(measure_all_classes(predictor, baseline, image, after.__getitem__))
    if not rows:
        return baseline.margins.new_zeros((0, len(image), baseline.classes), dtype=torch.float64)
    return torch.stack(rows)
