"""Watch a model run once: which operation made which tensor, inside which module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from unetcam.engine.state import preserved
from unetcam.models.output import Output, pick_logits


@dataclass(frozen=True)
class Node:
    """One tensor that came of the input, and the operation that made it.

    Attributes
    ----------
    index : int
        Its place in the order of execution.
    op : str
        The torch function's name.
    inputs : tuple of int
        The nodes it was made from; a weight is no node.
    shape : tuple of int
    """

    index: int
    op: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One call of a module.

    Attributes
    ----------
    name : str
        The module's name in the model.
    depth : int
        How many module calls it is nested in, the model's own counted.
    start, end : int
        The nodes made inside are those with ``start <= index < end``.
    outputs : tuple of int
        The nodes it returned.
    single : bool
        Whether it returned one tensor, and no tuple, list or dict.
    """

    name: str
    depth: int
    start: int
    end: int
    outputs: tuple[int, ...]
    single: bool

    def made(self, node: int) -> bool:
        """Whether the node came to be inside this call."""
        return self.start <= node < self.end


@dataclass(frozen=True)
class Trace:
    """A run of the model: nodes and calls in the order in which they ended."""

    nodes: tuple[Node, ...]
    calls: tuple[Call, ...]
    image: int
    logits: int


class _Recorder(TorchFunctionMode):
    """Notes every torch function that touches a tensor which came of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self._of: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        inputs = self.known((args, kwargs))
        found = {id(tensor): tensor._version for tensor in _tensors((args, kwargs))}
        result = func(*args, **kwargs)
        if inputs:
            name = getattr(func, "__name__", str(func))
            # An item assignment returns nothing: it makes its first argument anew.
            for tensor in _tensors(args[0] if name == "__setitem__" else result):
                # An operation that hands its input on untouched (dropout) makes nothing.
                if found.get(id(tensor)) != tensor._version:
                    self.note(tensor, name, inputs)
        return result

    def note(self, tensor: Tensor, op: str, inputs: tuple[int, ...]) -> int:
        node = Node(len(self.nodes), op, inputs, tuple(tensor.shape))
        self.nodes.append(node)
        self._of[tensor] = node.index
        return node.index

    def known(self, values: Any) -> tuple[int, ...]:
        return tuple(self._of[tensor] for tensor in _tensors(values) if tensor in self._of)


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def trace(model: nn.Module, example: Tensor, output: Output | None = None) -> Trace:
    """Run `model` once on the first image of `example` and record what happens.

    Parameters
    ----------
    model : nn.Module
        Left as found.
    example : Tensor
        (B, C, *spatial) on the model's device.
    output : callable, optional
        Picks the logits from what the model returns.

    Returns
    -------
    Trace
    """
    recorder = _Recorder()
    calls: list[Call] = []
    open_calls: list[int] = []

    def enter(module: nn.Module, args: Any) -> None:
        open_calls.append(len(recorder.nodes))

    def leave(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, result: Any) -> None:
            start, depth = open_calls.pop(), len(open_calls)
            given = recorder.known(args)
            for tensor in _tensors(result):
                # What the mode can't see into (scripted code) still joins its input and output.
                if given and not recorder.known(tensor):
                    recorder.note(tensor, "opaque", given)
            single = isinstance(result, Tensor)
            end = len(recorder.nodes)
            calls.append(Call(name, depth, start, end, recorder.known(result), single))

        return hook

    with ExitStack() as stack:
        stack.enter_context(preserved(model))
        stack.enter_context(torch.no_grad())
        for name, module in model.named_modules():
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave(name)).remove)
        image = example.as_subclass(Tensor)[:1].clone()
        stack.enter_context(recorder)
        start = recorder.note(image, "input", ())
        returned = model(image)
        logits = pick_logits(returned, image) if output is None else output(returned)
        (end,) = recorder.known(logits) or (start,)
    return Trace(tuple(recorder.nodes), tuple(calls), start, end)
