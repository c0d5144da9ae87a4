"""Watch a model run once: which operation made which tensor, inside which module."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from unetcam.engine.function_mode import FunctionMode, function_name, tensors_in
from unetcam.engine.hooks import on_this_thread
from unetcam.engine.layout import Layout
from unetcam.engine.state import preserved
from unetcam.engine.tensors import version_of
from unetcam.errors import ModelError
from unetcam.models.io import Inputs, bound, copied, first_of, image_of, others_of
from unetcam.models.outputs import OutputMap, output_maps, returned_tensors
from unetcam.models.pixel_tracking import PixelIndices, follow, indices_of_map


@dataclass(frozen=True)
class Site:
    """Where in the model a torch function is called.

    Attributes
    ----------
    module : str
        The name of the innermost module whose forward calls it.
    run : int
        Which of the module's runs that is, from zero.
    count : int
        How many calls of the same function in that run come before.
    positions : tuple of int
        The position of each of the node's inputs among the tensors that the function is given.
    """

    module: str
    run: int
    count: int
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """One tensor that came of the input, and the operation that made it.

    Attributes
    ----------
    index : int
        Its position in the order of execution.
    op : str
        The torch function's name.
    inputs : tuple of int
        The nodes it was made from; a weight is no node.
    shape : tuple of int
    grid : tuple of int, optional
        The spatial size of the map that its elements are of; None where they are of none.
    layout : Layout, optional
        How it holds that map; None while the map is cut into windows or heads.
    site : Site, optional
        Where in the model the operation is called.
    batch : int
        How many images are in the run.
    """

    index: int
    op: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    grid: tuple[int, ...] | None = None
    layout: Layout | None = None
    site: Site | None = None
    batch: int = 1

    @property
    def channels(self) -> int:
        """How many values it holds for each pixel."""
        if self.layout is not None:
            return self.shape[self.layout.axis]
        return math.prod(self.shape) // (self.batch * math.prod(self.grid or (1,)))


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
    """A run of the model.

    Attributes
    ----------
    nodes : tuple of Node
    calls : tuple of Call
        In the order in which they ended.
    image : int
        The node that is the image.
    outputs : tuple of OutputMap
        The returned tensors that can be the logits.
    batch_size : int, optional
        How many images were run, where the model failed on one.
    """

    nodes: tuple[Node, ...]
    calls: tuple[Call, ...]
    image: int
    outputs: tuple[OutputMap, ...]
    batch_size: int | None = None

    @property
    def heads(self) -> tuple[int, ...]:
        """The traced nodes that can be the logits."""
        return tuple(output.node for output in self.outputs if output.node is not None)


class _OpenCall(NamedTuple):
    """A module's run that has not ended: which, from which node on, and the calls before it."""

    name: str
    run: int
    start: int
    counts: Counter[str]


class _Recorder(FunctionMode):
    """Records every torch function that touches a tensor which came of the input."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.calls: list[Call] = []
        self._dims, self._batch = image.ndim - 2, len(image)
        self._of: MutableMapping[Tensor, int] = WeakTensorKeyDictionary()
        self._pixels: MutableMapping[Tensor, PixelIndices] = WeakTensorKeyDictionary()
        self._counts: Counter[str] = Counter()
        self._runs: Counter[str] = Counter()
        self._open: list[_OpenCall] = []

    def enter(self, name: str, module: nn.Module, args: Any) -> None:
        """A module's run begins: its forward pre-hook, given the module's name."""
        self._open.append(_OpenCall(name, self._runs[name], len(self.nodes), self._counts.copy()))
        self._runs[name] += 1

    def leave(self, name: str, module: nn.Module, args: Any, result: Any) -> None:
        """The innermost module's run ends: its forward hook, given the module's name."""
        opened = self._open.pop()
        sources = self.known(args)
        for tensor in tensors_in(result):
            # What the mode can't see into (scripted code) still joins its input and output.
            if sources and not self.known(tensor):
                self.record(tensor, "opaque", sources, self.as_map(tensor))
        single = isinstance(result, Tensor)
        made = self.known(result)
        self.calls.append(Call(name, len(self._open), opened.start, len(self.nodes), made, single))

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        given = list(tensors_in((args, kwargs)))
        inputs = self.known(given)
        versions = {id(tensor): version_of(tensor) for tensor in given}
        name = function_name(function)
        site = self._site(name, given)
        self._counts[name] += 1
        result = function(*args, **kwargs)
        if inputs:
            # An item assignment returns nothing: it makes its first argument anew.
            made = list(tensors_in(args[0] if name == "__setitem__" else result))
            followed = follow(
                function, name, args, kwargs, made, self._pixels.get, self._dims, self._batch
            )
            for tensor, at in zip(made, followed, strict=True):
                # An operation that hands its input on untouched (dropout) makes nothing.
                if versions.get(id(tensor), -1) != version_of(tensor):
                    self.record(tensor, name, inputs, at, site)
        return result

    def _site(self, name: str, given: Sequence[Tensor]) -> Site | None:
        if not self._open:
            return None
        inside = self._open[-1]
        positions = tuple(i for i, tensor in enumerate(given) if tensor in self._of)
        return Site(inside.name, inside.run, self._counts[name] - inside.counts[name], positions)

    def record(
        self,
        tensor: Tensor,
        op: str,
        inputs: tuple[int, ...],
        at: PixelIndices | None,
        site: Site | None = None,
    ) -> int:
        shape = tuple(tensor.shape)
        grid, layout = (at.grid, at.layout) if at is not None else (None, None)
        node = Node(len(self.nodes), op, inputs, shape, grid, layout, site, self._batch)
        self.nodes.append(node)
        self._of[tensor] = node.index
        if at is not None:
            self._pixels[tensor] = at
        else:
            self._pixels.pop(tensor, None)
        return node.index

    def as_map(self, tensor: Tensor) -> PixelIndices | None:
        """The indices of a tensor of unknown origin: those of a map if it has a map's shape."""
        is_map = tensor.ndim == self._dims + 2 and tensor.shape[0] == self._batch
        return indices_of_map(tensor.shape) if is_map else None

    def layout_of(self, tensor: Tensor) -> Layout | None:
        """How a tensor was seen to hold its map; None where that isn't known."""
        at = self._pixels.get(tensor)
        return None if at is None else at.layout

    def known(self, values: Any) -> tuple[int, ...]:
        return tuple(self._of[tensor] for tensor in tensors_in(values) if tensor in self._of)


