"""The most active channels of a layer, each as a map of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unetcam.engine import Collected, Request, observed
from unetcam.errors import UnetcamError
from unetcam.models.io import Inputs, check_images, image_of
from unetcam.models.loaded_model import LoadedModel
from unetcam.models.outputs import Output
from unetcam.models.tapped_model import TappedModel
from unetcam.result import CAMResult
from unetcam.targets.selection import scoring_of


@dataclass(frozen=True)
class ChannelRank:
    """What a map of a channel is of: how active the channel is among its layer's.

    >>> ChannelRank(2).name
    'channel of rank 2'
    """

    rank: int

    @property
    def name(self) -> str:
        return f"channel of rank {self.rank}"


class ActiveChannels(NamedTuple):
    """The most active channels of some layers.

    Attributes
    ----------
    maps : CAMResult
        By layer, (B, count, *layer_spatial): the most active channel first, NaN where the layer
        has fewer channels. It is resized and scaled as any result; its targets are the ranks.
    channels : dict of str to Tensor
        By layer, (B, count) int64: which channel of the layer each map shows, -1 for none.
    """

    maps: CAMResult
    channels: dict[str, Tensor]


def active_channels(
    model: nn.Module | LoadedModel,
    images: Inputs,
    layers: Sequence[str | nn.Module] | None = None,
    *,
    count: int = 8,
    output: Output | None = None,
    memory_budget: int | float | None = None,
) -> ActiveChannels:
    """The most active channels of layers, image by image: no target plays a role.

    A channel's activity is the mean of its positive part over the image's pixels, and its map is
    that part. It costs one forward.

    Parameters
    ----------
    model : nn.Module or LoadedModel
        Left exactly as it was found.
    images : Tensor, tuple or dict
        (B, C, *spatial), floating point, on the model's device.
    layers : sequence of str or nn.Module, optional
        Every decoder layer by default.
    count : int
        How many channels of each layer.
    output, memory_budget
        See :class:`~unetcam.UNetCAM`.

    Returns
    -------
    ActiveChannels
        The maps in at least single precision, and the channels that they show.

    Raises
    ------
    LayerError, MemoryBudgetError, ModelError, NumericalError
        As an explanation does.
    UnetcamError
        For a count below one.

    Examples
    --------
    >>> model = nn.Sequential(nn.Identity(), nn.Conv2d(3, 2, 1))
    >>> images = torch.tensor([[[[1.0, 1.0]], [[0.0, 5.0]], [[-9.0, 0.0]]]])
    >>> maps, channels = active_channels(model, images, ["0"], count=2)
    >>> channels["0"], maps["0"]
    (tensor([[1, 0]]), tensor([[[[0., 5.]], [[1., 1.]]]]))
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise UnetcamError(f"count={count!r} shows no channel: use 1 or more.")
    loaded = LoadedModel.of(model, output=output)
    check_images(loaded.module, image_of(images))
    tapped = TappedModel(
        loaded, layers, lambda decoder: decoder, shortcuts=False, memory_budget=memory_budget
    )
    observation = tapped.explain(images, scoring_of(None), _PositiveParts())
    ranked = {name: _ranked(positive, count) for name, positive in observation.maps.items()}
    maps = CAMResult(
        observation.logits,
        tuple(ChannelRank(rank) for rank in range(1, count + 1)),
        {name: one for name, (one, _) in ranked.items()},
        "active_channels",
        settings={"count": count},
        head=loaded.head,
    )
    return ActiveChannels(maps, {name: channels for name, (_, channels) in ranked.items()})


class _PositiveParts:
    """What the engine hands on of each layer: the positive part of all its channels."""

    def explain(self, request: Request) -> Collected:
        with observed(request) as seen:
            positive = {name: one.relu() for name, one in seen.activations.items()}
            return Collected(seen.logits, positive, seen.defined)


def _ranked(positive: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The maps (B, count, *spatial) and their channels (B, count), of (B, K, *spatial)."""
    shown = min(count, positive.shape[1])
    channels = positive.flatten(2).mean(dim=2).topk(shown, dim=1).indices
    index = channels.view(*channels.shape, *[1] * (positive.ndim - 2))
    maps = positive.gather(1, index.expand(-1, -1, *positive.shape[2:]))
    missing = (0, count - shown)
    beyond = [0, 0] * (positive.ndim - 2)
    return F.pad(maps, [*beyond, *missing], value=torch.nan), F.pad(channels, missing, value=-1)
