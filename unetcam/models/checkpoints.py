"""Read trained weights from a file and fit them into a network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from unetcam.errors import ModelError, brief, first_few, reason
from unetcam.models.checkpoint_files import read_checkpoint
from unetcam.models.weight_names import Fit, fits, has_shape, is_counter

_KEYS: Final = ("state_dict", "model_state_dict", "model_state", "model", "net", "network")
"""Names that training scripts nest the weights under or put before them, the commonest first."""

_DEPTH: Final = 3
_SHARD: Final = re.compile(r"-0*(\d+)-of-0*(\d+)\.")
_LISTED: Final = 12


def load_checkpoint(
    model: nn.Module,
    path: Path,
    *,
    allow_pickle: bool = False,
    key: str | None = None,
    partial: bool = False,
) -> tuple[str, ...]:
    """Load a checkpoint's weights into a network, every one of them, or what there is.

    The weights may be nested (under ``state_dict``, ``model``, ...) and any one prefix may stand
    before all their names (``module.``, ``net.unet.``, ``student.``). Names beside that prefix (a
    loss's weights, a teacher's) are left out. Of several sets that fit the network, the one under
    a customary name (``state_dict``, ``model``, ``net``, ...) is taken; without such a name
    `key` has to say which. The counters of thop and of batch normalisation are no weights.

    Parameters
    ----------
    model
        The network; its parameters and buffers are overwritten in place.
    path
        A ``.safetensors`` file, one that ``torch.save`` wrote (``.pt``, ``.pth``, ``.ckpt``), or
        the ``.index.json`` of a model in several files.
    allow_pickle
        Let a file run code while it is read, which a pickled network needs.
    key
        Where the weights are nested, or the prefix of their names, as ``"model"``,
        ``"ema.model"`` or ``"student"``.
    partial
        Load what fits, and leave the network's other weights as they are.

    Returns
    -------
    tuple of str
        What a person should know: which part of the file was taken, and what stayed as it was.

    Raises
    ------
    ModelError
        When the file is missing or unreadable, would run code, holds no weights, or its names
        or shapes are not the network's.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import torch
    >>> trained, fresh = torch.nn.Conv2d(1, 2, 3), torch.nn.Conv2d(1, 2, 3)
    >>> path = Path(tempfile.mkdtemp()) / "best.pt"
    >>> torch.save({"epoch": 9, "model": {f"module.{n}": t for n, t in
    ...             trained.state_dict().items()}}, path)
    >>> load_checkpoint(fresh, path)
    ()
    >>> torch.equal(fresh.weight, trained.weight)
    True
    """
    content = read_checkpoint(path, allow_pickle=allow_pickle)
    names = model.state_dict(keep_vars=True)
    found = _candidates(content, path, key)
    if not found:
        raise ModelError(
            f"{path} holds no weights (there are no tensors under names in it): save "
            "model.state_dict() and give that file."
        )
    # Of each set of weights only what is as good as its best can be meant.
    listed = [fits(one.key, one.weights, names) for one in found]
    best, others = _choose([one for some in listed for one in some], path)
    remarks = list(_of_choice(best, others, path))
    # smp renames what its older encoders were saved as in its own load_state_dict, so the network
    # decides whether the names are right; our comparison only words the refusal.
    weights = dict(best.weights)
    if best.complete:
        weights |= {n: t for n, t in names.items() if is_counter(n) and n not in weights}
    _require_values(path, weights, names)
    if partial:
        remarks += _load_what_fits(model, path, weights, names)
    else:
        try:
            model.load_state_dict(weights, strict=True)
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(
                _misfit(path, best.weights, names, error),
                option=("model_args", "partial", "checkpoint"),
            ) from error
    return tuple(remarks)


def _require_values(path: Path, weights: Mapping[str, Any], names: Mapping[str, Any]) -> None:
    """Refuse tensors that torch would not copy as they are meant, or would round in silence."""
    odd: dict[str, list[str]] = {}
    for name, tensor in weights.items():
        own = names.get(name)
        if isinstance(tensor, Tensor) and isinstance(own, Tensor):
            kind = _oddity(tensor, own)
            if kind is not None:
                odd.setdefault(kind, []).append(name)
    for kind, listed in odd.items():
        raise ModelError(
            f"{len(listed)} of the weights in {path} are {kind} ({first_few(listed)}): save the "
            "network's floating-point weights and give that file.",
            option="checkpoint",
        )


def _oddity(given: Tensor, own: Tensor) -> str | None:
    """What keeps a tensor from standing for a network's own; None where nothing does."""
    if given.is_meta:
        return "placeholders on the meta device, which hold no values"
    if given.is_quantized:
        return "quantised"
    if given.layout != torch.strided:
        return "sparse"
    if given.is_complex() and not own.is_complex():
        return "complex numbers, and the network's are real"
    if own.is_floating_point() and not given.is_floating_point():
        return (
            f"whole numbers ({str(given.dtype).removeprefix('torch.')}), as of a quantised network"
        )
    return None


