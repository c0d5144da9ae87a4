"""Change the whole image a little (brightness, contrast, tint, blur, ...) and predict again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    """A mild change of a whole image, made by albumentations.

    Attributes
    ----------
    name : str
    description : str
        What is done, to be read behind "with".
    channels : int, optional
        How many channels the images must have; None for any.
    transform : callable
        Gives the albumentations transform.
    """

    name: str
    description: str
    transform: Callable[[Any], Any]
    channels: int | None = None


def _brightness(by: float) -> Callable[[Any], Any]:
    return lambda album: album.RandomBrightnessContrast((by, by), (0.0, 0.0), p=1.0)


def _contrast(by: float) -> Callable[[Any], Any]:
    return lambda album: album.RandomBrightnessContrast((0.0, 0.0), (by, by), p=1.0)


def _tint(red: float, blue: float) -> Callable[[Any], Any]:
    return lambda album: album.RGBShift((red, red), (0.0, 0.0), (blue, blue), p=1.0)


#: The changes by name.
APPEARANCES: dict[str, Appearance] = {
    one.name: one
    for one in (
        Appearance("brighter", "10 % of the range added", _brightness(0.1)),
        Appearance("darker", "10 % of the range taken off", _brightness(-0.1)),
        Appearance("more contrast", "the contrast raised by 20 %", _contrast(0.2)),
        Appearance("less contrast", "the contrast lowered by 20 %", _contrast(-0.2)),
        Appearance("warmer", "red up and blue down by 8 % of the range", _tint(0.08, -0.08), 3),
        Appearance("colder", "blue up and red down by 8 % of the range", _tint(-0.08, 0.08), 3),
        Appearance(
            "grey",
            "the colours taken out",
            lambda album: album.ToGray(num_output_channels=3, method="average", p=1.0),
            3,
        ),
        Appearance(
            "blurred",
            "a Gaussian blur of 1 pixel",
            lambda album: album.GaussianBlur(blur_limit=0, sigma_limit=(1.0, 1.0), p=1.0),
        ),
        Appearance(
            "noisy",
            "Gaussian noise of 5 % of the range",
            lambda album: album.GaussNoise(std_range=(0.05, 0.05), p=1.0),
        ),
    )
}


def get(name: str) -> Appearance:
    """The change of that name.

    Raises
    ------
    UnetcamError
        For an unknown name; the message gives the nearest.

    Examples
    --------
    >>> get("grey").description
    'the colours taken out'
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


def changed(images: Tensor, name: str, seed: int = 0) -> Tensor:
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
    seed : int

    Returns
    -------
    Tensor
        Of the same shape, dtype and device.

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
    transform = A.Compose([one.transform(A)], seed=seed)
    values = at_least_single(images).double()
    flat = values.flatten(1)
    order = flat.sort(dim=1).values
    last = flat.shape[1] - 1
    low, high = (order[:, round(share * last)] for share in (_DARKEST, _BRIGHTEST))
    shape = [-1, *[1] * (images.ndim - 1)]
    low, span = low.view(shape), torch.where(high > low, high - low, 1.0).view(shape)
    scaled = (values - low) / span
    inside = scaled.clamp(0, 1)
    arrays = inside.movedim(1, -1).float().cpu().numpy()
    target = "image" if images.ndim == 4 else "images"
    after = np.stack([transform(**{target: array})[target] for array in arrays])
    back = torch.from_numpy(after).to(scaled).movedim(-1, 1)
    return ((back - inside + scaled) * span + low).to(images.dtype)


def appearance_effects(
    predictor: Predictor,
    baseline: Baseline,
    image: Tensor,
    names: Sequence[str],
    seed: int = 0,
    done: Callable[[int], None] | None = None,
) -> Tensor:
    """How much of each class flips under each change.

    Parameters
    ----------
    predictor, baseline
    image : Tensor
        (N,) which images are changed.
    names : sequence of str
        K of :data:`APPEARANCES`.
    seed : int
    done : callable, optional
        Is told how many images were predicted since it was told last.

    Returns
    -------
    Tensor
        (K, N, classes) float64, the share of right pixels that flip; NaN where there are none.
    """
    rows = []
    for name in names:
        after = changed(baseline.images[image], name, seed)
        rows.append(measure_all_classes(predictor, baseline, image, after.__getitem__))
        if done is not None:
            done(len(image))
    if not rows:
        return baseline.margins.new_zeros((0, len(image), baseline.classes), dtype=torch.float64)
    return torch.stack(rows)
