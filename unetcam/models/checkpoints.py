"""Read trained weights from a file and fit them into a network."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Collection, Iterator, KeysView, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unetcam.errors import ModelError, first_few, reason

_KEYS: Final = ("state_dict", "model_state_dict", "model_state", "model", "net", "network")
"""Names that training scripts nest the weights under, the commonest first."""

_PREFIXES: Final = ("module.", "model.", "net.", "network.")
"""What DataParallel, Lightning and hand-written wrappers put before every name."""

_DEPTH: Final = 3


def load_checkpoint(
    model: nn.Module, path: Path, *, allow_pickle: bool = False, key: str | None = None
) -> None:
    """Load a checkpoint's weights into a network, every one of them or none.

    The weights may be nested (under ``state_dict``, ``model``, ...; of several nested ones, the
    one that fits best is taken) and may carry a ``module.``, ``model.``, ``net.`` or
    ``_orig_mod.`` prefix. Where a prefix is taken off, entries without it that the network does
    not have (a loss's weights, a metric's state) are left out.

    Parameters
    ----------
    model
        The network; its parameters and buffers are overwritten in place.
    path
        A ``.safetensors`` file, or one that ``torch.save`` wrote (``.pt``, ``.pth``, ``.ckpt``).
    allow_pickle
        Let a file run code while it is read, which a pickled network needs.
    key
        Where the weights are nested, as ``"model"`` or ``"ema.model"``.

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
    >>> torch.equal(fresh.weight, trained.weight)
    True
    """
    content = read_checkpoint(path, allow_pickle=allow_pickle)
    names = model.state_dict(keep_vars=True)
    fits = [_fit(found, names.keys()) for found in _candidates(content, path, key)]
    if not fits:
        raise ModelError(
            f"{path} holds no weights (no tensors under names were found in it); "
            "save model.state_dict() and give that file."
        )
    best = _best(fits, path)
    weights = _with_tied(best.weights, names)
    try:
        # smp renames what its older encoders were saved as in its own load_state_dict, so the
        # network decides whether the names are right; our comparison only words the refusal.
        model.load_state_dict(dict(weights), strict=True)
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(_misfit(path, weights, names, error)) from error


def read_checkpoint(path: Path, *, allow_pickle: bool = False) -> Any:
    """Read what a checkpoint file holds, on the CPU.

    Parameters
    ----------
    path
        The file; everything but ``.safetensors`` is read as what ``torch.save`` writes.
    allow_pickle
        Fall back on unpickling any Python object, which can run code, where the file needs it.

    Raises
    ------
    ModelError
        When the file is missing, damaged, TorchScript, or needs ``allow_pickle``.
    """
    if not path.is_file():
        raise ModelError(f"There is no checkpoint file {path}; check the path.")
    if path.suffix.lower() == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from error
    if _is_torchscript(path):
        raise ModelError(
            f"{path} is a TorchScript archive, whose layers can't be explained; "
            "save the Python network's state_dict() and give that file."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        unsafe = re.search(r"(?:GLOBAL|class|global)\s+`?([\w.]+)`?", str(error))
        if unsafe is None:
            raise _unreadable(path, error) from error
        if not allow_pickle:
            raise ModelError(
                f"{path} holds more than tensors ({unsafe[1]}), and reading it could run code; "
                "save model.state_dict() alone, or, if you trust the file, pass --allow-pickle."
            ) from error
    except Exception as error:
        raise _unreadable(path, error) from error
    return _unpickle(path)


def _unpickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except (AttributeError, ImportError) as error:
        raise ModelError(
            f"{path} was pickled with code that can't be found here ({error}); "
            "start in the folder that holds the code, or save model.state_dict() instead."
        ) from error
    except Exception as error:
        raise _unreadable(path, error) from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _unreadable(path: Path, error: BaseException) -> ModelError:
    return ModelError(
        f"{path} can't be read as a checkpoint ({reason(error)}); it may be damaged or of another "
        "kind, so give a .safetensors file or one that torch.save wrote."
    )


class _Found(NamedTuple):
    """Weights found in a checkpoint and the key that they are nested under."""

    key: str
    weights: Mapping[str, Any]


class _Fit(NamedTuple):
    """Weights under the names that match the network's best, and how many do."""

    key: str
    weights: Mapping[str, Any]
    matching: int