class _Found(NamedTuple):
    """Weights found in a checkpoint and the key that they are nested under."""

    key: str
    weights: Mapping[str, Any]


def _candidates(content: Any, path: Path, key: str | None) -> list[_Found]:
    """List the state dicts in a checkpoint, or the one under ``key``."""
    everything = list(_nested(content, "", _DEPTH))
    if key is None:
        return everything
    here = content
    for part in [key] if isinstance(content, Mapping) and key in content else key.split("."):
        if not isinstance(here, Mapping) or part not in here:
            break
        here = here[part]
    else:
        return list(_nested(here, key, 0))
    behind = [one for one in (_behind(found, key) for found in everything) if one.weights]
    if behind:
        return behind
    there = [str(name) for name in content] if isinstance(content, Mapping) else []
    raise ModelError(
        f"{path} has no key {key!r}; it holds {first_few(there) if there else 'no keys'}: give "
        "one of them with key=.",
        option="key",
    )


def _behind(found: _Found, key: str) -> _Found:
    """The weights whose names begin with a key, without it."""
    prefixes = [key + "."]
    if found.key and key.startswith(found.key + "."):
        prefixes.append(key.removeprefix(found.key + ".") + ".")
    inside = {
        name.removeprefix(prefix): value
        for prefix in prefixes
        for name, value in found.weights.items()
        if name.startswith(prefix)
    }
    return _Found(key, inside)


def _nested(content: Any, key: str, depth: int) -> Iterator[_Found]:
    if isinstance(content, nn.Module):
        content = content.state_dict()
    if not isinstance(content, Mapping):
        return
    # Other entries beside the tensors are common: an epoch, a list of mask values.
    weights = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and (isinstance(value, Tensor) or name.endswith("_extra_state"))
    }
    if weights:
        yield _Found(key, weights)
    if depth:
        for name, value in content.items():
            if isinstance(name, str):
                yield from _nested(value, f"{key}.{name}".lstrip("."), depth - 1)


def _choose(options: Sequence[Fit], path: Path) -> tuple[Fit, list[Fit]]:
    """The weights that are meant, and others that fit as well; a customary name decides."""
    complete = [fit for fit in options if fit.complete]
    most = max((fit.fitting, fit.named) for fit in options)
    best = complete or [fit for fit in options if (fit.fitting, fit.named) == most]
    if most == (0, 0):
        return max(options, key=lambda fit: len(fit.weights)), []
    different: list[Fit] = []
    for fit in best:
        if not any(_alike(fit.weights, other.weights) for other in different):
            different.append(fit)
    if len(different) == 1:
        return different[0], []
    ranked = sorted(different, key=_rank)
    if not complete:  # the network refuses what it is given, or knows the names better
        return ranked[0], []
    if _rank(ranked[0])[0] > len(_KEYS) or _rank(ranked[0]) == _rank(ranked[1]):
        names = [fit.key for fit in different]
        raise ModelError(
            f"{path} holds several sets of weights that fit the network ({first_few(names)}): "
            f"name one, as in key='{brief(names[0])}'.",
            option="key",
        )
    return _without(ranked[0], ranked[1:]), ranked[1:]


def _rank(fit: Fit) -> tuple[int, int]:
    """How customary the last key is, and how deep it lies; the lowest is meant."""
    last = fit.key.rpartition(".")[2]
    customary = ("", *_KEYS)
    place = customary.index(last) if last in customary else len(customary)
    return place, fit.key.count(".")


def _without(fit: Fit, others: Sequence[Fit]) -> Fit:
    """The weights without those of other sets that lie beside them under a prefix of their own."""
    inner = tuple(
        other.key.removeprefix(fit.key).lstrip(".") + "."
        for other in others
        if other.key.startswith(f"{fit.key}." if fit.key else "")
    )
    kept = {name: value for name, value in fit.weights.items() if not name.startswith(inner)}
    return replace(fit, weights=kept) if inner else fit


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    def equal(first: Any, second: Any) -> bool:
        if first is second:
            return True
        tensors = isinstance(first, Tensor) and isinstance(second, Tensor)
        return tensors and first.dtype == second.dtype and torch.equal(first, second)

    return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)


