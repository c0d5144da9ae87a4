"""From what a person asks for to a run that can start: load, look, check, and say what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from unetcam import methods
from unetcam.cam import UNetCAM
from unetcam.data import (
    ClassTable,
    Item,
    Preprocessing,
    Sample,
    Skipped,
    Source,
    open_source,
    require_any,
)
from unetcam.errors import LayerError, ModelError, RunError
from unetcam.methods import Method
from unetcam.models import LoadedModel, load
from unetcam.models.opening import (
    EXAMPLE_SIZES,
    blank_images,
    choose_device,
    input_channels,
    spatial_dims,
)
from unetcam.runs.digests import data_digest, model_digest
from unetcam.runs.option_values import tiles_of
from unetcam.runs.spec import Spec
from unetcam.targets import ClassScore

#: Why an image without a ground truth is left out of a report.
NO_MASK = "No mask is named for it, and a report needs one: add it, or leave it out."


@dataclass(frozen=True)
class Plan:
    """A run that can start.

    Attributes
    ----------
    network : LoadedModel
    source : Source
        The images and masks.
    spec : Spec
        A settled one.
    """

    network: LoadedModel
    source: Source
    spec: Spec

    @property
    def samples(self) -> list[Sample]:
        """The images, in the order of the run."""
        return self.source.samples

    @property
    def skipped(self) -> list[Skipped]:
        """What could not be used, known before anything is read."""
        return self.source.skipped

    def dataset(self, positions: Sequence[int] | None = None) -> Dataset[Item | Skipped]:
        """What reads the samples, or those at some positions."""
        return self.source.dataset(self.spec.preprocessing, positions)


def open_network(
    spec: Spec,
    model: nn.Module | LoadedModel | None = None,
    *,
    source: Source | None = None,
    must_be_trained: bool = True,
) -> LoadedModel:
    """Load a network, move it to its device, and look at it once.

    Parameters
    ----------
    spec : Spec
    model : nn.Module or LoadedModel, optional
        A network in memory, which stays on its device; by default the one that the spec names.
    source : Source, optional
        Images in memory, whose size the network is looked at in where the spec has none.
    must_be_trained : bool
        Whether a network that is known to hold random weights is refused.

    Raises
    ------
    UnetcamError
        One sentence: what is wrong with the network, the checkpoint or the device.
    """
    if isinstance(model, LoadedModel):
        _check_own_device(spec, model.device)
        return model
    if model is None:
        return load(
            spec.model,
            checkpoint=spec.checkpoint,
            model_args=spec.model_args,
            key=spec.key,
            allow_pickle=spec.allow_pickle,
            partial=spec.partial,
            device=spec.device,
            channels=spec.channels,
            size=spec.size,
            seed=spec.seed,
            batch_size=spec.batch_size,
            must_be_trained=must_be_trained,
        )
    loaded = LoadedModel.of(model)
    _check_own_device(spec, loaded.device)
    channels = spec.channels or input_channels(loaded.module)
    size = spec.size or _size_in(source, channels, spatial_dims(loaded.module))
    with evaluated(loaded.module):
        loaded.look(blank_images(loaded, channels=channels, size=size, count=spec.batch_size or 1))
    return loaded


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Put a network into eval mode, and each module back into its own mode afterwards.

    Examples
    --------
    >>> network = nn.Sequential(nn.Dropout())
    >>> with evaluated(network):
    ...     network[0].training
    False
    >>> network[0].training
    True
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _check_own_device(spec: Spec, device: torch.device) -> None:
    """A network in memory is nobody's to move but its owner's."""
    for name in ("checkpoint", "model_args", "key", "allow_pickle", "partial"):
        if getattr(spec, name):
            raise RunError(
                f"A network in memory is explained as it is: leave out {name}=, or name the "
                "network by its code.",
                option=name,
            )
    if spec.device != "auto" and choose_device(spec.device) != device:
        raise RunError(
            f"The network lies on {device}, and device='{spec.device}' was given: move it there "
            f"first with model.to('{spec.device}').",
            option="device",
        )


def choose_layers(
    network: LoadedModel, names: Sequence[str] | None, method: Method
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The layers to explain and their strides: the named ones, or what suits the method.

    Raises
    ------
    LayerError
        For an unknown layer, or if no decoder layer was found.
    """
    chosen = method.suitable(network.table.decoder) if names is None else tuple(names)
    if not chosen:
        raise LayerError(
            "No decoder layer was found in the network: name the layers with layers= "
            "(`unetcam layers` lists what there is).",
            option="layers",
        )
    if len(set(chosen)) < len(chosen):
        raise LayerError(f"A layer is named twice in {', '.join(chosen)}: name each once.")
    UNetCAM(network, list(chosen))  # an unknown name is an error here, not in the loop
    known = network.table.strides
    missing = [name for name in chosen if name not in known]
    return chosen, tuple({**known, **_measured_strides(network, missing)}[name] for name in chosen)


def _measured_strides(network: LoadedModel, layers: Sequence[str]) -> dict[str, int]:
    if not layers:
        return {}
    size = EXAMPLE_SIZES[network.dims]
    count = network.batch_size or 1
    example = blank_images(network, channels=network.channels, size=size, count=count)
    maps = UNetCAM(network, list(layers))(example, [ClassScore(0)]).maps
    return {name: max(1, round(size[-2] / m.shape[-2])) for name, m in maps.items()}


def check_class_count(network: LoadedModel, classes: ClassTable) -> None:
    """Raise a :class:`~unetcam.errors.ModelError` unless network and table agree."""
    if network.classes != len(classes.names):
        raise ModelError(
            f"The network gives {network.classes} classes, but classes= names "
            f"{len(classes.names)} ({', '.join(classes.names)}): name every class, the background "
            "as well, in the order of the network's channels.",
            option="classes",
        )