def _candidates(content: Any, path: Path, key: str | None) -> list[_Found]:
    """List the state dicts in a checkpoint, or the one under ``key``."""
    if key is None:
        return list(_nested(content, "", _DEPTH))
    for part in [key] if isinstance(content, Mapping) and key in content else key.split("."):
        if not isinstance(content, Mapping) or part not in content:
            there = [str(name) for name in content] if isinstance(content, Mapping) else []
            raise ModelError(
                f"{path} has no key {key!r}; it holds {first_few(there) if there else 'no keys'}."
            )
        content = content[part]
    return list(_nested(content, key, 0))


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


def _fit(found: _Found, names: KeysView[str]) -> _Fit:
    """Take off the prefixes that hide the network's names; the fewest that match the most."""
    best = _Fit(found.key, found.weights, len(names & found.weights.keys()))
    plain = {name.replace("_orig_mod.", ""): value for name, value in found.weights.items()}
    for prefix in _prefixes(plain.keys()):
        inside = {n.removeprefix(prefix): t for n, t in plain.items() if n.startswith(prefix)}
        outside = {n: t for n, t in plain.items() if n in names and n not in inside}
        renamed = outside | inside
        matching = len(names & renamed.keys())
        if matching > best.matching:
            best = _Fit(found.key, renamed, matching)
    return best


def _prefixes(names: Collection[str], prefix: str = "", depth: int = 3) -> Iterator[str]:
    """Every chain of wrapper prefixes that some names begin with, each after its own start."""
    yield prefix
    if depth:
        for wrapper in _PREFIXES:
            if any(name.startswith(prefix + wrapper) for name in names):
                yield from _prefixes(names, prefix + wrapper, depth - 1)


def _best(fits: Sequence[_Fit], path: Path) -> _Fit:
    """Choose among nested weights; the network's names decide, then the customary key."""
    most = max(fit.matching for fit in fits)
    if not most:
        return max(fits, key=lambda fit: len(fit.weights))
    best = [fit for fit in fits if fit.matching == most]
    if len(best) == 1:
        return best[0]
    for customary in ("", *_KEYS):
        for fit in best:
            if fit.key == customary:
                return fit
    raise ModelError(
        f"{path} holds several sets of weights that fit the network "
        f"({first_few([fit.key for fit in best])}); name one with --key."
    )


def _with_tied(weights: Mapping[str, Any], names: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give every name of a tied tensor its value: safetensors stores a shared tensor once."""
    stored = {id(names[name]): value for name, value in weights.items() if name in names}
    tied = {name: stored[id(tensor)] for name, tensor in names.items() if id(tensor) in stored}
    return {**tied, **weights}


def _misfit(
    path: Path, weights: Mapping[str, Any], names: Mapping[str, Any], error: Exception
) -> str:
    missing = [name for name in names if name not in weights]
    unexpected = [name for name in weights if name not in names]
    reshaped = [
        f"{name} {tuple(tensor.shape)} in the file, {tuple(names[name].shape)} in the network"
        for name, tensor in weights.items()
        if isinstance(tensor, Tensor) and name in names and tensor.shape != names[name].shape
    ]
    parts = [
        f"{what} {len(listed)} ({first_few(listed)})"
        for listed, what in (
            (missing, "missing keys:"),
            (unexpected, "unexpected keys:"),
            (reshaped, "keys of another shape:"),
        )
        if listed
    ]
    why = ", ".join(parts) if parts else reason(error)
    return (
        f"The checkpoint {path} does not fit the network ({why}); "
        "check that MODEL and --model-args are those it was trained with."
    )
