"""Which of the weights under names in a file are a network's, whatever stands before the names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor
from torch.nn.parameter import is_lazy

_WRAPPERS: Final = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
)
"""Parts of a name that DataParallel, torch.compile, FSDP and checkpointing put in anywhere."""

COUNTERS: Final = ("total_ops", "total_params", "num_batches_tracked", "n_averaged")
"""Last parts of names under which thop, batch normalisation and averages count: no weights."""

_MOST_PREFIXES: Final = 16


@dataclass(frozen=True)
class Fit:
    """Weights of a file under the network's names.

    Attributes
    ----------
    key : str
        Where they lie in the file: the keys that they are nested under, then the prefix of their
        names.
    weights : Mapping
        Tensors under the network's names; further ones that were under the same prefix.
    left_out : tuple of str
        Names beside the prefix, which are no part of it.
    counters : tuple of str
        Names of counters that the network does not have.
    fitting : int
        How many of the network's names have a tensor of the right shape.
    named : int
        How many have a tensor at all.
    complete : bool
        Whether all have one of the right shape, counters apart.
    """

    key: str
    weights: Mapping[str, Any]
    left_out: tuple[str, ...]
    counters: tuple[str, ...]
    fitting: int
    named: int
    complete: bool


def is_counter(name: str) -> bool:
    """Whether what a name stands for counts and weighs nothing.

    >>> is_counter("enc.total_ops"), is_counter("enc.weight")
    (True, False)
    """
    return name.rpartition(".")[2] in COUNTERS


def fits(key: str, stored: Mapping[str, Any], names: Mapping[str, Any]) -> list[Fit]:
    """What of the weights under names is a network's, by every prefix that some names begin with.

    Parameters
    ----------
    key : str
        Where the weights are nested in the file.
    stored : Mapping
        Tensors under the names of the file.
    names : Mapping
        The network's state dict, of its own tensors.

    Returns
    -------
    list of Fit
        The best first: the one that gives the most of the network's names a tensor of the right
        shape; of equal ones that of the shortest prefix.

    Examples
    --------
    >>> import torch
    >>> names = torch.nn.Conv2d(1, 2, 3).state_dict()
    >>> file = {"student.weight": names["weight"], "student.bias": names["bias"],
    ...         "loss.weight": torch.ones(2)}
    >>> best, *_ = fits("model", file, names)
    >>> best.key, sorted(best.weights), best.left_out, best.complete
    ('model.student', ['bias', 'weight'], ('loss.weight',), True)
    """
    own = _comparable(names)
    stored = _comparable_values(stored)
    best = _by_prefixes(key, stored, names, own)
    root = _common_root(own)
    if root and not best[0].complete:
        # The file holds what the network holds in one part of it: names lack what is before.
        inner = {name.removeprefix(root): whole for name, whole in own.items()}
        best = [*best, *_by_prefixes(key, stored, names, inner)]
    return sorted(best, key=lambda fit: (-fit.fitting, -fit.named))


def _by_prefixes(
    key: str, stored: Mapping[str, Any], names: Mapping[str, Any], own: Mapping[str, str]
) -> list[Fit]:
    return [_fit(key, prefix, stored, names, own) for prefix in _prefixes(stored, own)]


def _prefixes(stored: Iterable[str], own: Mapping[str, str]) -> list[str]:
    """What stands before the network's names in the file, the shortest first; "" is one."""
    counts: Counter[str] = Counter()
    for name in stored:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in own:
                counts["".join(f"{part}." for part in parts[:start])] += 1
    likely = [prefix for prefix, _ in counts.most_common(_MOST_PREFIXES)]
    return sorted({"", *likely}, key=lambda prefix: (len(prefix), prefix))


def _fit(
    key: str,
    prefix: str,
    stored: Mapping[str, Any],
    names: Mapping[str, Any],
    own: Mapping[str, str],
) -> Fit:
    inside = {n.removeprefix(prefix): t for n, t in stored.items() if n.startswith(prefix)}
    # Only a part of the network may have been wrapped: the other names are its own already.
    beside = {
        n: t for n, t in stored.items() if n in own and n not in inside and not n.startswith(prefix)
    }
    weights = _with_tied({own.get(n, n): t for n, t in {**beside, **inside}.items()}, names)
    fitting = {n for n, t in weights.items() if n in names and has_shape(names[n], t)}
    complete = all(n in fitting or is_counter(n) for n in names)
    # A network that renames what it loads may know a counter by another name.
    counters = [n for n in weights if complete and is_counter(n) and n not in names]
    return Fit(
        key=".".join(part for part in (key, prefix.rstrip(".")) if part),
        weights={n: t for n, t in weights.items() if n not in set(counters)},
        left_out=tuple(n for n in stored if not n.startswith(prefix) and n not in beside),
        counters=tuple(counters),
        fitting=len(fitting),
        named=sum(n in names for n in weights),
        complete=complete,
    )


def has_shape(own: Any, given: Any) -> bool:
    """Whether a value of a file can be copied into the network's tensor.

    >>> import torch
    >>> has_shape(torch.ones(2, 3), torch.ones(3, 2))
    False
    """
    if not (isinstance(own, Tensor) and isinstance(given, Tensor)) or is_lazy(own):
        return True
    return own.shape == given.shape


def _comparable(names: Iterable[str]) -> dict[str, str]:
    """The network's names by what is left of them without wrappers, unless two would be one."""
    names = list(names)
    bare = {_bare(name): name for name in names}
    return bare if len(bare) == len(names) else {name: name for name in names}


def _comparable_values(stored: Mapping[str, Any]) -> dict[str, Any]:
    bare = {_bare(name): value for name, value in stored.items()}
    return bare if len(bare) == len(stored) else dict(stored)


def _bare(name: str) -> str:
    kept = [part for part in name.split(".") if part not in _WRAPPERS]
    return ".".join(kept) or name


def _common_root(names: Iterable[str]) -> str:
    """The parts that all names begin with, as ``model.net.``."""
    split = [name.split(".")[:-1] for name in names]
    if not split:
        return ""
    root: list[str] = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        root.append(parts[0])
    return "".join(f"{part}." for part in root)


def _with_tied(weights: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """Give every name of a tied tensor its value: safetensors stores a shared tensor once."""
    stored = {id(names[name]): value for name, value in weights.items() if name in names}
    tied = {name: stored[id(tensor)] for name, tensor in names.items() if id(tensor) in stored}
    return {**tied, **weights}
