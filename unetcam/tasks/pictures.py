"""What the page shows of single images: each class's examples, and the costliest mistakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetcam.cam import UNetCAM
from unetcam.data import Item, Skipped
from unetcam.errors import LayerError
from unetcam.models.loaded_model import LoadedModel
from unetcam.page.gallery import Example, Origin, Role, choose_examples
from unetcam.page.mistakes import Errors, Mistake, Pair
from unetcam.page.slices import choose_slice
from unetcam.runs import Plan, Run
from unetcam.runs.explain import ExplainedBatch, Explainer, scaled
from unetcam.runs.framed_targets import ImageArea, image_area
from unetcam.targets import Contrast, PredictedRegion, Target

#: The method of the pictures of where a prediction comes from, and of why an error is made:
#: Grad-CAM's map of an error is the map of the class (correlation .91 to 1.00 on three images at
#: all layers), HiResCAM's is the error's own.
METHOD = "hirescam"


@dataclass(frozen=True)
class Pictures:
    """The images that the page shows, explained.

    Attributes
    ----------
    examples : list of Example
        In the order in which they were chosen.
    mistakes : list of Mistake
        The costliest first.
    """

    examples: list[Example]
    mistakes: list[Mistake]


def explain_pictures(plan: Plan, run: Run) -> Pictures:
    """Explain again the few images that the page of a run shows.

    Parameters
    ----------
    plan : Plan
        The images of the run, and its network, in eval mode.
    run : Run

    Returns
    -------
    Pictures
        Without the images that can't be read any more.
    """
    wanted = choose_examples(run.rows, run.layers)
    pairs = Errors(run).pairs()
    shown = {image for _, _, image in wanted} | {pair.worst for pair in pairs}
    chosen = {one.id: number for number, one in enumerate(plan.samples) if one.id in shown}
    dataset = plan.dataset(list(chosen.values()))
    scores = run.rows.drop_duplicates(["image", "class_index"]).set_index(["image", "class_index"])
    contrasts = Contrasts(plan.network, run)
    examples: dict[tuple[int, str, str], Example] = {}
    mistakes: dict[Pair, Mistake] = {}
    with Explainer(plan.network, run.spec) as explainer:
        for position, name in enumerate(chosen):
            item = dataset[position]
            if isinstance(item, Skipped):  # it could be read a moment ago: its rows stay
                continue
            (batch,) = explainer.explained([item])
            own = [(index, role) for index, role, image in wanted if image == name]
            own_pairs = [pair for pair in pairs if pair.worst == name]
            classes = sorted({index for index, _ in own})
            origins, reasons = contrasts(item, classes, own_pairs)
            for class_index, role in own:
                score = float(scores["class_iou"][name, class_index])
                examples[class_index, role, name] = _example(
                    batch, class_index, role, score, origins.get(class_index)
                )
            for pair in own_pairs:
                mistakes[pair] = _mistake(batch, pair, reasons.get(pair, []))
    return Pictures(
        [examples[key] for key in wanted if key in examples],
        [mistakes[pair] for pair in pairs if pair in mistakes],
    )


class Contrasts:
    """Maps of why one class was predicted and not another, at both ends of the network.

    Parameters
    ----------
    network : LoadedModel
        One that was looked at, in eval mode.
    run : Run
    """

    def __init__(self, network: LoadedModel, run: Run) -> None:
        self._network, self._spec, self._finest = network, run.spec, run.layers[-1]
        encoder = [layer for layer in network.table if layer.stage == "encoder"]
        self._first = min(encoder, key=lambda layer: layer.stride, default=None)

    def __call__(
        self, item: Item, classes: Sequence[int], pairs: Sequence[Pair]
    ) -> tuple[dict[int, Origin], dict[Pair, list[Origin]]]:
        """Explain an image.

        Parameters
        ----------
        item : Item
        classes : sequence of int
            For each: what speaks for it and against the next best class, over the pixels
            predicted as it, at the first encoder layer.
        pairs : sequence of Pair
            For each: what speaks for the class that the pixels were taken for and against the one
            that they are of, over these pixels, at the first encoder and the last decoder layer.

        Returns
        -------
        origins : dict of int to Origin
        reasons : dict of Pair to list of Origin
            Maps of (H, W) or (D, H, W) in the image's own frame, scaled to [0, 1]. Both are empty
            for a network whose layers have no map for this method, and one that takes several
            images alone.
        """
        first = self._first
        if first is None or self._network.batch_size not in (None, 1):
            return {}, {}
        images = item.prepared.image[None].to(self._network.device, self._network.dtype)
        targets = [*(self._of_class(item, c) for c in classes),
                   *(self._of_pair(item, pair) for pair in pairs)]  # fmt: skip
        layers = list(dict.fromkeys((first.name, self._finest)))
        try:
            maps = self._maps(images, layers, targets)
        except LayerError:  # a layer of tokens or vectors, where the method has no map
            return {}, {}

        strides = self._network.table.strides

        def origin(layer: str, number: int) -> Origin:
            heat = item.prepared.frame.restore(maps[layer][0, number].float())
            return Origin(layer, strides.get(layer, 1), scaled(heat.cpu().numpy()))

        origins = {c: origin(first.name, number) for number, c in enumerate(classes)}
        reasons = {
            pair: [origin(layer, number) for layer in layers]
            for number, pair in enumerate(pairs, start=len(classes))
        }
        return origins, reasons

    def _maps(
        self, images: Tensor, layers: Sequence[str], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        cam = UNetCAM(self._network, layers=list(layers), method=METHOD, head=self._spec.head)
        with torch.autocast(self._network.device.type, enabled=self._spec.amp):
            if self._spec.tiles is None:
                result = cam(images, targets=targets)
            else:
                result = cam.tiled(images, *self._spec.tiles, targets=targets)
        return dict(result.resized(images.shape[2:]).maps)

    def _of_class(self, item: Item, index: int) -> Target:
        area = image_area(item.prepared.frame)[None].to(self._network.device)
        region = PredictedRegion(index, within=ImageArea(index, area=area))
        return Contrast(index, against="runner_up", within=region)

    def _of_pair(self, item: Item, pair: Pair) -> Target:
        mask = item.prepared.mask
        assert mask is not None  # a pair of classes was counted against a truth
        area = (mask[None] == pair.truth).to(self._network.device)
        region = PredictedRegion(pair.taken_for, within=ImageArea(pair.taken_for, area=area))
        return Contrast(pair.taken_for, against=pair.truth, within=region)


def _example(
    batch: ExplainedBatch, class_index: int, role: Role, score: float, origin: Origin | None
) -> Example:
    """What is shown of an image for a class; of a volume the slice with most of the class."""
    (item,), prediction = batch.items, batch.predicted_as(class_index)
    seen, title = _slicing(item, [mask == class_index for mask in (item.truth, prediction)])
    return Example(
        class_index=class_index,
        role=role,
        image_id=item.sample.id,
        score=score,
        image=seen(item.image),
        truth=seen(item.truth),
        prediction=seen(prediction),
        maps={layer: seen(batch.scaled(layer, class_index)) for layer in batch.layers},
        slice_title=title,
        origin=None if origin is None else Origin(origin.layer, origin.stride, seen(origin.heat)),
    )


def _mistake(batch: ExplainedBatch, pair: Pair, reasons: Sequence[Origin]) -> Mistake:
    """What is shown of a pair of classes; of a volume the slice with most of the mistake."""
    (item,), prediction = batch.items, batch.predicted_as(pair.taken_for)
    region = (item.truth == pair.truth) & (prediction == pair.taken_for)
    seen, title = _slicing(item, [region])
    return Mistake(
        pair,
        seen(item.image),
        seen(item.truth),
        seen(prediction),
        tuple(Origin(one.layer, one.stride, seen(one.heat)) for one in reasons),
        title,
    )


def _slicing(
    item: Item, regions: Sequence[NDArray[np.bool_]]
) -> tuple[Callable[[NDArray[Any]], NDArray[Any]], str]:
    """How an item is looked at: as it is, or one slice of a volume, with the slice's title."""
    if item.sample.orientation is None:
        return lambda values: values, ""
    spacing = item.spacing or (1.0, 1.0, 1.0)
    shown = choose_slice(regions, item.sample.orientation, spacing)
    return shown.of, shown.title
