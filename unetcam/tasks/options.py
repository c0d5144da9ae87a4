"""What a Python call may say: network and data in memory or by name, and a spec's options."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from torch import nn

from unetcam.errors import ModelError
from unetcam.models import LoadedModel
from unetcam.runs import Spec

F = TypeVar("F", bound=Callable[..., Any])

#: Fields of a spec that a run finds out, or that a call has an argument of its own for.
_NOT_OPTIONS = (
    "model",
    "images",
    "masks",
    "manifest",
    "strides",
    "by_type",
    "stride",
    "dims",
    "model_digest",
    "data_digest",
    "samples",
)


def shows_options(function: F) -> F:
    """Let a function's signature show a spec's options in the place of ``**options``.

    Examples
    --------
    >>> @shows_options
    ... def task(model, **options):
    ...     return options
    >>> [name for name in inspect.signature(task).parameters][:4]
    ['model', 'model_args', 'checkpoint', 'key']
    """
    plain = inspect.signature(function)
    own = [one for one in plain.parameters.values() if one.kind is not one.VAR_KEYWORD]
    taken = {*_NOT_OPTIONS, *(one.name for one in own)}
    further = [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if one.default is MISSING else one.default,
            annotation=one.type,
        )
        for one in fields(Spec)
        if one.name not in taken
    ]
    names = [one.name for one in further]
    ignored = inspect.Parameter(
        "ignore_index", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="int | None"
    )
    further.insert(names.index("classes") + 1, ignored)
    function.__signature__ = plain.replace(parameters=[*own, *further])  # type: ignore[attr-defined]
    return function


def named(model: Any) -> tuple[str, nn.Module | LoadedModel | None]:
    """A model's name for the run, and the network itself where it lies in memory.

    Examples
    --------
    >>> named("smp:Unet")
    ('smp:Unet', None)
    >>> named(nn.Conv2d(1, 2, 3))
    ('torch.nn.modules.conv.Conv2d', Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1)))
    """
    if isinstance(model, (str, os.PathLike)):
        return os.fspath(model), None
    if isinstance(model, (nn.Module, LoadedModel)):
        kind = type(model.module if isinstance(model, LoadedModel) else model)
        return f"{kind.__module__}.{kind.__qualname__}", model
    raise ModelError(
        f"A {type(model).__name__} is no network: give a torch.nn.Module, a folder, "
        "file.py:factory or smp:Unet."
    )


def located(data: Any) -> tuple[dict[str, Any], Any]:
    """Where the data lies, as a spec's fields, and the data itself where it lies in memory.

    Examples
    --------
    >>> located(("images", "masks"))
    ({'images': 'images', 'masks': 'masks'}, None)
    >>> located("list.csv")
    ({'manifest': 'list.csv'}, None)
    """
    if isinstance(data, (str, os.PathLike)):
        return {"manifest": os.fspath(data)}, None
    if isinstance(data, (tuple, list)) and len(data) == 2:
        first, second = data
        if isinstance(first, (str, os.PathLike)) and isinstance(second, (str, os.PathLike)):
            return {"images": os.fspath(first), "masks": os.fspath(second)}, None
    return {}, data
