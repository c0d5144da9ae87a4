"""A softmax or sigmoid at a network's end: told by the trace or by values, and undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from unetcam.engine.function_mode import FunctionMode, function_name, tensors_in
from unetcam.models.outputs import OutputMap
from unetcam.models.tracing import Node

#: What a network's output is: logits, or what a function at its end made of them.
OutputKind = Literal["logits", "softmax", "log_softmax", "sigmoid"]

_KINDS: Mapping[str, OutputKind] = {
    "softmax": "softmax",
    "_softmax": "softmax",
    "log_softmax": "log_softmax",
    "_log_softmax": "log_softmax",
    "sigmoid": "sigmoid",
    "sigmoid_": "sigmoid",
    "expit": "sigmoid",
    "special_expit": "sigmoid",
    "logsigmoid": "sigmoid",
}
#: What moves values without changing or mixing them.
_MOVES = {
    *("view", "reshape", "view_as", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze"),
    *("permute", "transpose", "movedim", "moveaxis", "swapaxes", "contiguous", "clone", "detach"),
    *("to", "type", "type_as", "float", "double", "half", "bfloat16", "cpu", "cuda"),
    *(
        "__getitem__",
        "narrow",
        "select",
        "chunk",
        "split",
        "unbind",
        "tensor_split",
        "index_select",
    ),
    *("cat", "concat", "concatenate", "stack", "hstack", "vstack", "flip", "roll"),
}
#: What gives values within 0 and 1 whatever it is given.
_BOUNDED = {
    *("softmax", "_softmax", "sigmoid", "sigmoid_", "expit", "special_expit", "hardsigmoid"),
    *("__gt__", "__ge__", "__lt__", "__le__", "__eq__", "__ne__", "gt", "ge", "lt", "le", "eq"),
    *("clamp", "clamp_", "clip", "heaviside"),
}


def kind_of(
    output: OutputMap, nodes: Sequence[Node], is_learned: Callable[[Node], bool]
) -> OutputKind:
    """What an output is: by the operation that made it, or else by its values.

    Values within 0 and 1 are probabilities where they sum to 1 over the channels, or where all
    that leads to them after the last learned operation is bounded by a sigmoid, a softmax or a
    comparison; logits that happen to lie there are not.
    """
    if output.node is None:
        return "softmax" if output.sums_to_one else "logits"
    traced = _kind_by_trace(output.node, nodes)
    if traced is not None:
        return traced
    if output.sums_to_one:
        return "softmax"
    if output.bounded and _is_bounded(output.node, nodes, is_learned):
        return "sigmoid"
    return "logits"


def _kind_by_trace(end: int, nodes: Sequence[Node]) -> OutputKind | None:
    kinds: set[OutputKind | None] = set()
    left, seen = [end], set()
    while left:
        at = left.pop()
        if at in seen:
            continue
        seen.add(at)
        node = nodes[at]
        if node.op in _KINDS:
            kinds.add(_KINDS[node.op])
        elif node.op in _MOVES and node.inputs:
            left += node.inputs
        else:
            kinds.add(None)
    return kinds.pop() if len(kinds) == 1 else None


def _is_bounded(end: int, nodes: Sequence[Node], is_learned: Callable[[Node], bool]) -> bool:
    """Whether every route to a node passes a bounded operation behind the last learned one."""
    bounded: dict[int, bool] = {}
    for node in nodes[: end + 1]:
        if node.op in _BOUNDED:
            bounded[node.index] = True
        elif is_learned(node) or not node.inputs:
            bounded[node.index] = False
        else:
            bounded[node.index] = all(bounded[before] for before in node.inputs)
    return bounded[end]


class BeforeActivation(FunctionMode):
    """Keeps, in a forward, what entered each softmax or sigmoid, and moves it along with it.

    Examples
    --------
    >>> x = torch.tensor([[2.0, -1.0]])
    >>> with BeforeActivation() as before:
    ...     y = x.softmax(1)[:, :1]
    >>> before.of(y)
    tensor([[2.]])
    """

    def __init__(self) -> None:
        super().__init__()
        self._entered: MutableMapping[Tensor, Tensor] = WeakTensorKeyDictionary()

    def of(self, tensor: Tensor) -> Tensor | None:
        """What stands for a tensor before its activation; None where there is none."""
        return self._entered.get(tensor)

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        name = function_name(function)
        if name in _KINDS:
            given = next(tensors_in((args, kwargs)))
            # In place the result is the tensor that came.
            given = given.clone() if name.endswith("_") else given
            result = function(*args, **kwargs)
            if isinstance(result, Tensor) and result.shape == given.shape:
                self._entered[result] = given
            return result
        result = function(*args, **kwargs)
        if name in _MOVES:
            tensors = [
                tensor for tensor in tensors_in((args, kwargs)) if tensor.is_floating_point()
            ]
            if tensors and all(tensor in self._entered for tensor in tensors):
                self._move(function, args, kwargs, result)
        return result

    def _move(self, function: Callable[..., Any], args: Any, kwargs: Any, result: Any) -> None:
        def entered(value: Any) -> Any:
            return self._entered.get(value, value) if isinstance(value, Tensor) else value

        moved = function(*tree_map(entered, args), **tree_map(entered, kwargs))
        for one, before in zip(tensors_in(result), tensors_in(moved), strict=True):
            self._entered[one] = before


class WithoutActivation(nn.Module):
    """A network without the softmax or sigmoid at its end: images to logits.

    Parameters
    ----------
    model : nn.Module
    pick : callable
        Picks what counts, (B, C, *spatial), from what the model returned for some images.
    kind : str
        What the model ends in.
    """

    def __init__(
        self, model: nn.Module, pick: Callable[[Any, Tensor], Tensor], kind: OutputKind
    ) -> None:
        super().__init__()
        self.model = model
        self._pick, self._kind = pick, kind

    def forward(self, images: Tensor) -> Tensor:
        with BeforeActivation() as before:
            output = self._pick(self.model(images), images)
            logits = before.of(output)
        return undone_by_value(output, self._kind) if logits is None else logits


def undone_by_value(probabilities: Tensor, kind: OutputKind) -> Tensor:
    """Logits whose softmax or sigmoid the probabilities are, (B, C, *spatial).

    A probability that was rounded to 0 or 1 is taken for the nearest number to it.

    Examples
    --------
    >>> undone_by_value(torch.tensor([[0.5, 1.0]]), "sigmoid").round()
    tensor([[ 0., 17.]])
    """
    finfo = torch.finfo(probabilities.dtype)
    if kind == "softmax":
        return probabilities.clamp_min(finfo.tiny).log()
    odds = probabilities.clamp(finfo.tiny, 1 - finfo.eps / 2)
    return odds.log() - torch.log1p(-odds)


def sentence_of(kind: OutputKind, channels: int) -> str | None:
    """What a person is told of an output that is no logits; None of logits."""
    if kind == "logits":
        return None
    name = {"softmax": "softmax", "log_softmax": "log-softmax", "sigmoid": "sigmoid"}[kind]
    sentence = (
        f"The network ends in a {name}: what is explained are the logits that it is made of, not "
        "the probabilities."
    )
    if kind == "sigmoid" and channels > 1:
        sentence += (
            f" Its {channels} channels are predicted each on its own, so that a pixel can have "
            "several classes or none."
        )
    return sentence
