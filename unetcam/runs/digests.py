"""Digests: what a network computes, and what its images and masks hold."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value in its canonical form (sorted keys, no spaces).

    >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def data_digest(entries: Sequence[tuple[str, Sequence[str]]]) -> str:
    """SHA-256 of the images' ids and the digests of each one's files, in order.

    >>> data_digest([("a", ["1", "2"])]) == data_digest([("a", ["1"]), ("", ["2"])])
    False
    """
    return digest_of([[name, list(digests)] for name, digests in entries])


def model_digest(model: nn.Module) -> str:
    """SHA-256 of what a network computes: its structure, weights, buffers and its class's source.

    Parameters
    ----------
    model : nn.Module
        On any device; it is read and left as it was.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> first = nn.Linear(2, 1)
    >>> twin = nn.Linear(2, 1)
    >>> _ = twin.load_state_dict(first.state_dict())
    >>> model_digest(first) == model_digest(twin)
    True
    """
    digest = hashlib.sha256()
    kind = type(model)
    structure = re.sub(r"0x[0-9a-fA-F]+", "", repr(model))  # addresses differ between processes
    digest.update(f"{kind.__module__}.{kind.__qualname__}\n{structure}\n".encode())
    digest.update(_source(kind))
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}\n".encode())
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().contiguous()
            digest.update(f"{value.dtype} {tuple(value.shape)}\n".encode())
            # reshape: a view as bytes needs at least one axis
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()


def _source(kind: type) -> bytes:
    try:
        path = inspect.getsourcefile(kind)
        return b"" if path is None else Path(path).read_bytes()
    except (TypeError, OSError):
        return b""
