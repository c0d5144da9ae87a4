"""A model as it is explained: where its layers are, how it is run, what of its output counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unetcam.engine import Collected, Request
from unetcam.engine.channel_derivatives import ChannelDerivatives, channel_derivatives
from unetcam.engine.layout import UnclearError
from unetcam.engine.memory import memory_bytes
from unetcam.engine.request import Scoring, TapPoint
from unetcam.errors import ModelError
from unetcam.methods import Method
from unetcam.models.io import (
    Inputs,
    Output,
    bound,
    detached,
    image_of,
    is_map,
    is_scores,
    one_pixel,
    pick_logits,
)
from unetcam.models.layer_names import Choose, Seen, addresses, presumed, see
from unetcam.models.loading import check_supported, unwrapped

#: What torch says when a model calls ``view`` on a map whose channels are last in memory.
_VIEW_REFUSED = "view size is not compatible"

T = TypeVar("T")


class Network:
    """A model, its layers, and what is known of it from runs before.

    Parameters
    ----------
    model : nn.Module
    layers : sequence of str or nn.Module, or None
        None: those that `choose` takes of the decoder's.
    choose : callable
        Which of the decoder's layers, deepest first, are explained if none is named.
    output, shortcuts, memory_budget
        See :class:`~unetcam.UNetCAM`.

    Attributes
    ----------
    model : nn.Module
        Out of its wrappers.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str | nn.Module] | None,
        choose: Choose,
        output: Output | None,
        *,
        shortcuts: bool,
        memory_budget: int | float | None,
    ) -> None:
        check_supported(model)
        memory_bytes(memory_budget, torch.device("cpu"))
        self.model = unwrapped(model)
        self._chosen = None if layers is None else addresses(self.model, layers)
        self._choose, self._output = choose, output
        self._shortcuts, self._memory_budget = shortcuts, memory_budget
        self._takes_channels_last = True
        self._seen: Seen | None = None

    @property
    def device(self) -> torch.device | None:
        """Where the model's parameters are; None without any."""
        return next((parameter.device for parameter in self.model.parameters()), None)

    @property
    def layers(self) -> tuple[str, ...] | None:
        """The layers' names in the order of the maps; None while they are not known."""
        if self._chosen is not None:
            return tuple(address.name for address in self._chosen)
        return None if self._seen is None else tuple(self._seen.points)

    def points(self, inputs: Inputs) -> Mapping[str, TapPoint]:
        """Where each layer is tapped, by its name."""
        if self._seen is None or not self._seen.fits(inputs):
            presumption = self._chosen and presumed(self.model, self._chosen, inputs)
            self._seen = presumption or self._see(inputs)
        return self._seen.points

    def explain(
        self,
        inputs: Inputs,
        score: Scoring,
        method: Method,
        *,
        create_graph: bool = False,
    ) -> Collected:
        """Explain images by a method."""
        images = image_of(inputs)
        model = bound(self.model, detached(inputs))

        def output(returned: Any, images: Tensor = images) -> Tensor:
            return self._logits(returned, images)

        def explained(*, channels_last: bool) -> Collected:
            request = Request(
                model,
                images,
                self.points(inputs),
                score,
                output,
                shortcuts=self._shortcuts,
                channels_last=channels_last,
                memory_budget=self._memory_budget,
                create_graph=create_graph,
            )
            return method.explain(request)

        def explained_as_taken() -> Collected:
            channels_last = self._shortcuts and self._takes_channels_last and not images.is_cuda
            try:
                return explained(channels_last=channels_last)
            except RuntimeError as error:
                if not channels_last or _VIEW_REFUSED not in str(error):
                    raise
                self._takes_channels_last = False
                return explained(channels_last=False)

        return self._clearly(inputs, explained_as_taken)

    def channel_derivatives(
        self, images: Tensor, layer: str | None, memory_budget: int | float | None
    ) -> tuple[str, ChannelDerivatives]:
        """A layer's name, the last by default, and what its channels' shifts do to the logits."""
        wanted = list(self.points(images))[-1] if layer is None else layer
        (address,) = addresses(self.model, [wanted])
        name = address.name
        seen = presumed(self.model, [address], images)
        if seen is None or seen.points[name].size is not None:
            seen = see(self.model, [address], images, self._output)
        module = seen.points[name].whole(name)
        budget = self._memory_budget if memory_budget is None else memory_budget
        return name, self._clearly(
            images,
            lambda: channel_derivatives(
                self.model,
                images,
                name,
                module,
                lambda returned: self._logits(returned, images),
                memory=memory_bytes(budget, images.device),
            ),
        )

    # -- inside ------------------------------------------------------------------------------

    def _see(self, inputs: Inputs) -> Seen:
        return see(self.model, self._chosen, inputs, self._output, self._choose)

    def _clearly(self, inputs: Inputs, run: Callable[[], T]) -> T:
        """What a run gives, after a traced one where something can't be told without."""
        with suppress(UnclearError):
            return run()
        self._seen = self._see(inputs)
        return run()

    def _logits(self, returned: Any, images: Tensor) -> Tensor:
        if self._output is None:
            choice = self._seen.output if self._seen is not None else None
            return pick_logits(returned, images, choice)
        logits = self._output(returned)
        if isinstance(logits, Tensor) and is_scores(logits, images):
            return one_pixel(logits, images)
        if not isinstance(logits, Tensor) or not is_map(logits, images):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(
                f"output= gave {shape}, which is no segmentation map (B, C, *spatial) for images "
                f"of shape {tuple(images.shape)}: return the logits."
            )
        return logits
