"""What a network takes: images or volumes, of how many channels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from unetcam.errors import ModelError, RunError

#: The sizes at which a network is looked at where no other is given, by spatial dimensions.
EXAMPLE_SIZES = {2: (256, 256), 3: (64, 64, 64)}

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)


def spatial_dims(model: nn.Module) -> int:
    """2 for a network of images and 3 for one of volumes, told by its first convolution.

    Examples
    --------
    >>> spatial_dims(nn.Sequential(nn.Conv3d(1, 8, 3), nn.Conv3d(8, 2, 1)))
    3
    """
    first = _first_convolution(model)
    return 3 if isinstance(first, nn.Conv3d) else 2


def input_channels(model: nn.Module) -> int:
    """Channels of a network's input, read from its first convolution.

    Raises
    ------
    ModelError
        For a network without a convolution.

    Examples
    --------
    >>> input_channels(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)))
    3
    """
    first = _first_convolution(model)
    if first is None:
        raise ModelError(
            "The network has no convolution that tells how many channels its images have: say so "
            "with channels=.",
            option="channels",
        )
    return first.in_channels


def _first_convolution(model: nn.Module) -> nn.Conv2d | nn.Conv3d | None:
    return next((one for one in model.modules() if isinstance(one, _CONVOLUTIONS)), None)


def tiles_of(
    tile: Sequence[int] | None, overlap: int | None, dims: int, stride: int
) -> tuple[tuple[int, ...], int] | None:
    """The sides of tiles, one for each spatial dimension, and their overlap; None without tiles.

    Raises
    ------
    RunError
        For tiles of another number of dimensions, and an overlap without tiles.

    Examples
    --------
    >>> tiles_of((96,), None, dims=3, stride=16)
    ((96, 96, 96), 16)
    """
    if tile is None:
        if overlap is not None:
            raise RunError("An overlap belongs to tiles: give tile= as well.", option="tile")
        return None
    if len(tile) not in (1, dims):
        raise RunError(
            f"A tile of {len(tile)} sides does not fit the network, which has {dims} spatial "
            f"dimensions: give tile= one number, or {dims}.",
            option="tile",
        )
    sides = tuple(tile) * dims if len(tile) == 1 else tuple(tile)
    return sides, min(sides) // 4 // stride * stride if overlap is None else overlap
