"""Explaining a whole volume by a 3-D network, in the volume's own voxels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unetcam.cam import UNetCAM
from unetcam.data import Preprocessing
from unetcam.data.picture import Pixels
from unetcam.errors import RunError
from unetcam.result import CAMResult
from unetcam.runs.framed import ImageArea
from unetcam.runs.inputs import tiles_of
from unetcam.runs.setup import Explanation, Network
from unetcam.targets import ClassScore, PredictedRegion, predict


@dataclass(frozen=True, eq=False)
class ExplainedVolume:
    """An explained volume.

    Attributes
    ----------
    prediction : Tensor
        (D, H, W) int64, in the volume's own voxels.
    """

    prediction: Tensor
    _result: CAMResult
    _padded: tuple[int, ...]
    _inside: tuple[slice, ...]

    def maps(self, layer: str) -> Tensor:
        """(T, D, H, W) raw maps of one layer in the volume's own voxels, trilinear.

        One layer at a time, so that a network with many layers needs no more memory.
        """
        return _resized(self._result[layer], self._padded)[0][(slice(None), *self._inside)]


def explain_volume(
    volume: Tensor,
    network: Network,
    layers: Sequence[str],
    how: Explanation,
    progress: Callable[[int, int], None] | None = None,
) -> ExplainedVolume:
    """Explain a volume for every class.

    It is filled up with zeros on all sides to what the network's stride needs, and the border
    counts for no target.

    Parameters
    ----------
    volume : Tensor
        (1, C, D, H, W), on the network's device and of its type.
    network : Network
        Of three spatial dimensions.
    layers : sequence of str
    how : Explanation
        Its target is "class" or "predicted".
    progress : callable, optional
        Is told how many tiles of how many are done.

    Returns
    -------
    ExplainedVolume

    Raises
    ------
    RunError
        If the volume does not fit on the device.
    UnetcamError
        For a volume or a network that can't be explained.
    """
    size = volume.shape[2:]
    padded = tuple(-(-side // network.stride) * network.stride for side in size)
    offset = [(whole - side) // 2 for whole, side in zip(padded, size, strict=True)]
    inside = tuple(slice(at, at + side) for at, side in zip(offset, size, strict=True))
    images = volume.new_zeros(*volume.shape[:2], *padded)
    images[(slice(None), slice(None), *inside)] = volume
    area = torch.zeros(1, *padded, dtype=torch.bool, device=network.device)
    area[(slice(None), *inside)] = True
    kind = ClassScore if how.target == "class" else PredictedRegion
    targets = [kind(c, within=ImageArea(c, area=area)) for c in range(network.classes)]
    cam = UNetCAM(network.model, list(layers), how.method)
    tiles = tiles_of(how.tile, how.overlap, 3, network.stride)
    try:
        with torch.autocast(network.device.type, enabled=how.amp):
            if tiles is None:
                result = cam(images, targets)
            else:
                result = cam.tiled(images, *tiles, targets=targets, progress=progress)
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"The device ran out of memory on {' x '.join(map(str, size))} voxels: explain them in "
            f"{'smaller ' if tiles else ''}tiles, as with --tile 96."
        ) from error
    logits = _resized(result.logits.float(), padded)
    return ExplainedVolume(predict(logits)[0][inside], result, padded, inside)


def normalised(values: Pixels, network: Network, how: Explanation) -> Tensor:
    """A volume (D, H, W, C), normalised as an image is: (1, C, D, H, W) on the network's device.

    Raises
    ------
    DataError
        If its bands can't be brought to the network's channels; the message is the end of a
        sentence that begins with the file's name.
    """
    prepare = Preprocessing(
        channels=network.channels,
        stride=1,
        mean=how.mean or (0.0,),
        std=how.std or (1.0,),
        max_value=how.max_value,
    )
    # Normalising sees single pixels, so the slices may lie one below the other.
    depth, height, width, bands = values.shape
    flat = prepare(np.ascontiguousarray(values).reshape(depth * height, width, bands)).image
    parameter = next(network.model.parameters(), None)
    dtype = torch.float32 if parameter is None else parameter.dtype
    return flat.view(1, -1, depth, height, width).to(network.device, dtype)


def _resized(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(maps.shape[2:]) == size:
        return maps
    return F.interpolate(maps, size=size, mode="trilinear", align_corners=False)
