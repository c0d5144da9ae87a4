"""From what a person writes as MODEL to a network that is ready to be explained."""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from torch import nn

from unetcam.errors import ModelError
from unetcam.models.checkpoint_files import read_checkpoint
from unetcam.models.checkpoints import load_checkpoint
from unetcam.models.factories import (
    SMP_PREFIX,
    build_from_code,
    build_from_folder,
    build_smp,
    importable,
    nearest_smp,
)
from unetcam.models.supported import unwrapped

_CHECKPOINT_SUFFIXES: Final = (".safetensors", ".pt", ".pth", ".ckpt", ".pt2", ".bin", ".onnx")


def has_random_weights(spec: str) -> bool:
    """Whether a network is known to hold random weights until a checkpoint is loaded into it.

    >>> has_random_weights("smp:Unet"), has_random_weights("net.py:build")
    (True, False)
    """
    return spec.lower().startswith(SMP_PREFIX)


def load_model(
    spec: str,
    *,
    checkpoint: Path | None = None,
    model_args: Mapping[str, Any] | None = None,
    allow_pickle: bool = False,
    key: str | None = None,
    partial: bool = False,
) -> nn.Module:
    """Build a network and load its weights, from local files only.

    What a person should know of the weights, as which of several sets was taken, is a warning.

    Parameters
    ----------
    spec
        One of

        - a folder that segmentation-models-pytorch's ``save_pretrained`` wrote;
        - ``package.module:factory`` or ``path/to/file.py:factory``, where the factory is an
          ``nn.Module`` class or a function that returns a module (a trained one needs no
          checkpoint);
        - ``smp:Unet`` or a sibling of it, in any case; without a checkpoint its weights are
          random, for encoder weights are never downloaded;
        - with ``allow_pickle``, a file that ``torch.save(model, path)`` wrote.
    checkpoint
        The weights, as ``.safetensors`` or as ``torch.save`` wrote them; of a pickled network
        (``allow_pickle``) the weights are taken. For a folder, in place of the folder's own.
    model_args
        Keyword arguments for the factory or the class, or in place of those in a folder.
    allow_pickle
        Let a checkpoint run code while it is read. Otherwise it is read with
        ``torch.load(weights_only=True)``.
    key
        Where the weights are nested in the checkpoint, or the prefix of their names; found
        unaided where it is not ambiguous.
    partial
        Load the weights that fit, and leave the others as the factory made them.

    Returns
    -------
    nn.Module
        On the CPU, in eval mode, taken out of a ``DataParallel`` or ``torch.compile`` wrapper.

    Raises
    ------
    ModelError
        When the network can't be built or the weights don't fit it.

    Examples
    --------
    >>> model = load_model("smp:Unet", model_args={"encoder_name": "resnet18", "in_channels": 1})
    >>> model.training
    False
    >>> load_model("smp:Unett")
    Traceback (most recent call last):
        ...
    unetcam.errors.ModelError: segmentation-models-pytorch has no network 'Unett'; did you mean
    smp:Unet?
    """
    model, remarks = load_with_remarks(
        spec,
        checkpoint=checkpoint,
        model_args=model_args,
        allow_pickle=allow_pickle,
        key=key,
        partial=partial,
    )
    for remark in remarks:
        warnings.warn(remark, stacklevel=2)
    return model


