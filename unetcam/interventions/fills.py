"""What hidden pixels are replaced with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from unetcam.engine.tensors import at_least_single
from unetcam.errors import UnetcamError, suggestion

#: What a fill looks like: two fills agree only if they are of different kind.
Look = Literal["flat", "smooth", "textured"]
#: Indices (n,) into some images and what to hide, (n, *spatial) bool: the filled images.
Filling: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class Fill(ABC):
    """What stands in the place of hidden pixels.

    Attributes
    ----------
    name : str
    look : {"flat", "smooth", "textured"}
    description : str
        What it is, to be read behind "filled with".
    """

    name: str
    look: Look
    description: str

    @abstractmethod
    def prepared(self, images: Tensor, seed: int) -> Filling:
        """Everything that can be known before it is told what is hidden.

        Parameters
        ----------
        images : Tensor
            (B, C, *spatial).
        seed : int
            Seeds what is drawn; the same whatever the device.

        Returns
        -------
        callable
            Gives, from indices (n,) into the images and what to hide in each, (n, *spatial) bool,
            the filled images (n, C, *spatial), equal to the images where nothing is hidden.
        """

    def __call__(self, images: Tensor, hidden: Tensor, seed: int = 0) -> Tensor:
        """The images (B, C, *spatial) with their hidden pixels, (B, *spatial) bool, replaced."""
        return self.prepared(images, seed)(torch.arange(len(images), device=images.device), hidden)


class _Replacement(Fill):
    """A fill whose replacement of a pixel does not depend on what else is hidden."""

    @abstractmethod
    def replacement(self, images: Tensor, seed: int) -> Tensor:
        """What every pixel would become, (B, C, *spatial), in at least single precision."""

    def prepared(self, images: Tensor, seed: int) -> Filling:
        replacement = self.replacement(images, seed).to(images.dtype)

        def filled(index: Tensor, hidden: Tensor) -> Tensor:
            return torch.where(hidden.unsqueeze(1), replacement[index], images[index])

        return filled


_FILLS: dict[str, Fill] = {}
F_ = TypeVar("F_", bound=type[Fill])


def register(fill: F_) -> F_:
    """Class decorator: make a fill known by its name."""
    one = fill()
    if one.name in _FILLS:
        raise ValueError(f"a fill named {one.name!r} is already registered")
    _FILLS[one.name] = one
    return fill


def names() -> tuple[str, ...]:
    """The registered fills' names.

    >>> names()
    ('mean', 'blur', 'noise', 'other', 'second-other', 'alike', 'inpaint')
    """
    return tuple(_FILLS)


def get(name: str) -> Fill:
    """The fill of that name.

    Raises
    ------
    UnetcamError
        For an unknown name; the message gives the nearest.

    Examples
    --------
    >>> get("mean").look
    'flat'
    """
    if name not in _FILLS:
        raise UnetcamError(f"There is no fill '{name}': {suggestion(name, _FILLS)}")
    return _FILLS[name]


def agreeing(shares: Sequence[Tensor], looks: Sequence[Look]) -> Tensor:
    """What fills of two different looks agree on: the second largest of the looks' largest shares.

    Parameters
    ----------
    shares : sequence of Tensor
        (N,) by fill, what flips under it; NaN where nothing could.
    looks : sequence of str
        The fills' looks, of which there must be two.

    Returns
    -------
    Tensor
        (N,).

    Examples
    --------
    >>> import torch
    >>> shares = torch.tensor([[0.9], [0.1], [0.6]])
    >>> agreeing(list(shares), ["flat", "textured", "textured"])
    tensor([0.6000])
    """
    by_look: dict[Look, Tensor] = {}
    for share, look in zip(shares, looks, strict=True):
        by_look[look] = torch.maximum(by_look[look], share) if look in by_look else share
    return torch.stack(list(by_look.values())).topk(2, dim=0).values[1]


def two_kinds(fills: Sequence[str]) -> tuple[Fill, ...]:
    """The fills of these names, of which two must be of different kind.

    Raises
    ------
    UnetcamError
        For an unknown name, and where all are of one kind, so that an effect could be the fill's
        own artefact.

    Examples
    --------
    >>> [fill.look for fill in two_kinds(["mean", "noise"])]
    ['flat', 'textured']
    """
    chosen = tuple(map(get, fills))
    if len({one.look for one in chosen}) < 2:
        raise UnetcamError(
            f"The fills {', '.join(fills) or '(none)'} are not two of different kind, so an effect "
            "could be the fill's own: give two such as 'mean' and 'noise'."
        )
    return chosen


def _per_channel(images: Tensor, statistic: Tensor) -> Tensor:
    return statistic.view(*images.shape[:2], *[1] * (images.ndim - 2))


@register
class Mean(_Replacement):
    """Each channel's mean over the whole image.

    Examples
    --------
    >>> import torch
    >>> image, hidden = torch.tensor([[[[1.0, 2.0, 6.0]]]]), torch.tensor([[[False, False, True]]])
    >>> get("mean")(image, hidden)
    tensor([[[[1., 2., 3.]]]])
    """

    name = "mean"
    look: Look = "flat"
    description = "the image's mean"

    def replacement(self, images: Tensor, seed: int) -> Tensor:
        values = at_least_single(images)
        mean = _per_channel(images, values.flatten(2).mean(dim=2))
        return mean.expand_as(values)


@register
class Blur(_Replacement):
    """The image behind a Gaussian whose standard deviation is a twelfth of the shortest side."""

    name = "blur"
    look: Look = "smooth"
    description = "the image, blurred"

    def replacement(self, images: Tensor, seed: int) -> Tensor:
        return blurred(images, max(1.0, min(images.shape[2:]) / 12))


@register
class Noise(_Replacement):
    """White noise with each channel's mean and standard deviation."""

    name = "noise"
    look: Look = "textured"
    description = "noise with the image's mean and spread"

    def replacement(self, images: Tensor, seed: int) -> Tensor:
        values = at_least_single(images).flatten(2)
        mean = _per_channel(images, values.mean(dim=2))
        spread = _per_channel(images, values.std(dim=2, correction=0))
        generator = torch.Generator().manual_seed(seed)
        # One field for all images: an image's fill does not depend on those beside it.
        drawn = torch.randn(images.shape[1:], generator=generator, dtype=torch.float32)
        return mean + spread * drawn.to(spread)


