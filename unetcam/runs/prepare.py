"""From what a person asks for to a run that can start: load, look, check, and say what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unetcam import methods
from unetcam.cam import UNetCAM
from unetcam.data import ClassTable, Sample, Skipped, find_samples, require_any
from unetcam.data.volume_samples import whole_volumes
from unetcam.errors import LayerError, ModelError, RunError
from unetcam.methods import Method
from unetcam.models import LoadedModel, load
from unetcam.models.opening import EXAMPLE_SIZES, blank_images, choose_device
from unetcam.runs.digests import data_digest, file_digests, model_digest
from unetcam.runs.model_inputs import tiles_of
from unetcam.runs.spec import Spec
from unetcam.targets import ClassScore


@dataclass(frozen=True)
class Plan:
    """A run that can start."""

    network: LoadedModel
    samples: list[Sample]
    skipped: list[Skipped]
    spec: Spec


def open_network(spec: Spec, *, must_be_trained: bool = True) -> LoadedModel:
    """Load a network, move it to its device, and look at it once.

    Parameters
    ----------
    spec : Spec
    must_be_trained : bool
        Whether a network that is known to hold random weights is refused.

    Raises
    ------
    UnetcamError
        One sentence: what is wrong with the network, the checkpoint or the device.
    """
    return load(
        spec.model,
        checkpoint=spec.checkpoint,
        model_args=spec.model_args,
        key=spec.key,
        allow_pickle=spec.allow_pickle,
        device=spec.device,
        channels=spec.channels,
        size=spec.size,
        seed=spec.seed,
        must_be_trained=must_be_trained,
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
    example = blank_images(network, channels=network.channels, size=size)
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


def prepare(spec: Spec) -> Plan:
    """Find the data, load the network, and settle everything that determines the result.

    Parameters
    ----------
    spec : Spec
        What was asked for.

    Raises
    ------
    UnetcamError
        One sentence: the first thing that is wrong, before anything is written.
    """
    method = methods.get(spec.method)
    method.check()
    if not method.per_target:
        raise RunError(
            f"The method '{spec.method}' has maps of channels, and a report measures one for each "
            "class: choose another method, or look at the maps with `unetcam map`.",
            option="method",
        )
    choose_device(spec.device)
    samples, skipped = _samples(spec)
    network = open_network(spec)
    if network.dims == 3:
        samples, others = whole_volumes(samples, spec.orientation or "RAS")
        skipped += others
        require_any(samples, skipped)
    samples = samples[: spec.limit]
    digests = file_digests([path for sample in samples for path in sample.files])
    settled = settle(spec, network).settled(
        model_digest=model_digest(network.module),
        data_digest=data_digest(
            [(one.id, [digests[str(path)] for path in one.files]) for one in samples]
        ),
        samples=len(samples),
    )
    return Plan(network, samples, skipped, settled)


def settle(spec: Spec, network: LoadedModel) -> Spec:
    """The spec with what the network decides: its layers, classes, channels, tiles and batches.

    Raises
    ------
    UnetcamError
        For layers or classes that the network does not have, and tiles that do not fit it.
    """
    classes = spec.classes or ClassTable(tuple(f"class {i}" for i in range(network.classes)))
    check_class_count(network, classes)
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
    )
    prepared = settled.preprocessing  # says so here, not at the first image, where it can't be
    return settled.settled(mean=prepared.mean, std=prepared.std)


def _samples(spec: Spec) -> tuple[list[Sample], list[Skipped]]:
    if spec.manifest is None and (spec.images is None or spec.masks is None):
        raise RunError(
            "It is not said where the data lies: give images= and masks=, or manifest=.",
            option=("images", "masks", "manifest"),
        )
    samples, skipped = find_samples(
        None if spec.images is None else Path(spec.images),
        None if spec.masks is None else Path(spec.masks),
        manifest=None if spec.manifest is None else Path(spec.manifest),
        classes=spec.classes,
    )
    for sample in samples:
        if sample.mask is None:
            reason = "No mask is named for it, and a report needs one: add it, or leave it out."
            skipped.append(Skipped(sample.id, sample.file, reason))
    samples = [sample for sample in samples if sample.mask is not None]
    require_any(samples, skipped)
    return samples, skipped


def _batch_size(given: int | None, network: LoadedModel, tile: tuple[int, ...] | None) -> int:
    if tile is not None and given is not None and given > 1:
        raise RunError(
            f"Tiles are of one image at a time, and a batch size of {given} was given: leave out "
            "batch_size= or tile=.",
            option=("batch_size", "tile"),
        )
    if given is not None:
        return given
    return 4 if network.dims == 2 and tile is None else 1
