"""A loaded model with the layers that are explained, and how the engine is asked about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unetcam.engine import Collected, Request
from unetcam.engine.channel_derivatives import ChannelDerivatives, channel_derivatives
from unetcam.engine.memory import memory_bytes
from unetcam.engine.request import SHORTCUTS, WHOLE_BACKWARDS, Scoring, TapPoint
from unetcam.errors import LayerError, ModelError
from unetcam.models.io import Inputs, image_of
from unetcam.models.layer_names import Address
from unetcam.models.loaded_model import LoadedModel

#: Which of the decoder's layers, deepest first, are explained if none is named.
Choose = Callable[[tuple[str, ...]], tuple[str, ...]]

#: Pixels of an image from which on channels last in memory saves more than it costs; measured.
_ENOUGH_FOR_CHANNELS_LAST = 160 * 160

#: What torch says when a model calls ``view`` on a map whose channels are last in memory.
_VIEW_REFUSED = "view size is not compatible"


class Explaining(Protocol):
    """What makes maps of a request, as a method does."""

    def explain(self, request: Request) -> Collected: ...


class TappedModel:
    """A loaded model and the layers of it that are explained.

    Parameters
    ----------
    loaded : LoadedModel
    layers : sequence of str or nn.Module, or None
        None: those that `choose` takes of the decoder's.
    choose : callable
        Which of the decoder's layers, deepest first, are explained if none is named.
    shortcuts, memory_budget
        See :class:`~unetcam.UNetCAM`.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        layers: Sequence[str | nn.Module] | None,
        choose: Choose,
        *,
        shortcuts: bool,
        memory_budget: int | float | None,
    ) -> None:
        memory_bytes(memory_budget, torch.device("cpu"))
        self.loaded = loaded
        self._choose = choose
        self._addresses = None if layers is None else loaded.addresses(layers)
        #: Those that requests are to take.
        self.shortcuts = SHORTCUTS if shortcuts else WHOLE_BACKWARDS
        self._memory_budget = memory_budget
        self._takes_channels_last = True

    @property
    def layers(self) -> tuple[str, ...] | None:
        """The layers' names in the order of the maps; None while they are not known."""
        if self._addresses is None and not self.loaded.is_traced:
            return None
        return tuple(address.name for address in self._known_addresses())

    def close(self) -> None:
        """Keep the layers' names, where they are known, before the trace is let go."""
        with suppress(LayerError, ModelError):
            if self.loaded.is_traced:
                self._known_addresses()
        if self.loaded.device.type == "cuda":
            torch.cuda.empty_cache()

    def tap_points(self, inputs: Inputs) -> Mapping[str, TapPoint]:
        """Where each layer is tapped, by its name."""
        self.loaded.look(inputs)
        return self.loaded.tap_points(self._known_addresses(), inputs)

    def explain(
        self,
        inputs: Inputs,
        score: Scoring,
        method: Explaining,
        *,
        create_graph: bool = False,
    ) -> Collected:
        """What a method makes of the model's run of some images."""
        images = image_of(inputs)
        points = self.tap_points(inputs)
        model, pick = self.loaded.forward_of(inputs)

        def output(returned: Any, images: Tensor = images) -> Tensor:
            return pick(returned, images)

        def explained(*, channels_last: bool) -> Collected:
            return method.explain(
                Request(
                    model,
                    images,
                    points,
                    score,
                    output,
                    shortcuts=self.shortcuts,
                    channels_last=channels_last,
                    memory_budget=self._memory_budget,
                    create_graph=create_graph,
                )
            )

        channels_last = (
            self._takes_channels_last
            and not images.is_cuda
            and images[0, 0].numel() >= _ENOUGH_FOR_CHANNELS_LAST
            and "channels last" in self.shortcuts
        )
        try:
            return explained(channels_last=channels_last)
        except RuntimeError as error:
            if not channels_last or _VIEW_REFUSED not in str(error):
                raise
            self._takes_channels_last = False
            return explained(channels_last=False)

    def channel_derivatives(
        self, images: Tensor, layer: str | None, memory_budget: int | float | None
    ) -> tuple[str, ChannelDerivatives]:
        """A layer's name, the last by default, and what its channels' shifts do to the logits."""
        wanted = list(self.tap_points(images))[-1] if layer is None else layer
        (address,) = self.loaded.addresses([wanted])
        (point,) = self.loaded.tap_points([address], images).values()
        budget = self._memory_budget if memory_budget is None else memory_budget
        model, pick = self.loaded.forward_of(images)
        return address.name, channel_derivatives(
            model,
            images,
            address.name,
            point.whole(address.name),
            lambda returned: pick(returned, images),
            memory=memory_bytes(budget, images.device),
        )

    def _known_addresses(self) -> tuple[Address, ...]:
        if self._addresses is None:
            decoder = self.loaded.table.decoder
            if not decoder:
                raise LayerError(
                    "No decoder layer was found in the model: name the layers yourself with "
                    "layers=[...] (model.named_modules() lists them)."
                )
            self._addresses = self.loaded.addresses(self._choose(decoder))
        return self._addresses
