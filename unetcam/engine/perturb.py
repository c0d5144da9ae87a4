"""Forwards without a graph: what the layers gave, and how scores move when something is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from unetcam.engine.hooks import Taps, on_this_thread
from unetcam.engine.memory import chunked, memory_bytes, require_room
from unetcam.engine.request import Collected, Named, Request, targets_of
from unetcam.engine.state import preserved
from unetcam.engine.tensors import (
    at_least_single,
    copied,
    plain_images,
    require_finite,
    undefined_to_nan,
)
from unetcam.errors import LayerError, NumericalError, reason

#: Channels that a forward is taken to hold at full size, for the size of a chunk.
_TYPICAL_WIDTH = 64


@dataclass(frozen=True, eq=False)
class Observation:
    """A forward of a request's images, to be compared with further ones.

    Attributes
    ----------
    request : Request
    images : Tensor
        (B, C, *spatial), without a graph.
    activations : dict of str to Tensor
        What each layer gave, (B, K, *layer_spatial), in at least single precision.
    logits : Tensor
        (B, C, *spatial), detached.
    values : Tensor
        (B, T), the targets' scores.
    defined : Tensor
        (B, T) bool.
    targets : tuple
        What the scores are of.
    """

    request: Request
    images: Tensor
    activations: dict[str, Tensor]
    logits: Tensor
    values: Tensor
    defined: Tensor
    targets: tuple[Named, ...]
    _precision: Callable[[], AbstractContextManager[object]]

    def forward(self, images: Tensor) -> Tensor:
        """The network's logits of some images, in the caller's precision."""
        with self._precision():
            return self.request.output(self.request.model(copied(images)), images)

    def responses(self, indices: Tensor, perturb: Callable[[Tensor], Tensor]) -> Tensor:
        """The targets' scores of perturbed images, their regions held as they were.

        Parameters
        ----------
        indices : Tensor
            (N,) what `perturb` tells the perturbations apart by.
        perturb : callable
            Gives the images (n, B, C, *spatial) of a chunk of n indices.

        Returns
        -------
        Tensor
            (N, B, T).

        Raises
        ------
        NumericalError
            For a score that is not finite.
        """

        def scores_of(chunk: Tensor) -> Tensor:
            images = perturb(chunk).to(self.images.dtype)
            return self._scores(images.flatten(0, 1), len(chunk))

        return self._in_chunks(scores_of, indices)

    def responses_of(self, position: int, images: Tensor) -> Tensor:
        """The targets' scores of perturbed copies of one image of the batch.

        Parameters
        ----------
        position : int
            Which image.
        images : Tensor
            (N, C, *spatial).

        Returns
        -------
        Tensor
            (N, T).

        Raises
        ------
        NumericalError
            For a score that is not finite.
        """

        def scores_of(chunk: Tensor) -> Tensor:
            logits = self.forward(chunk)
            # A target may hold a mask for each image, so that it is asked about the whole batch.
            batches = self.logits.expand(len(chunk), *self.logits.shape).clone()
            batches[:, position] = logits
            return torch.stack(
                [_values(self.request, one, self.logits)[position] for one in batches]
            )

        return _finite(torch.cat(chunked(scores_of, images, self._each(1), self.memory)))

    def rows(self) -> int:
        """How many copies of one image a chunk holds."""
        return max(1, self.memory // self._each(1))

    def replays(
        self, name: str, indices: Tensor, perturb: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """The targets' scores with one layer's activation perturbed; only what is behind it runs.

        Parameters
        ----------
        name : str
            One of the request's layers.
        indices : Tensor
            (N,) what `perturb` tells the perturbations apart by.
        perturb : callable
            Gives, from the activation as the layer gave it and a chunk of n indices, the
            activations (n, B, K, *layer_spatial).

        Returns
        -------
        Tensor
            (N, B, T).

        Raises
        ------
        LayerError
            When the part behind the layer can't be run on its own.
        NumericalError
            For a score that is not finite.
        """
        with self._precision():
            module = self.request.layers[name].whole(name)
            recording = Recording(self.request.model, module, self.images)

        def scores_of(chunk: Tensor) -> Tensor:
            times = len(chunk)
            changed = perturb(recording.activation, chunk).flatten(0, 1)
            images = self.images.repeat(times, *[1] * (self.images.ndim - 1))
            with recording.replayed(lambda: changed, times):
                try:
                    return self._scores(images, times)
                except torch.OutOfMemoryError:
                    raise
                except RuntimeError as error:
                    raise LayerError(
                        f"The part behind the layer '{name}' can't be run again on its own "
                        f"({reason(error)}): use a method that runs the whole network (gradcam)."
                    ) from error

        return self._in_chunks(scores_of, indices)

    def collected(self, maps: Mapping[str, Tensor]) -> Collected:
        """What a method returns, from maps (B, T, *layer_spatial), T = 1 for all targets alike."""
        return Collected(
            self.logits,
            {name: undefined_to_nan(one, self.defined) for name, one in maps.items()},
            self.defined,
            self.targets,
        )

    def _scores(self, images: Tensor, times: int) -> Tensor:
        logits = self.forward(images)
        parts = logits.reshape(times, len(self.images), *logits.shape[1:])
        return torch.stack([_values(self.request, part, self.logits) for part in parts])

    def _in_chunks(self, scores_of: Callable[[Tensor], Tensor], indices: Tensor) -> Tensor:
        each = self._each(len(self.images))
        return _finite(torch.cat(chunked(scores_of, indices, each, self.memory)))

    def _each(self, images: int) -> int:
        """Bytes that a forward of so many images is taken to hold."""
        width = max(_TYPICAL_WIDTH, self.logits.shape[1])
        return 4 * width * images * self.images[0, 0].numel() * self.images.element_size()

    @property
    def memory(self) -> int:
        """Bytes that what is done at once may take."""
        return memory_bytes(self.request.memory_budget, self.images.device)


@contextmanager
def observed(request: Request) -> Iterator[Observation]:
    """Request one forward and keep what the layers gave; inside, the model is as in `preserved`.

    No graph is built inside, and arithmetic keeps its precision: the caller's autocast is for the
    network's forwards alone.

    Raises
    ------
    LayerError
        For a layer that the forward never reaches, or that gives no feature map.
    NumericalError
        For NaN or infinity; the message says where it was seen first.
    """
    device = request.images.device.type
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def precision() -> AbstractContextManager[object]:
        return torch.autocast(device, dtype, enabled=enabled)

    with preserved(request.model), torch.no_grad(), torch.autocast(device, enabled=False):
        images = plain_images(request.images)
        with Taps(request.layers) as taps:
            with precision():
                logits = request.output(request.model(copied(images)))
            taps.seal()
            activations = {name: at_least_single(taps.activations[name]) for name in request.layers}
        require_finite(images, activations, logits)
        scores = request.score(at_least_single(logits))
        require_room(request.memory_budget, activations.values(), len(scores))
        values = torch.stack([score.value for score in scores], dim=1)
        defined = torch.stack([score.defined for score in scores], dim=1)
        yield Observation(
            request, images, activations, logits, values, defined, targets_of(scores), precision
        )


def _finite(values: Tensor) -> Tensor:
    if not torch.isfinite(values).all():
        raise NumericalError(
            "NaN or infinity in the scores of a perturbed input: check the network, or run without "
            "half precision."
        )
    return values


def _values(request: Request, logits: Tensor, reference: Tensor) -> Tensor:
    scores = request.score(at_least_single(logits), at_least_single(reference))
    return torch.stack([score.value for score in scores], dim=1)


class Recording:
    """A forward's results up to and with one layer.

    Attributes
    ----------
    activation : Tensor
        What the layer gave, (B, K, *layer_spatial).
    outputs : dict of nn.Module to Any
        What the outermost modules gave that had ended before the layer began.
    result : Any
        What the model returned.
    """

    def __init__(self, model: nn.Module, layer: nn.Module, images: Tensor) -> None:
        self.outputs: dict[nn.Module, Any] = {}
        self.layer = layer
        self._batch = len(images)
        self._activations: list[Any] = []
        self._open: list[list[nn.Module]] = []
        self._calls: dict[nn.Module, int] = {}
        with ExitStack() as stack, torch.no_grad():
            for module in model.modules():
                enter, leave = on_this_thread(self._enter), on_this_thread(self._leave)
                stack.callback(module.register_forward_pre_hook(enter).remove)
                stack.callback(module.register_forward_hook(leave).remove)
            self.result = model(copied(images))
        # A module that runs twice gives two results, and a replay could not tell them apart.
        self.outputs = {m: out for m, out in self.outputs.items() if self._calls[m] == 1}

    @property
    def activation(self) -> Tensor:
        """What the layer gave.

        Raises
        ------
        LayerError
            When the layer did not run exactly once.
        """
        if len(self._activations) != 1 or not isinstance(self._activations[0], Tensor):
            raise LayerError(
                f"The layer ran {len(self._activations)} times in the forward or gave no tensor: "
                "choose one that runs once and gives a feature map (find_layers lists them)."
            )
        return self._activations[0]

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._calls[module] = self._calls.get(module, 0) + 1
        self._open.append([])

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        inner = self._open.pop()
        if module is self.layer:
            self._activations.append(_detached(output))
            return
        if self._activations:
            return
        for m in inner:
            self.outputs.pop(m, None)
        self.outputs[module] = _detached(output)
        if self._open:
            self._open[-1].append(module)

    @contextmanager
    def replayed(self, activation: Callable[[], Tensor], times: int = 1) -> Iterator[None]:
        """Inside, the modules give what was recorded of them at once, and the layer `activation`.

        With `times` these are repeated along the batch, as ``images.repeat(times, ...)``
        repeats the images that the model has to be called with.
        """
        with ExitStack() as stack:
            for module, output in self.outputs.items():
                _give_instead(stack, module, partial(_repeated, output, self._batch, times))
            _give_instead(stack, self.layer, activation)
            yield


def _give_instead(stack: ExitStack, module: nn.Module, give: Callable[[], Any]) -> None:
    """Let a call of the module be `give` on this thread, until the stack is closed.

    The call is replaced and not the forward: a caller's hook has done its work already.
    """
    thread, usual = get_ident(), partial(type(module)._call_impl, module)

    def call(*args: Any, **kwargs: Any) -> Any:
        return give() if get_ident() == thread else usual(*args, **kwargs)

    module.__dict__["_call_impl"] = call
    stack.callback(module.__dict__.pop, "_call_impl", None)


def _repeated(output: Any, batch: int, times: int) -> Any:
    """A copy that is repeated along the batch, where a tensor has one."""

    def one(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.ndim or len(value) != batch:
            return _detached(value)
        return value.detach().repeat(times, *[1] * (value.ndim - 1))

    return tree_map(one, output)


def _detached(output: Any) -> Any:
    """A copy that no later in-place operation can reach."""
    return tree_map(lambda x: x.detach().clone() if isinstance(x, Tensor) else x, output)