def prepare(spec: Spec, model: nn.Module | LoadedModel | None = None, data: Any = None) -> Plan:
    """Find the data, load the network, and settle everything that determines the result.

    Parameters
    ----------
    spec : Spec
        What was asked for.
    model : nn.Module or LoadedModel, optional
        A network in memory, by default the one that the spec names; in eval mode.
    data : object, optional
        Images and masks, see :func:`unetcam.data.open_source`; by default those that the spec
        names.

    Raises
    ------
    UnetcamError
        One sentence: the first thing that is wrong, before anything is written.
    """
    methods.get(spec.method).check()
    if model is None:
        choose_device(spec.device)
    if data is None:
        data = _data_of(spec)
    else:
        _check_memory_options(spec)
    source = _with_masks(open_source(data, classes=spec.classes, **spec.data_options))
    network = open_network(spec, model, source=source)
    if network.dims == 3:
        source = source.volumes(spec.orientation or "RAS")
        require_any(source.samples, source.skipped)
    if spec.limit is not None:
        source = source.subset(range(min(spec.limit, len(source.samples))))
    settled = settle(spec, network, source).settled(
        model_digest=model_digest(network.module),
        data_digest=data_digest(source.digest_entries()),
        samples=len(source.samples),
    )
    return Plan(network, source, settled)


def settle(spec: Spec, network: LoadedModel, source: Source | None = None) -> Spec:
    """The spec with what network and data decide: layers, classes, channels, tiles, scaling.

    Raises
    ------
    UnetcamError
        For layers or classes that the network does not have, and tiles that do not fit it.
    """
    classes = spec.classes if source is None else source.classes or spec.classes
    if classes is None:
        classes = ClassTable(tuple(f"class {i}" for i in range(network.classes)))
    check_class_count(network, classes)
    if spec.axes is not None and network.dims == 2:
        raise RunError(
            "axes= names the axes of volumes, and the network takes images: leave it out.",
            option="axes",
        )
    tile, overlap = tiles_of(spec.tile, spec.overlap, network.dims, network.stride) or (None, None)
    layers, strides = choose_layers(network, spec.layers, methods.get(spec.method))
    settled = spec.settled(
        device=network.device.type,
        channels=network.channels,
        classes=classes,
        orientation=spec.orientation if network.dims == 3 else None,
        layers=layers,
        strides=strides,
        batch_size=_batch_size(spec.batch_size, network, tile),
        tile=tile,
        overlap=overlap,
        stride=network.stride,
        dims=network.dims,
        # None is a softmax, as in runs of versions that knew no other head.
        head=spec.head or ("sigmoid" if network.head == "sigmoid" else None),
    )
    prepared = settled.preprocessing
    return settled.prepared_by(prepared if source is None else source.settled(prepared))


def _data_of(spec: Spec) -> Any:
    if spec.manifest is not None and spec.images is None and spec.masks is None:
        return spec.manifest
    if spec.manifest is not None:
        raise RunError(
            "A manifest names images and masks: leave out images= and masks=, or manifest=.",
            option=("images", "masks", "manifest"),
        )
    if spec.images is None or spec.masks is None:
        raise RunError(
            "It is not said where the data lies: give images= and masks=, or manifest=.",
            option=("images", "masks", "manifest"),
        )
    return spec.images, spec.masks


#: What a person may say of files, and not of images that are prepared already.
_OF_FILES = (
    "size",
    "resize_mode",
    "mean",
    "std",
    "max_value",
    "normalise",
    "mask_suffix",
    "pair",
    "max_pixels",
    "exif",
    "instances",
    "bands",
    "stretch",
    "axes",
)


def _check_memory_options(spec: Spec) -> None:
    plain = Spec()
    for name in _OF_FILES:
        if getattr(spec, name) != getattr(plain, name):
            raise RunError(
                f"Images in memory are taken as they are, prepared for the network: leave out "
                f"{name}=, or name the files.",
                option=name,
            )


def _with_masks(source: Source) -> Source:
    """The samples that have a mask, the others being skipped; in memory it is seen when read."""
    if not source.in_memory:
        have = [number for number, one in enumerate(source.samples) if one.mask is not None]
        lack = [one for one in source.samples if one.mask is None]
        source = source.subset(have)
        source.skipped = [*source.skipped, *(Skipped(one.id, one.file, NO_MASK) for one in lack)]
    require_any(source.samples, source.skipped)
    return source


def _size_in(source: Source | None, channels: int, dims: int) -> tuple[int, ...] | None:
    """The spatial size of the first image in memory; None where that can't be told."""
    if source is None or not source.in_memory:
        return None
    first = source.dataset(Preprocessing(channels=channels, dims=dims), [0])[0]
    return None if isinstance(first, Skipped) else tuple(first.prepared.image.shape[1:])


def _batch_size(given: int | None, network: LoadedModel, tile: tuple[int, ...] | None) -> int:
    if tile is not None and given is not None and given > 1:
        raise RunError(
            f"Tiles are of one image at a time, and a batch size of {given} was given: leave out "
            "batch_size= or tile=.",
            option=("batch_size", "tile"),
        )
    insisted = network.batch_size
    if insisted is not None and (tile is not None or given not in (None, insisted)):
        raise RunError(
            f"The network takes {insisted} images at once and no other number: give batch_size="
            f"{insisted}, and no tile=.",
            option=("batch_size", "tile"),
        )
    if insisted is not None or given is not None:
        return insisted or given or 1
    return 4 if network.dims == 2 and tile is None else 1
