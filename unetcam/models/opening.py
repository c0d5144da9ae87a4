"""From what a person writes as MODEL to a loaded model: built, moved to its device, looked at."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unetcam.errors import ModelError, RunError
from unetcam.models.loaded_model import LoadedModel
from unetcam.models.loading import has_random_weights, load_with_remarks
from unetcam.models.supported import check_supported, first_convolution

#: The sizes at which a network is looked at where no other is given, by spatial dimensions.
EXAMPLE_SIZES = {2: (256, 256), 3: (64, 64, 64)}


def load(
    model: str | Path | nn.Module | LoadedModel,
    *,
    checkpoint: str | Path | None = None,
    model_args: Mapping[str, Any] | None = None,
    key: str | None = None,
    allow_pickle: bool = False,
    partial: bool = False,
    device: str | torch.device = "auto",
    channels: int | None = None,
    size: Sequence[int] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    must_be_trained: bool = True,
) -> LoadedModel:
    """A network with its weights on its device, looked at once.

    Parameters
    ----------
    model : str, Path, nn.Module or LoadedModel
        A folder, ``package.module:factory``, ``file.py:factory`` or ``smp:Unet``; see
        :func:`~unetcam.models.loading.load_model`. A module that is in memory is taken as it is,
        on the device where it is, and in the mode in which it is. A loaded model is itself.
    checkpoint : str or Path, optional
        The weights.
    model_args : Mapping, optional
        Keyword arguments for the factory.
    key : str, optional
        Where the weights are nested in the checkpoint, or the prefix of their names.
    allow_pickle : bool
        Let a checkpoint run code while it is read.
    partial : bool
        Load the weights that fit, and leave the others as the factory made them.
    device : str or torch.device
        ``"auto"`` takes a GPU where there is one.
    channels : int, optional
        Channels of the images; those that the first convolution takes by default.
    size : sequence of int, optional
        The spatial size at which the network is looked at: 256 x 256, or 64 x 64 x 64, by
        default.
    seed : int
        For a network whose construction draws.
    batch_size : int, optional
        How many images a network takes that takes one number of them alone.
    must_be_trained : bool
        Whether a network that is known to hold random weights is refused.

    Returns
    -------
    LoadedModel
        Its `remarks` say what a person should know of the weights; each is a warning as well.

    Raises
    ------
    ModelError
        When the network can't be built or run, or the weights don't fit it.
    RunError
        For a device that this machine does not have, and a size of another dimension.

    Examples
    --------
    >>> loaded = load("smp:Unet", model_args={"encoder_name": "resnet18", "in_channels": 1},
    ...               size=(64, 64), device="cpu", must_be_trained=False)
    >>> loaded.channels, loaded.classes, loaded.stride
    (1, 2, 32)
    """
    if isinstance(model, LoadedModel):
        return model
    if channels is not None and channels < 1:
        raise RunError(f"{channels} channels hold no image: use 1 or more.", option="channels")
    remarks: tuple[str, ...] = ()
    if isinstance(model, nn.Module):
        module = model
    else:
        chosen = choose_device(device) if isinstance(device, str) else device
        torch.manual_seed(seed)
        module, remarks = load_with_remarks(
            str(model),
            checkpoint=None if checkpoint is None else Path(checkpoint),
            model_args=model_args,
            allow_pickle=allow_pickle,
            key=key,
            partial=partial,
        )
        for remark in remarks:
            warnings.warn(remark, stacklevel=2)
        if must_be_trained and checkpoint is None and has_random_weights(str(model)):
            raise ModelError(
                f"{model} without checkpoint= has random weights, which explain nothing: give "
                "the weights with checkpoint=FILE.",
                option="checkpoint",
            )
        check_supported(module)
        module.to(chosen)
    loaded = LoadedModel.of(module)
    loaded.remarks = remarks
    count = batch_size or 1
    loaded.look(blank_images(loaded, channels=channels, size=size, count=count))
    return loaded


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" takes a GPU where there is one.

    Raises
    ------
    RunError
        For a device that this machine does not have.

    Examples
    --------
    >>> choose_device("cpu")
    device(type='cpu')
    >>> choose_device("tpu")
    Traceback (most recent call last):
        ...
    unetcam.errors.RunError: There is no device 'tpu': use auto, cpu, cuda or cuda:0.
    """
    kind, _, number = name.partition(":")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (number and not number.isdecimal()) or name.endswith(":"):
        raise RunError(
            f"There is no device '{name}': use auto, cpu, cuda or cuda:0.", option="device"
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        raise RunError(
            f"Device '{name}' is not there, as PyTorch sees {count} CUDA devices on this machine: "
            "use device='auto' or 'cpu'.",
            option="device",
        )
    return torch.device("cuda", int(number or 0))


def blank_images(
    model: LoadedModel,
    *,
    channels: int | None = None,
    size: Sequence[int] | None = None,
    count: int = 1,
) -> Tensor:
    """Empty images (count, C, *spatial) of the type and the channels that a network takes.

    Raises
    ------
    RunError
        For a size of another number of dimensions than the network's images have.
    """
    dims = spatial_dims(model.module)
    if size is not None and len(size) != dims:
        raise RunError(
            f"The network takes {'volumes' if dims == 3 else 'images'}, and a size of "
            f"{_by(size)} was given: use {dims} numbers, as in {_by((96,) * dims)}.",
            option="size",
        )
    shape = (count, channels or input_channels(model.module), *(size or EXAMPLE_SIZES[dims]))
    return torch.zeros(shape, device=model.device, dtype=model.dtype)


def spatial_dims(model: nn.Module) -> int:
    """2 for a network of images and 3 for one of volumes, told by its first convolution.

    Examples
    --------
    >>> spatial_dims(nn.Sequential(nn.Conv3d(1, 8, 3), nn.Conv3d(8, 2, 1)))
    3
    """
    return 3 if isinstance(first_convolution(model), nn.Conv3d) else 2


def input_channels(model: nn.Module) -> int:
    """Channels of a network's input, read from its first convolution.

    Raises
    ------
    ModelError
        For a network without a convolution.

    Examples
    --------
    >>> input_channels(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)))
    3
    """
    first = first_convolution(model)
    if first is None:
        raise ModelError(
            "The network has no convolution that tells how many channels its images have: say so "
            "with channels=.",
            option="channels",
        )
    return first.in_channels


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