#: Lists the returned tensors that can be the logits, given how tensors hold their pixels.
FindOutputs = Callable[[Any, Tensor, Callable[[Tensor], "Layout | None"]], list[OutputMap]]


class ForwardError(Exception):
    """The model's own forward failed, with what it raised as the cause."""


def trace(
    model: nn.Module,
    example: Inputs,
    pick: Callable[[Any], Any] = lambda returned: returned,
    find_outputs: FindOutputs = output_maps,
) -> Trace:
    """Run `model` once on the first image of `example` and record what happens.

    A model that fails on one image, as those that are made for one size of batch, is run on all.

    Parameters
    ----------
    model : nn.Module
        Left as found.
    example : Tensor, tuple or dict
        (B, C, *spatial) on the model's device, or several inputs with such a tensor in them.
    pick : callable, optional
        Takes what counts of what the model returned.
    find_outputs : callable, optional
        Lists, of what was picked for the image, the tensors that can be the logits.

    Returns
    -------
    Trace

    Raises
    ------
    ForwardError
        For images that the model does not take; what it raised is the cause.
    """
    count = len(image_of(example))
    with torch.inference_mode(False):  # a copy made here can be worked on as any tensor
        first = first_of(example)
    try:
        return _recorded(model, first, pick, find_outputs)
    except (ForwardError, ModelError):
        if count == 1:
            raise
        with torch.inference_mode(False):
            whole = copied(example)
        return replace(_recorded(model, whole, pick, find_outputs), batch_size=count)


def _recorded(
    model: nn.Module, given: Inputs, pick: Callable[[Any], Any], find_outputs: FindOutputs
) -> Trace:
    image = image_of(given)
    recorder = _Recorder(image)
    with ExitStack() as stack:
        stack.enter_context(preserved(model))
        stack.enter_context(torch.no_grad())
        for name, module in model.named_modules():
            enter = on_this_thread(partial(recorder.enter, name))
            leave = on_this_thread(partial(recorder.leave, name))
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        run = bound(model, given)
        stack.enter_context(recorder)
        start, *_ = [
            recorder.record(tensor, "input", (), recorder.as_map(tensor))
            for tensor in (image, *others_of(given))
        ]
        try:
            returned = pick(run(image))
        except (ModelError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the network's own code, whatever it raises
            raise ForwardError from error
        tensors = list(returned_tensors(returned))
        known = [recorder.known(tensor) for tensor in tensors]
        layouts = {id(tensor): recorder.layout_of(tensor) for tensor in tensors}
    with torch.no_grad():
        maps = find_outputs(returned, image, lambda tensor: layouts.get(id(tensor)))
    outputs = tuple(
        replace(one, node=known[one.position][0] if known[one.position] else None) for one in maps
    )
    return Trace(tuple(recorder.nodes), tuple(recorder.calls), start, outputs)
