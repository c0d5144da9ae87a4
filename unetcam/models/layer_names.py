"""What a layer's name stands for: a module, one of its runs, or what enters a stage."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from unetcam.engine.request import TapPoint
from unetcam.errors import LayerError, nearest
from unetcam.models.layers import LayerTable
from unetcam.models.look import Look
from unetcam.models.tracing import Call, Trace

_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Address:
    """A layer's name, taken apart.

    Attributes
    ----------
    name : str
        As it was given.
    module : str
        The module's name in the network.
    run : int, optional
        Which of the module's runs, from zero: 1 for ``"conv#2"``.
    part : str, optional
        ``"skip"`` for ``"up3:skip"``.
    """

    name: str
    module: str
    run: int | None = None
    part: str | None = None


def addresses(model: nn.Module, layers: Iterable[str | nn.Module]) -> tuple[Address, ...]:
    """The layers that are meant, in the given order.

    Parameters
    ----------
    model : nn.Module
        Taken out of its wrappers.
    layers : sequence of str or nn.Module

    Raises
    ------
    LayerError
        For a name or module that the model doesn't have; the message names the nearest.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    >>> addresses(model, ["1", model[0], "1#2"])[2]
    Address(name='1#2', module='1', run=1, part=None)
    """
    modules = {name: module for name, module in model.named_modules() if name}
    names = {id(module): name for name, module in modules.items()}
    if isinstance(layers, (str, nn.Module)):
        layers = [layers]
    if not isinstance(layers, Iterable):
        raise LayerError(
            f"layers={layers!r} is no layer: give names or modules of the model, or None for the "
            "decoder's (find_layers lists them).",
            option="layers",
        )
    layers = list(layers)
    if not layers:
        raise LayerError("layers=[] leaves nothing to explain: name a layer, or pass None.")
    by_name: dict[str, Address] = {}
    for layer in layers:
        name = layer if isinstance(layer, str) else names.get(id(layer))
        if name is None:
            what = "The module " if isinstance(layer, nn.Module) else "A "
            raise LayerError(
                f"{what}{type(layer).__name__} given as a layer is no part of the model: "
                "pass one of model.modules(), or its name."
            )
        address = _parsed(name, modules)
        if address is None:
            near = nearest(name, modules, count=3, cutoff=0.5)
            listed = " or ".join(f"'{candidate}'" for candidate in near)
            hint = f"did you mean {listed}?" if near else "find_layers lists the layers."
            raise LayerError(f"The model has no layer '{name}': {hint}")
        by_name[address.name] = address
    return tuple(by_name.values())


def _parsed(name: str, modules: dict[str, nn.Module]) -> Address | None:
    if name in modules:
        return Address(name, name)
    for wrapper in _WRAPPERS:
        if name.startswith(wrapper):
            return _parsed(name.removeprefix(wrapper), modules)
    matched = re.fullmatch(r"(.+?)(?:#([1-9]\d*))?(?::([a-z]+\d*))?", name)
    if matched is None or matched[1] not in modules:
        return None
    return Address(name, matched[1], int(matched[2]) - 1 if matched[2] else None, matched[3])


def tap_points(model: nn.Module, wanted: Sequence[Address], look: Look) -> dict[str, TapPoint]:
    """Where each of some layers is tapped, by its name.

    Parameters
    ----------
    model : nn.Module
    wanted : sequence of Address
    look : Look
        What a traced run of the model showed.

    Raises
    ------
    LayerError
        For a run or a part that a layer doesn't have, and for tokens whose pixels can't be told.
    """
    return {
        address.name: _entering(model, address, look.table)
        if address.part
        else _given(model, address, look.calls.get(address.module, []), look.run)
        for address in wanted
    }


def _entering(model: nn.Module, address: Address, table: LayerTable) -> TapPoint:
    part = table.parts.get(address.name)
    if part is None:
        layer = address.name.removesuffix(f":{address.part}")
        there = [name for name in table.parts if name.startswith(f"{layer}:")]
        listed = " or ".join(f"'{name}'" for name in there)
        hint = f"it has {listed}." if there else "no skip was seen to join there."
        raise LayerError(f"The layer '{layer}' has no part '{address.part}': {hint}")
    module = model.get_submodule(part.module)
    layout = None if part.layout.is_map else part.layout
    return TapPoint(module, part.run, layout, part.entry)


def _given(model: nn.Module, address: Address, runs: Sequence[Call], run: Trace) -> TapPoint:
    point = TapPoint(model.get_submodule(address.module), address.run)
    which = address.run or 0
    if address.run is not None and which >= len(runs):
        raise LayerError(
            f"The layer '{address.module}' ran {len(runs)} times in the forward, so there is no "
            f"'{address.name}': name one of its runs, counted from 1."
        )
    if which >= len(runs) or not runs[which].single or not runs[which].outputs:
        return point  # what is wrong, if anything is, shows when it is tapped
    node = run.nodes[runs[which].outputs[0]]
    is_map = node.layout is None or node.layout.is_map
    if node.layout is None and node.grid is not None and len(node.shape) > 2:
        raise LayerError(
            f"The layer '{address.name}' gives a tensor of shape {node.shape} for one image, in "
            "which the pixels are not in the order of a map: choose a layer before or behind it, "
            "where it is put together again (find_layers lists them)."
        )
    return point if is_map else replace(point, layout=node.layout)
