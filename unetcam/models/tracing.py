"""Watch a model run once: which operation made which tensor, inside which module."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from unetcam.engine.hooks import on_this_thread
from unetcam.engine.layout import Layout
from unetcam.engine.state import preserved
from unetcam.engine.tensors import version_of
from unetcam.models.io import Inputs, bound, copied, first_of, image_of, others_of
from unetcam.models.outputs import OutputMap, output_maps, returned_tensors
from unetcam.models.pixel_tracking import Places, follow, map_places


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
        The place of each of the node's inputs among the tensors that the function is given.
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
        Its place in the order of execution.
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


class _Recorder(TorchFunctionMode):
    """Notes every torch function that touches a tensor which came of the input."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self._dims, self._batch = image.ndim - 2, len(image)
        self._of: MutableMapping[Tensor, int] = WeakTensorKeyDictionary()
        self._places: MutableMapping[Tensor, Places] = WeakTensorKeyDictionary()
        self._counts: Counter[str] = Counter()
        self._runs: Counter[str] = Counter()
        self._open: list[tuple[str, int, Counter[str]]] = []

    def enter(self, module: str) -> None:
        """A module's run begins."""
        self._open.append((module, self._runs[module], self._counts.copy()))
        self._runs[module] += 1

    def leave(self) -> None:
        """The innermost module's run ends."""
        self._open.pop()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        inputs = self.known((args, kwargs))
        versions = {id(tensor): version_of(tensor) for tensor in _tensors((args, kwargs))}
        name = getattr(func, "__name__", str(func))
        site = self._site(name, args, kwargs)
        self._counts[name] += 1
        result = func(*args, **kwargs)
        if inputs:
            # An item assignment returns nothing: it makes its first argument anew.
            made = list(_tensors(args[0] if name == "__setitem__" else result))
            places = follow(
                func, name, args, kwargs, made, self._places.get, self._dims, self._batch
            )
            for tensor, at in zip(made, places, strict=True):
                # An operation that hands its input on untouched (dropout) makes nothing.
                if versions.get(id(tensor), -1) != version_of(tensor):
                    self.note(tensor, name, inputs, at, site)
        return result

    def _site(self, name: str, args: Any, kwargs: Any) -> Site | None:
        if not self._open:
            return None
        module, run, before = self._open[-1]
        given = enumerate(_tensors((args, kwargs)))
        positions = tuple(place for place, tensor in given if tensor in self._of)
        return Site(module, run, self._counts[name] - before[name], positions)

    def note(
        self,
        tensor: Tensor,
        op: str,
        inputs: tuple[int, ...],
        at: Places | None,
        site: Site | None = None,
    ) -> int:
        shape = tuple(tensor.shape)
        grid, layout = (at.grid, at.layout) if at is not None else (None, None)
        node = Node(len(self.nodes), op, inputs, shape, grid, layout, site, self._batch)
        self.nodes.append(node)
        self._of[tensor] = node.index
        if at is not None:
            self._places[tensor] = at
        else:
            self._places.pop(tensor, None)
        return node.index

    def as_map(self, tensor: Tensor) -> Places | None:
        """The places of a tensor of unknown origin: those of a map if it has a map's shape."""
        is_map = tensor.ndim == self._dims + 2 and tensor.shape[0] == self._batch
        return map_places(tensor.shape) if is_map else None

    def layout_of(self, tensor: Tensor) -> Layout | None:
        """How a tensor was seen to hold its map; None where that isn't known."""
        at = self._places.get(tensor)
        return None if at is None else at.layout

    def known(self, values: Any) -> tuple[int, ...]:
        return tuple(self._of[tensor] for tensor in _tensors(values) if tensor in self._of)


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


#: Lists the returned tensors that can be the logits, given how tensors hold their pixels.
FindOutputs = Callable[[Any, Tensor, Callable[[Tensor], "Layout | None"]], list[OutputMap]]


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
    """
    count = len(image_of(example))
    with torch.inference_mode(False):  # a copy made here can be worked on as any tensor
        first = first_of(example)
    try:
        return _recorded(model, first, pick, find_outputs)
    except torch.OutOfMemoryError:
        raise
    except Exception:
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
    calls: list[Call] = []
    open_calls: list[int] = []

    def enter(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, args: Any) -> None:
            recorder.enter(name)
            open_calls.append(len(recorder.nodes))

        return hook

    def leave(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, result: Any) -> None:
            recorder.leave()
            start, depth = open_calls.pop(), len(open_calls)
            sources = recorder.known(args)
            for tensor in _tensors(result):
                # What the mode can't see into (scripted code) still joins its input and output.
                if sources and not recorder.known(tensor):
                    recorder.note(tensor, "opaque", sources, recorder.as_map(tensor))
            single = isinstance(result, Tensor)
            end = len(recorder.nodes)
            calls.append(Call(name, depth, start, end, recorder.known(result), single))

        return hook

    with ExitStack() as stack:
        stack.enter_context(preserved(model))
        stack.enter_context(torch.no_grad())
        for name, module in model.named_modules():
            stack.callback(module.register_forward_pre_hook(on_this_thread(enter(name))).remove)
            stack.callback(module.register_forward_hook(on_this_thread(leave(name))).remove)
        run = bound(model, given)
        stack.enter_context(recorder)
        start, *_ = [
            recorder.note(tensor, "input", (), recorder.as_map(tensor))
            for tensor in (image, *others_of(given))
        ]
        returned = pick(run(image))
        tensors = list(returned_tensors(returned))
        known = [recorder.known(tensor) for tensor in tensors]
        layouts = {id(tensor): recorder.layout_of(tensor) for tensor in tensors}
    with torch.no_grad():
        found = find_outputs(returned, image, lambda tensor: layouts.get(id(tensor)))
    outputs = tuple(
        replace(one, node=known[one.position][0] if known[one.position] else None) for one in found
    )
    return Trace(tuple(recorder.nodes), tuple(calls), start, outputs)
