"""From what a person asks for to a run that can start: load, look, check, and say what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unetcam import methods
from unetcam.cam import UNetCAM
from unetcam.data import ClassTable, Preprocessing, Sample, Skipped, find_samples, require_any
from unetcam.data.whole_volumes import whole_volumes
from unetcam.errors import LayerError, ModelError, RunError
from unetcam.methods import Method
from unetcam.models import LoadedModel, load, parse_model_args
from unetcam.models.opening import EXAMPLE_SIZES, blank_images, choose_device
from unetcam.runs.files import file_digests
from unetcam.runs.model_inputs import tiles_of
from unetcam.runs.spec import (
    DataRequest,
    Explanation,
    Measuring,
    ModelRequest,
    RunConfig,
    check_options,
    data_digest,
    model_digest,
)
from unetcam.targets import ClassScore


@dataclass(frozen=True)
class Plan:
    """A run that can start."""

    network: LoadedModel
    samples: list[Sample]
    skipped: list[Skipped]
    config: RunConfig


def open_network(request: ModelRequest, *, must_be_trained: bool = True) -> LoadedModel:
    """Load a network, move it to its device, and look at it once.

    Parameters
    ----------
    request : ModelRequest
    must_be_trained : bool
        Whether a network that is known to hold random weights is refused.

    Raises
    ------
    UnetcamError
        One sentence: what is wrong with the network, the checkpoint or the device.
    """
    return load(
        request.model,
        checkpoint=request.checkpoint,
        model_args=parse_model_args(list(request.model_args)),
        key=request.key,
        allow_pickle=request.allow_pickle,
        device=request.device,
        channels=request.channels,
        size=request.size,
        seed=request.seed,
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
            "No decoder layer was found in the network: name the layers with --layers "
            "(`unetcam layers` lists what there is)."
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


def preprocessing_of(
    network: LoadedModel, size: tuple[int, ...] | None, how: Explanation
) -> Preprocessing:
    """The preprocessing: to `size`, or to what the network's stride needs.

    Volumes keep their size: a network of volumes is only looked at in another.
    """
    size = None if network.dims == 3 else size
    return Preprocessing(
        channels=network.channels,
        size=size,
        mode=how.resize_mode,
        stride=network.stride if size is None else 1,
        mean=how.mean or (0.0,),
        std=how.std or (1.0,),
        max_value=how.max_value,
        dims=network.dims,
    )


def check_class_count(network: LoadedModel, classes: ClassTable) -> None:
    """Raise a :class:`~unetcam.errors.ModelError` unless network and table agree."""
    if network.classes != len(classes.names):
        raise ModelError(
            f"The network gives {network.classes} classes, but --classes names "
            f"{len(classes.names)} ({', '.join(classes.names)}): name every class, the background "
            "as well, in the order of the network's channels."
        )


def plan_run(
    model: ModelRequest,
    data: DataRequest,
    how: Explanation,
    measuring: Measuring,
    *,
    workers: int | None = None,
) -> Plan:
    """Find the data, load the network, and settle everything that determines the result.

    Raises
    ------
    UnetcamError
        One sentence: the first thing that is wrong, before anything is written.
    """
    check_options(
        target=how.target,
        band=measuring.band,
        threshold=measuring.threshold,
        tolerance=measuring.tolerance,
        seed=model.seed,
        batch_size=1 if measuring.batch_size is None else measuring.batch_size,
        workers=workers,
        limit=data.limit,
    )
    method = methods.get(how.method)
    method.check()
    if not method.per_target:
        raise RunError(
            f"The method '{how.method}' has maps of channels, and a report measures one for each "
            "class: choose another method, or look at the maps with `unetcam map`."
        )
    choose_device(model.device)
    classes = ClassTable.parse(data.classes, ignore_index=data.ignore_index)
    samples, skipped = _samples(data, classes)
    network = open_network(model)
    if network.dims == 3:
        samples, others = whole_volumes(samples, how.orientation)
        skipped += others
        require_any(samples, skipped)
    samples = samples[: data.limit]
    check_class_count(network, classes)
    tile, overlap = tiles_of(how.tile, how.overlap, network.dims, network.stride) or (None, None)
    layers, strides = choose_layers(network, how.layers, method)
    preprocessing = preprocessing_of(network, model.size, how)
    digests = file_digests([path for sample in samples for path in sample.files])
    config = RunConfig(
        model=model.model,
        model_args=_plain(parse_model_args(list(model.model_args))),
        model_digest=model_digest(network.module),
        data_digest=data_digest(
            [(one.id, [digests[str(path)] for path in one.files]) for one in samples]
        ),
        samples=len(samples),
        classes=asdict(classes),
        preprocessing=preprocessing.to_yaml(),
        layers=layers,
        strides=strides,
        method=how.method,
        target=how.target,
        band=measuring.band,
        threshold=measuring.threshold,
        tolerance=measuring.tolerance,
        seed=model.seed,
        batch_size=_batch_size(measuring.batch_size, network, tile),
        amp=how.amp,
        device=network.device.type,
        orientation=how.orientation if network.dims == 3 else None,
        tile=tile,
        overlap=overlap,
    )
    return Plan(network, samples, skipped, config)


def _samples(data: DataRequest, classes: ClassTable) -> tuple[list[Sample], list[Skipped]]:
    if data.manifest is None and (data.images is None or data.masks is None):
        raise RunError("Say where the data lies: --images and --masks, or --manifest.")
    samples, skipped = find_samples(
        data.images, data.masks, manifest=data.manifest, classes=classes
    )
    for sample in samples:
        if sample.mask is None:
            reason = "No mask is named for it, and a report needs one: add it, or leave it out."
            skipped.append(Skipped(sample.id, str(sample.image), reason))
    samples = [sample for sample in samples if sample.mask is not None]
    require_any(samples, skipped)
    return samples, skipped


def _batch_size(asked: int | None, network: LoadedModel, tile: tuple[int, ...] | None) -> int:
    if tile is not None and asked is not None and asked > 1:
        raise RunError(
            f"Tiles are of one image at a time, and a batch size of {asked} was given: leave out "
            "--batch-size, or --tile."
        )
    if asked is not None:
        return asked
    return 4 if network.dims == 2 and tile is None else 1


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values as JSON can hold them; a text stands for what it has no word for."""

    def one(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(k): one(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [one(v) for v in value]
        return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)

    return {str(name): one(value) for name, value in values.items()}
