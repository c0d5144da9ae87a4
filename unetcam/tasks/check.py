"""Check maps: do they depend on the network's weights, or would any network give them too?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from unetcam.cam import UNetCAM
from unetcam.data import Item, Skipped
from unetcam.errors import DataError, LayerError, UnetcamError, suggestion
from unetcam.interventions.weights import WeightedModules, randomised, weighted_modules
from unetcam.measures.sanity import PAIRS, Similarity, different_pairs, judge
from unetcam.methods import registry
from unetcam.models.loaded_model import LoadedModel
from unetcam.resizing import averaged
from unetcam.runs import Plan, Spec
from unetcam.runs.prepare import prepare
from unetcam.runs.sanity import IGNORES_DECODER, SAME_CLASS, Check, CheckRow
from unetcam.targets import ClassScore, Target, class_count, predict

#: What is checked where nothing is named: the methods that a report is mostly made with.
METHODS = ("gradcam", "hirescam", "layercam")
BASELINES = ("random", "edges", "mask-prior")
#: Sets of randomised modules between the head alone and the whole network.
STEPS = 3
IMAGES_AT_ONCE = 4
#: How many of a data set's images are checked where no limit is given: 66 pairs of them.
IMAGES = 12
#: Maps are compared at no more pixels a side than these, averaged: what a map says at large.
COMPARED = 64


class Steps(Protocol):
    """Somebody who is told how a check goes on."""

    def begin(self, total: int, done: int) -> None:
        """So many networks are to be explained, each by one method."""

    def advance(self, images: int) -> None:
        """So many more are done."""


def check(
    model: nn.Module | LoadedModel,
    images: Tensor,
    truth: Tensor | None = None,
    *,
    methods: Sequence[str] = METHODS,
    targets: Sequence[str] | None = None,
    layers: Sequence[str] | None = None,
    steps: int = STEPS,
    pairs: int = PAIRS,
    seed: int = 0,
    progress: Steps | None = None,
) -> Check:
    """Sanity checks of maps: what is left of them when the network's weights mean nothing.

    Parameters
    ----------
    model : nn.Module or LoadedModel
        Left as found; weights are shuffled in copies.
    images : Tensor
        (B, C, *spatial), two or more, prepared as the network takes them, on its device.
    truth : Tensor, optional
        (B, *spatial) class indices, -1 where ignored; with it the target "truth" is checked too.
    methods : sequence of str
        Names of :func:`unetcam.methods.names`, of methods with a map for each target.
    targets : sequence of {"class", "predicted", "truth"}, optional
        All of them by default; "truth" needs one.
    layers : sequence of str, optional
        Every decoder layer by default.
    steps : int
        Sets of shuffled modules from the head alone down to the whole network; 1 is the whole.
    pairs : int
        Pairs of maps of different images that set the threshold.
    seed : int
        Seeds the shuffles, the pairs and what methods draw.
    progress : Steps, optional
        Is told which of how many networks is done.

    Returns
    -------
    Check

    Raises
    ------
    DataError
        For fewer than two images, or a truth of another shape.
    UnetcamError
        For what can't be explained, see :class:`~unetcam.UNetCAM`.

    Notes
    -----
    The weights are shuffled from the head down to the encoder, and in the decoder alone
    (cascading and independent randomisation, Adebayo et al., NeurIPS 2018). A method passes
    for a target at a layer if its maps are less like those of the randomised network than maps of
    *different images* are like each other, by Spearman's rank correlation and by SSIM (Arun et
    al., Radiology: Artificial Intelligence 2021). Regions are those of the trained network's
    prediction, or of the truth, and stay the same pixels. Only a fail counts (Binder et al., CVPR
    2023). Maps are averaged to at most 64 pixels a side before they are compared.
    """
    began = time.perf_counter()
    _require_images(images, truth)
    names = list(dict.fromkeys(methods))
    for name in names:
        registry.get(name).check()
    loaded = LoadedModel.of(model, images[:1])
    layer_names, modules = _look(loaded, images[:1], layers)
    logits = torch.cat([loaded.logits(images[part]) for part in _batches(images)])
    classes, regions = class_count(logits), _regions(logits, truth, targets)
    networks = _networks(loaded, modules, steps, seed)
    if progress is not None:
        progress.begin((len(networks) + 1) * len(names) + len(BASELINES), 0)

    def maps_of(
        network: LoadedModel, used: Sequence[str]
    ) -> dict[str, dict[str, dict[str, Tensor]]]:
        """By method, target and layer: (B, classes, *layer_spatial)."""
        found = {}
        for name in used:
            found[name] = _maps(network, layer_names, name, seed, images, regions, classes)
            if progress is not None:
                progress.advance(1)
        return found

    trained = maps_of(loaded, names)
    baselines = maps_of(loaded, BASELINES)
    others = {step: maps_of(network(), names) for step, network in networks.items()}
    first, second = different_pairs(len(images), pairs, seed)
    rows = []
    for method in names:
        for target in regions:
            for layer in layer_names:
                maps = trained[method][target][layer]
                rows.append(
                    _row(
                        (method, target, layer),
                        maps,
                        {step: found[method][target][layer] for step, found in others.items()},
                        {name: found[target][layer] for name, found in baselines.items()},
                        _similarity(maps[first.to(maps.device)], maps[second.to(maps.device)]),
                    )
                )
    return Check(tuple(rows), len(images), seed, time.perf_counter() - began)


def check_data(
    spec: Spec, methods: Sequence[str] = METHODS, *, progress: Steps | None = None
) -> Check:
    """Check the maps of a network on images with masks: what ``unetcam check`` does.

    Parameters
    ----------
    spec : Spec
        The network and the data; of its images the first that have one size are taken, up to
        ``limit``, or 12.
    methods : sequence of str
    progress : Steps, optional

    Returns
    -------
    Check

    Raises
    ------
    UnetcamError
        One sentence: what is wrong with the network, the data or the methods.
    """
    plan = prepare(spec)
    items = alike(plan, spec.limit or IMAGES)
    if len(items) < 2:
        raise DataError(
            "A check compares maps of different images of one size, and there are fewer than two: "
            "give more images, or bring them to one size with size=.",
            option="size",
        )
    network = plan.network
    images, truth = stacked(plan, items)
    return check(
        network,
        images,
        truth,
        methods=methods,
        layers=spec.layers,
        seed=plan.spec.seed,
        progress=progress,
    )


def alike(plan: Plan, most: int, read: int | None = None) -> list[Item]:
    """The first images of one size, up to `most` of them, of the first `read` ones."""
    dataset, groups = plan.dataset(), dict[tuple[int, ...], list[Item]]()
    for position in range(min(len(plan.samples), read or len(plan.samples))):
        item = dataset[position]
        if isinstance(item, Skipped):
            continue
        group = groups.setdefault(tuple(item.prepared.image.shape), [])
        group.append(item)
        if len(group) == most:
            return group
    return max(groups.values(), key=len, default=[])


def stacked(plan: Plan, items: Sequence[Item]) -> tuple[Tensor, Tensor | None]:
    """Images of one size as the network takes them, and their truth where all have one."""
    network = plan.network
    images = torch.stack([one.prepared.image for one in items]).to(network.device, network.dtype)
    masks = [one.prepared.mask for one in items if one.prepared.mask is not None]
    return images, torch.stack(masks) if len(masks) == len(items) else None


def _row(
    key: tuple[str, str, str],
    maps: Tensor,
    others: Mapping[str, Tensor],
    baselines: Mapping[str, Tensor],
    threshold: Similarity,
) -> CheckRow:
    similar = {step: _similarity(maps, one) for step, one in others.items()}
    decoder = similar.pop(_DECODER, None)
    alike = {name: _similarity(maps, one.expand_as(maps)) for name, one in baselines.items()}
    other_class = _similarity(maps, maps.roll(-1, 1))
    cascade = tuple(similar.items())
    reasons = []
    verdict = judge(cascade[-1][1], threshold, alike)
    if verdict.passed is False:
        reasons.append(verdict.reason)
    elif decoder is not None and judge(decoder, threshold, {}).passed is False:
        reasons.append(IGNORES_DECODER)
    if maps.shape[1] > 1 and judge(other_class, threshold, {}).passed is False:
        reasons.append(SAME_CLASS)
    return CheckRow(*key, tuple(reasons), threshold, cascade, decoder, other_class, alike)


def _similarity(one: Tensor, other: Tensor) -> Similarity:
    """Of maps (B, classes, *layer_spatial), pair by pair."""
    return Similarity.of(one.flatten(0, 1), other.flatten(0, 1))


# -- the networks and their maps --------------------------------------------------------------

_DECODER = "decoder alone"
_WHOLE = "all weights"


def _look(
    loaded: LoadedModel, image: Tensor, layers: Sequence[str] | None
) -> tuple[tuple[str, ...], WeightedModules]:
    """The layers to check, and the modules in the order in which they run."""
    names = loaded.table.decoder if layers is None else tuple(layers)
    if not names:
        raise LayerError(
            "No decoder layer was found in the network: name the layers with layers=.",
            option="layers",
        )
    inner = [one.name for one in loaded.table if one.stage in ("encoder", "bottleneck")]
    return names, weighted_modules(loaded.module, image, inner[-1] if inner else None)


def _networks(
    loaded: LoadedModel, modules: WeightedModules, steps: int, seed: int
) -> dict[str, Callable[[], LoadedModel]]:
    """By what is randomised, what makes the network: one at a time, so that one copy is held."""

    def shuffled(names: Sequence[str]) -> LoadedModel:
        return LoadedModel.of(randomised(loaded.module, names, seed), output=loaded.output)

    sets = modules.cascade(steps)
    networks: dict[str, Callable[[], LoadedModel]] = {}
    if modules.decoder and len(modules.decoder) < len(modules.names):
        networks[_DECODER] = partial(shuffled, modules.decoder)
    for number, names in enumerate(sets):
        last = number == len(sets) - 1
        networks[_WHOLE if last else f"from the head down to {names[0]}"] = partial(shuffled, names)
    return networks


def _batches(images: Tensor) -> list[slice]:
    return [slice(s, s + IMAGES_AT_ONCE) for s in range(0, len(images), IMAGES_AT_ONCE)]


def _maps(
    network: LoadedModel,
    layers: Sequence[str],
    method: str,
    seed: int,
    images: Tensor,
    regions: Mapping[str, Tensor | None],
    classes: int,
) -> dict[str, dict[str, Tensor]]:
    """By target and layer, (B, classes, *layer_spatial): all targets of a batch in one call."""
    cam = UNetCAM(network, list(layers), registry.get(method, seed))
    parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    count = classes * len(regions)
    for batch in _batches(images):
        targets: list[Target] = []
        for labels in regions.values():
            within = [None if labels is None else labels[batch] == c for c in range(classes)]
            targets += [ClassScore(c, within=mask) for c, mask in enumerate(within)]
        result = cam(images[batch], targets)
        for layer, maps in parts.items():
            found = result[layer]
            size = [min(side, COMPARED) for side in found.shape[2:]]
            maps.append(averaged(found, size).expand(-1, count, *size))
    whole = {layer: torch.cat(maps) for layer, maps in parts.items()}
    return {
        kind: {layer: maps[:, k * classes : (k + 1) * classes] for layer, maps in whole.items()}
        for k, kind in enumerate(regions)
    }


def _regions(
    logits: Tensor, truth: Tensor | None, targets: Sequence[str] | None
) -> dict[str, Tensor | None]:
    """By target, the classes (B, *spatial) whose pixels are explained; None for all pixels."""
    regions: dict[str, Tensor | None] = {"class": None, "predicted": predict(logits)}
    if truth is not None:
        regions["truth"] = truth.to(logits.device)
    wanted = list(regions) if targets is None else targets
    for name in wanted:
        if name not in regions:
            raise UnetcamError(
                f"A check asks for no target '{name}'"
                + (", as there is no truth" if name == "truth" else "")
                + f": {suggestion(name, regions)}",
                option="targets",
            )
    return {name: regions[name] for name in wanted}


# -- what can't be checked --------------------------------------------------------------------


def _require_images(images: Tensor, truth: Tensor | None) -> None:
    if not isinstance(images, Tensor) or images.ndim not in (4, 5) or len(images) < 2:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise DataError(
            f"A check compares maps of different images, and images= is {shape}: give two or more "
            "as a tensor (B, C, *spatial).",
            option="images",
        )
    if truth is not None and tuple(truth.shape) != (len(images), *images.shape[2:]):
        raise DataError(
            f"truth= has the shape {tuple(truth.shape)}: give class indices of the images' shape "
            f"{(len(images), *images.shape[2:])}.",
            option="truth",
        )