class _Donor(_Replacement):
    """The same place of another image of the batch, chosen by how different it looks.

    What counts are the channels' means and standard deviations.
    """

    look: Look = "textured"
    needs = 2  # images

    @abstractmethod
    def chosen(self, distance: Tensor) -> Tensor:
        """The donor of each image, (B,), from how different the images look, (B, B)."""

    def replacement(self, images: Tensor, seed: int) -> Tensor:
        if len(images) < self.needs:
            raise UnetcamError(
                f"The fill '{self.name}' takes the same place of another image and needs "
                f"{self.needs} images, and there are {len(images)}: give more, or use 'noise'."
            )
        values = at_least_single(images)
        flat = values.flatten(2)
        looks = torch.cat((flat.mean(dim=2), flat.std(dim=2, correction=0)), dim=1).double()
        return values[self.chosen(torch.cdist(looks, looks))]


@register
class Other(_Donor):
    """The same place of the image that looks most different."""

    name = "other"
    description = "the same place of a very different image"

    def chosen(self, distance: Tensor) -> Tensor:
        return distance.argmax(dim=1)


@register
class SecondOther(_Donor):
    """The same place of the image that looks second most different."""

    name = "second-other"
    description = "the same place of another very different image"
    needs = 3

    def chosen(self, distance: Tensor) -> Tensor:
        return distance.topk(2, dim=1).indices[:, 1]


@register
class Alike(_Donor):
    """The same place of the image that looks most alike: a control for the other two."""

    name = "alike"
    description = "the same place of a similar image"

    def chosen(self, distance: Tensor) -> Tensor:
        itself = torch.eye(len(distance), dtype=torch.bool, device=distance.device)
        return distance.masked_fill(itself, torch.inf).argmin(dim=1)


@register
class Inpaint(Fill):
    """OpenCV's inpainting, which continues what is around the hidden pixels; images only.

    It works on 256 levels between each channel's extremes.

    References
    ----------
    .. [1] A. Telea, "An Image Inpainting Technique Based on the Fast Marching Method", Journal of
       Graphics Tools 9, 2004.
    """

    name = "inpaint"
    look: Look = "smooth"
    description = "what is around, continued (inpainting)"

    def prepared(self, images: Tensor, seed: int) -> Filling:
        if images.ndim != 4:
            raise UnetcamError(
                "The fill 'inpaint' is for images (B, C, H, W) and not for volumes: use 'blur'."
            )

        def filled(index: Tensor, hidden: Tensor) -> Tensor:
            painted = at_least_single(images[index]).clone()
            for image, mask in zip(painted, hidden, strict=True):
                if mask.any():
                    _inpaint(image, mask)
            return painted.to(images.dtype)

        return filled


def _inpaint(image: Tensor, hidden: Tensor) -> None:
    """Inpaint an image (C, H, W) in place; OpenCV takes one plane of bytes at a time."""
    import cv2

    holes = hidden.cpu().numpy().astype(np.uint8)
    for channel in image:
        low, high = channel.amin(), channel.amax()
        span = torch.where(high > low, high - low, torch.ones_like(high))
        levels = ((channel - low) / span * 255).round().byte().cpu().numpy()
        painted = torch.from_numpy(cv2.inpaint(levels, holes, 3, cv2.INPAINT_TELEA))
        channel[hidden] = (painted.to(channel) / 255 * span + low)[hidden]


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Images (B, C, *spatial) behind a Gaussian, in pixels; at the border the image is repeated."""
    values = at_least_single(images)
    reach = max(1, round(3 * sigma))
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=values.dtype)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    weights = (weights / weights.sum()).view(1, 1, -1)
    for axis in range(2, images.ndim):
        lines = values.movedim(axis, -1)
        shape = lines.shape
        padded = F.pad(lines.reshape(-1, 1, shape[-1]), (reach, reach), mode="replicate")
        values = F.conv1d(padded, weights).view(shape).movedim(-1, axis)
    return values
