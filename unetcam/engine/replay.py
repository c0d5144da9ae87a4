"""Run only what comes behind a layer, again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from unetcam.errors import LayerError


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
                stack.callback(module.register_forward_pre_hook(self._enter).remove)
                stack.callback(module.register_forward_hook(self._leave).remove)
            self.result = model(images)
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
        """Inside, the recorded modules answer at once, and the layer gives `activation`.

        With `times` the answers are repeated along the batch, as ``images.repeat(times, ...)``
        repeats the images that the model has to be called with.
        """
        with ExitStack() as stack:
            for module, output in self.outputs.items():
                _answer(stack, module, partial(_repeated, output, self._batch, times))
            _answer(stack, self.layer, activation)
            yield


def _answer(stack: ExitStack, module: nn.Module, give: Callable[[], Any]) -> None:
    """Let a call of the module be `give` until the stack is closed.

    The call is replaced and not the forward: a caller's hook has done its work already.
    """
    module.__dict__["_call_impl"] = lambda *args, **kwargs: give()
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