def load_with_remarks(
    spec: str,
    *,
    checkpoint: Path | None = None,
    model_args: Mapping[str, Any] | None = None,
    allow_pickle: bool = False,
    key: str | None = None,
    partial: bool = False,
) -> tuple[nn.Module, tuple[str, ...]]:
    """What :func:`load_model` gives, and what a person should know of the weights.

    Raises
    ------
    ModelError
        When the network can't be built or the weights don't fit it.
    """
    arguments = dict(model_args or {})
    path = Path(spec)
    weights = checkpoint
    if spec and _is_folder(path):
        model, own_weights = build_from_folder(path, arguments)
        weights = checkpoint or own_weights
    elif has_random_weights(spec):
        name = spec[len(SMP_PREFIX) :]
        if checkpoint is None and arguments.get("encoder_weights") is not None:
            raise ModelError(
                f"encoder_weights={arguments['encoder_weights']!r} would download weights, which "
                "is never done: leave it out and give the trained weights with checkpoint=.",
                option="checkpoint",
            )
        model = build_smp(name, arguments)
    elif path.suffix.lower() in _CHECKPOINT_SUFFIXES:
        model = _pickled_module(path, arguments, allow_pickle=allow_pickle)
    elif all(spec.rpartition(":")):
        model = build_from_code(spec, arguments)
    else:
        raise ModelError(_unknown(spec))
    model = unwrapped(model)
    remarks: tuple[str, ...] = ()
    if weights is not None:
        with importable(_code_folder(spec)):
            remarks = load_checkpoint(
                model, Path(weights), allow_pickle=allow_pickle, key=key, partial=partial
            )
    elif partial or key is not None:
        raise ModelError(
            "There is no checkpoint whose weights could be chosen: give checkpoint=, or leave out "
            "partial= and key=.",
            option=("checkpoint", "partial", "key"),
        )
    return model.cpu().eval(), remarks


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no folder can have
        return False


def parse_model_args(arguments: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` arguments, each value as a Python literal or else as YAML.

    Parameters
    ----------
    arguments
        Such as ``["classes=4", "encoder_name=resnet18", "decoder_channels=[64, 32]"]``.

    Returns
    -------
    dict
        Keyword arguments for the factory.

    Raises
    ------
    ModelError
        When an argument has no ``=``, its key is no Python name or comes twice, or its value
        can't be read.

    Examples
    --------
    >>> parse_model_args(["classes=4", "encoder_name=resnet18", "activation=None", "rate=1e-3"])
    {'classes': 4, 'encoder_name': 'resnet18', 'activation': None, 'rate': 0.001}
    >>> parse_model_args(["bilinear=true", "decoder_channels=[64, 32]"])
    {'bilinear': True, 'decoder_channels': [64, 32]}
    """
    parsed: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise ModelError(
                f"The model argument {argument!r} is not name=value; write it as classes=4."
            )
        if name in parsed:
            raise ModelError(f"The model argument {name!r} is given twice; leave one out.")
        parsed[name] = _value(name, text.strip())
        if isinstance(parsed[name], float) and not math.isfinite(parsed[name]):
            raise ModelError(f"The model argument {argument!r} is no finite number; give one.")
    return parsed


def _code_folder(spec: str) -> Path:
    """Where the classes that a pickled checkpoint needs are looked for."""
    where = Path(spec.rpartition(":")[0])
    return where.parent if where.suffix == ".py" else Path.cwd()


def _value(name: str, text: str) -> Any:
    # YAML alone reads None and 1e-3, which people write out of habit, as strings.
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ModelError(
            f"The value {text!r} of the model argument {name!r} can't be read; write a number, "
            "a word, true, null, or a list such as [64, 32]."
        ) from error


def _pickled_module(path: Path, model_args: Mapping[str, Any], *, allow_pickle: bool) -> nn.Module:
    with importable(Path.cwd()):
        content = read_checkpoint(path, allow_pickle=allow_pickle)
    if not isinstance(content, nn.Module):
        raise ModelError(
            f"{path} holds weights and no network: name the network that they belong to as the "
            "model (smp:Unet, or path/to/file.py:factory), and give the file with checkpoint=.",
            option="checkpoint",
        )
    if model_args:
        raise ModelError(
            f"{path} is a network that is already built: leave out model_args=.",
            option="model_args",
        )
    return content


def _unknown(spec: str) -> str:
    near = nearest_smp(spec) if spec.isidentifier() else None
    if near is not None:
        return f"{spec!r} names no network; did you mean {near}?"
    if spec.endswith(".py"):
        return f"{spec} does not say what builds the network; write {spec}:factory."
    return (
        f"There is no folder {spec!r}, and it names no network otherwise; give a save_pretrained "
        "folder, package.module:factory, path/to/file.py:factory, or smp:Unet."
    )