def _of_choice(best: Fit, others: Sequence[Fit], path: Path) -> Iterator[str]:
    """Which part of a file was taken where it held more."""
    where = f"under '{brief(best.key)}'" if best.key else "without a prefix"
    if others:
        names = first_few([fit.key for fit in others])
        yield (
            f"{path.name} holds several sets of weights that fit the network: those "
            f"{where} were taken; key= names another ({names})."
        )
    elif best.left_out and best.named:
        parts = list(dict.fromkeys(name.partition(".")[0] for name in best.left_out))
        yield (
            f"Of {path.name} the weights {where} were taken, and {len(best.left_out)} "
            f"others left out (those of {first_few(parts)})."
        )
    if best.counters:
        kinds = sorted({name.rpartition(".")[2] for name in best.counters})
        yield (
            f"{len(best.counters)} counters in {path.name} are no weights and were left out "
            f"({', '.join(kinds)}; thop, batch normalisation and averages keep such)."
        )


def _load_what_fits(
    model: nn.Module, path: Path, weights: Mapping[str, Any], names: Mapping[str, Any]
) -> list[str]:
    fitting = {n: t for n, t in weights.items() if n not in names or has_shape(names[n], t)}
    try:
        outcome = model.load_state_dict(dict(fitting), strict=False)
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"The weights in {path} can't be put into the network ({reason(error)}): check that "
            "they belong to it."
        ) from error
    missing = [name for name in outcome.missing_keys if name in names]
    if all(name in missing or is_counter(name) for name in names):
        raise ModelError(
            f"Nothing in {path} fits the network, not even with partial=True: check that "
            "checkpoint= and model_args= belong together.",
            option=("partial", "checkpoint", "model_args"),
        )
    remarks = []
    weighty, harmless = _by_weight(missing, names)
    if weighty:
        remarks.append(
            f"{len(weighty)} of the network's weights are not in {path.name} and stay as they "
            f"were before: {_shares(weighty, names, _LISTED)}."
        )
    if harmless:
        remarks.append(f"{_harmless(harmless)} are not in {path.name} and stay as they were.")
    further = [name for name in outcome.unexpected_keys if not is_counter(name)]
    if further:
        remarks.append(
            f"{len(further)} weights of {path.name} are none of the network's and were left out "
            f"({first_few(further)})."
        )
    return remarks


def _by_weight(missing: Sequence[str], names: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The missing names, the largest tensors first, and apart from them what weighs nothing.

    Whole numbers in a network are counters and positions, which it makes itself.
    """
    weighty = [name for name in missing if _is_weight(name, names[name])]
    harmless = [name for name in missing if name not in set(weighty)]
    return sorted(weighty, key=lambda name: -_numel(names[name])), harmless


def _is_weight(name: str, tensor: Any) -> bool:
    whole = isinstance(tensor, Tensor) and not (tensor.is_floating_point() or tensor.is_complex())
    return not whole and not is_counter(name)


def _numel(tensor: Any) -> int:
    return 0 if not isinstance(tensor, Tensor) or is_lazy(tensor) else tensor.numel()


def _shares(listed: Sequence[str], names: Mapping[str, Any], most: int = 3) -> str:
    total = sum(_numel(tensor) for tensor in names.values()) or 1
    shown = [f"{name} with {100 * _numel(names[name]) / total:.3g} %" for name in listed[:most]]
    if shown:
        shown[0] += " of all values"
    return ", ".join(shown) + (", ..." if len(listed) > most else "")


def _harmless(listed: Sequence[str]) -> str:
    kinds = sorted({name.rpartition(".")[2] for name in listed})
    return f"{len(listed)} counters or positions ({first_few(kinds)})"


def _misfit(
    path: Path, weights: Mapping[str, Any], names: Mapping[str, Any], error: Exception
) -> str:
    missing, harmless = _by_weight([name for name in names if name not in weights], names)
    unexpected = [name for name in weights if name not in names and not is_counter(name)]
    reshaped = [
        f"{name} {tuple(tensor.shape)} in the file, {tuple(names[name].shape)} in the network"
        for name, tensor in weights.items()
        if isinstance(tensor, Tensor) and name in names and not has_shape(names[name], tensor)
    ]
    parts = [
        f"{what} {len(listed)} ({shown})"
        for listed, what, shown in (
            (missing, "missing keys:", _shares(missing, names)),
            (unexpected, "unexpected keys:", first_few(unexpected)),
            (reshaped, "keys of another shape:", first_few(reshaped)),
        )
        if listed
    ]
    if parts and harmless:
        parts.append(f"beside {_harmless(harmless)} that are missing and do no harm")
    why = ", ".join(parts) if parts else reason(error)
    shard = _SHARD.search(path.name)
    if shard is not None and missing:
        return (
            f"The checkpoint {path} is part {shard[1]} of {shard[2]} of a model in several files: "
            "give the .index.json that lists them with checkpoint=."
        )
    return (
        f"The checkpoint {path} does not fit the network ({why}): check that the network and "
        "model_args= are those it was trained with, or load what fits with partial=True."
    )
