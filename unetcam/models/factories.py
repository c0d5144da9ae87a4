"""Build the network that a person names: by a factory in code, by smp class, or by folder."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from torch import nn

from unetcam.errors import ModelError, UnetcamError, is_own_bug, nearest, reason, suggestion

SMP_PREFIX: Final = "smp:"

_SMP_DEPRECATED: Final = {"decoder_use_batchnorm", "psp_use_batchnorm"}
"""Arguments of older networks that smp still understands."""

_FOLDER_WEIGHTS: Final = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let code in a folder be imported while the block runs, as ``python`` started there would."""
    entry = os.fspath(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        # The code itself may have changed the path; only our own entry is ours to take away.
        if entry in sys.path:
            sys.path.remove(entry)


def build_from_code(spec: str, model_args: Mapping[str, Any]) -> nn.Module:
    """Call the factory that ``package.module:factory`` or ``path/to/file.py:factory`` names.

    Parameters
    ----------
    spec
        Where the factory is: a function or an ``nn.Module`` class, or a module that is already
        built. Modules are found as if Python had been started in the current folder, and a
        file's neighbours as if it had been started with that file.
    model_args
        Keyword arguments for the factory.

    Raises
    ------
    ModelError
        When the module, the file or the name in it can't be found or imported, the arguments
        don't fit, the factory fails, or what it returns is no ``nn.Module``.

    Examples
    --------
    >>> build_from_code("torch.nn:Conv2d", {"in_channels": 1, "out_channels": 2, "kernel_size": 3})
    Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))
    """
    where, _, name = spec.rpartition(":")
    is_file = where.endswith(".py")
    with importable(Path(where).parent if is_file else Path.cwd()):
        module = _import_file(Path(where)) if is_file else _import_module(where)
        factory = _attribute(module, name, where)
        if isinstance(factory, nn.Module):
            if model_args:
                raise ModelError(
                    f"{spec} is a network that is already built, so model_args= can't change it: "
                    "leave them out, or name the class or function that builds it.",
                    option="model_args",
                )
            return factory
        if not callable(factory):
            raise ModelError(
                f"{spec} is of type {type(factory).__name__}, which can't be called; "
                "name a function or class that returns a torch.nn.Module."
            )
        return _call(factory, spec, model_args)


def build_smp(name: str, model_args: Mapping[str, Any]) -> nn.Module:
    """Build a segmentation-models-pytorch network by the name of its class, any case.

    Nothing is downloaded: ``encoder_weights`` is None.

    Parameters
    ----------
    name
        ``"Unet"``, ``"unetplusplus"``, ...
    model_args
        Keyword arguments for the class, such as ``encoder_name`` and ``classes``.

    Raises
    ------
    ModelError
        When there is no such class, or it does not take the arguments.

    Examples
    --------
    >>> model = build_smp("unet", {"encoder_name": "resnet18", "classes": 3})
    >>> type(model).__name__, model.segmentation_head[0].out_channels
    ('Unet', 3)
    """
    architectures = _smp_architectures()
    architecture = architectures.get(name.lower())
    if architecture is None:
        raise ModelError(
            f"segmentation-models-pytorch has no network {name!r}; "
            + suggestion(name, (found.__name__ for found in architectures.values()), SMP_PREFIX)
        )
    spec = SMP_PREFIX + architecture.__name__
    _check_smp_arguments(architecture, spec, model_args)
    return _call(architecture, spec, {**model_args, "encoder_weights": None})


def build_from_folder(folder: Path, model_args: Mapping[str, Any]) -> tuple[nn.Module, Path]:
    """Build the network that a ``save_pretrained`` folder describes, without its weights.

    Parameters
    ----------
    folder
        A folder with ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``, or the
        index of several such files.
    model_args
        Keyword arguments that replace those in the folder, such as ``activation``.

    Returns
    -------
    tuple
        The network and the file that holds its weights.

    Raises
    ------
    ModelError
        When the folder is not one that segmentation-models-pytorch wrote.
    """
    remedy = "give a folder that segmentation-models-pytorch's save_pretrained wrote."
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        architecture = config["_model_class"]
    except OSError as error:
        raise ModelError(f"The folder {folder} has no readable config.json; {remedy}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{path} does not describe a network; {remedy}") from error
    weights = next((folder / name for name in _FOLDER_WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise ModelError(f"The folder {folder} has no model.safetensors; {remedy}")
    settings = {name: value for name, value in config.items() if not name.startswith("_")}
    return build_smp(str(architecture), {**settings, **model_args}), weights


def nearest_smp(name: str) -> str | None:
    """Give the ``smp:`` spelling of a bare name that is, or nearly is, one of smp's networks."""
    names = (found.__name__ for found in _smp_architectures().values())
    near = nearest(name, names, cutoff=0.8)
    return SMP_PREFIX + near[0] if near else None


def _check_smp_arguments(
    architecture: type[nn.Module], spec: str, model_args: Mapping[str, Any]
) -> None:
    """Refuse what smp itself would take in silence or answer with a list of every encoder."""
    from segmentation_models_pytorch.encoders import get_encoder_names

    encoder = str(model_args.get("encoder_name", ""))
    if encoder.startswith(("tu-", "timm-")):
        return  # timm's encoders take arguments of their own
    if encoder and encoder not in get_encoder_names():
        raise ModelError(
            f"segmentation-models-pytorch has no encoder {encoder!r}; "
            + suggestion(encoder, get_encoder_names())
        )
    known = set(inspect.signature(architecture).parameters) | _SMP_DEPRECATED
    unknown = sorted(set(model_args) - known)
    if unknown:
        raise ModelError(
            f"{spec} takes no argument {unknown[0]!r}; "
            + suggestion(unknown[0], known - _SMP_DEPRECATED - {"kwargs"})
        )


def _smp_architectures() -> dict[str, type[nn.Module]]:
    # Imported late: it takes seconds, and brings every timm encoder with it.
    import segmentation_models_pytorch as smp

    return {
        name.lower(): value
        for name, value in vars(smp).items()
        if isinstance(value, type) and issubclass(value, smp.base.SegmentationModel)
    }


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise ModelError(
                f"There is no Python module {name!r} (no {error.name!r} was found); start in the "
                "folder that holds it, or name the file instead: path/to/file.py:factory."
            ) from error
        raise _import_failure(name, error) from error
    except Exception as error:
        raise _import_failure(name, error) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ModelError(f"There is no Python file {path}; check the path before the colon.")
    # A name of its own, so that a file called torch.py or model.py hides no installed module.
    name = f"unetcam_model_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path} can't be imported as Python; give a file that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _import_failure(str(path), error) from error
    return module


def _import_failure(what: str, error: Exception) -> ModelError:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return ModelError(
            f"{what} needs the module {error.name!r}, which is not installed here; install it "
            "in this environment."
        )
    return ModelError(
        f"{what} can't be imported ({reason(error)}); import it in Python to see where it fails."
    )


def _attribute(module: ModuleType, name: str, where: str) -> Any:
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            public = [found for found in vars(value) if not found.startswith("_")]
            callables = [found for found in public if callable(getattr(value, found))]
            raise ModelError(
                f"{where} has no {name!r}; " + suggestion(part, callables, f"{where}:")
            )
        value = getattr(value, part)
    return value


def _call(factory: Callable[..., Any], spec: str, model_args: Mapping[str, Any]) -> nn.Module:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some compiled callables tell nobody their arguments
        signature = None
    if signature is not None:
        try:
            signature.bind(**model_args)
        except TypeError as error:
            raise ModelError(
                f"{spec} can't be called with these arguments ({reason(error)}); it takes "
                f"{', '.join(signature.parameters) or 'none'}: give them with model_args=.",
                option="model_args",
            ) from error
    try:
        model = factory(**model_args)
    except UnetcamError:
        raise
    except Exception as error:  # somebody else's code
        if is_own_bug(error):
            raise
        raise ModelError(
            f"{spec} failed while it built the network ({reason(error)}): check model_args= and "
            "the factory.",
            option="model_args",
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"{spec} returned a {type(model).__name__}; it must return a torch.nn.Module."
        )
    return model
