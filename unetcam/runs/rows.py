"""The rows of explained images: every measure for each image, layer and class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from unetcam.data import Item
from unetcam.measures import Geometry, measure
from unetcam.measures.null import null_columns, null_numbers
from unetcam.runs.explain import Explained, ExplainedBatch, RandomMaps
from unetcam.runs.spec import Spec

#: Map values that are measured at a time: bounds the memory that large images take.
MEASURED_AT_ONCE = 1 << 24

_NULL = Mapping[str, Sequence[Mapping[str, Tensor]]]
_TYPES: dict[torch.dtype, Any] = {
    torch.bool: np.bool_,
    torch.int64: np.int64,
    torch.int32: np.int32,
    torch.float64: np.float64,
}


@torch.no_grad()
def rows_of(explained: Explained, spec: Spec) -> pd.DataFrame:
    """One row per image, layer and class.

    The network takes no part in it, so another thread may run it at the same time.

    Parameters
    ----------
    explained : Explained
        Images with their ground truth.
    spec : Spec
        The settled spec that they were explained with.

    Returns
    -------
    DataFrame
        The key columns, then the measures of :func:`unetcam.measures.measure`, and the null's.
    """
    null = {} if explained.null is None else _null_of(explained.null, spec)
    tables = [
        _measured(batch, slice(start, start + count), null, spec)
        for batch in explained.batches
        for count in (_at_once(batch, len(spec.class_names)),)
        for start in range(0, len(batch.items), count)
    ]
    return pd.concat(tables, ignore_index=True)


def _at_once(batch: ExplainedBatch, classes: int) -> int:
    pixels = batch.prediction[0].numel() * classes
    return max(1, MEASURED_AT_ONCE // pixels)


def _null_of(maps: RandomMaps, spec: Spec) -> dict[str, list[dict[str, Tensor]]]:
    """By image and layer, the measures (1, T) of maps whose channels are weighed at random."""
    classes = len(spec.class_names)
    null = {}
    for position, item in enumerate(maps.items):
        geometry = Geometry(
            torch.from_numpy(item.truth)[None].to(maps.device),
            range(classes),
            num_classes=classes,
            band=spec.band,
            tolerance=0.0,
        )
        null[item.sample.id] = [
            null_numbers(maps.draws(position, layer), geometry) for layer in spec.layers or ()
        ]
    return null


def _measured(batch: ExplainedBatch, part: slice, null: _NULL, spec: Spec) -> pd.DataFrame:
    """The rows of some images; of a volume that is large, one class after the other."""
    items, count = batch.items[part], len(spec.class_names)
    device = batch.prediction.device
    truth = torch.from_numpy(np.stack([item.truth for item in items])).to(device)
    at_once = max(1, min(count, MEASURED_AT_ONCE // truth.numel()))
    groups = [range(start, count)[:at_once] for start in range(0, count, at_once)]
    of_groups = [_of_classes(batch, part, truth, classes, spec) for classes in groups]
    by_layer = [
        {name: torch.cat([one[name] for one in layer], dim=1) for name in layer[0]}
        for layer in zip(*of_groups, strict=True)
    ]
    unknown = torch.full((1, count), torch.nan, dtype=torch.float64, device=device)
    for number, numbers in enumerate(by_layer):
        of_images = [null[i.sample.id][number] if i.sample.id in null else {} for i in items]
        for name in null_columns():
            numbers[name] = torch.cat([one.get(name, unknown) for one in of_images])
    return _table(items, by_layer, spec)


def _of_classes(
    batch: ExplainedBatch, part: slice, truth: Tensor, classes: range, spec: Spec
) -> list[dict[str, Tensor]]:
    """By layer, the measures of some classes, (b, t) each."""
    prediction = batch.prediction[part]
    geometry = Geometry(
        truth,
        classes,
        prediction,
        num_classes=len(spec.class_names),
        band=spec.band,
        tolerance=spec.tolerance,
    )
    return [
        measure(
            batch.maps(layer, slice(classes.start, classes.stop))[part],
            classes,
            truth,
            prediction,
            num_classes=len(spec.class_names),
            band=spec.band,
            threshold=spec.threshold,
            tolerance=spec.tolerance,
            geometry=geometry,
        )
        for layer in spec.layers or ()
    ]


def _table(
    items: Sequence[Item], by_layer: Sequence[Mapping[str, Tensor]], spec: Spec
) -> pd.DataFrame:
    """Rows in the order image, layer, class; the one place where numbers leave the device."""
    names = list(by_layer[0])
    stacked = torch.stack([torch.stack([one[n].double() for n in names]) for one in by_layer])
    numbers = stacked.permute(2, 0, 3, 1).reshape(-1, len(names)).cpu().numpy()  # (B L T, M)
    types = [_TYPES.get(by_layer[0][n].dtype, np.float32) for n in names]
    layers, strides = spec.layers or (), np.array(spec.strides or (), np.int32)
    b, t, count = len(items), len(spec.class_names), len(layers)
    columns: dict[str, Any] = {
        "image": np.repeat([item.sample.id for item in items], count * t),
        "layer": np.tile(np.repeat(layers, t), b),
        "stage_stride": np.tile(np.repeat(strides, t), b),
        "class_index": np.tile(np.arange(t, dtype=np.int32), b * count),
        "class_name": np.tile(spec.class_names, b * count),
        "target": spec.target,
        "method": spec.method,
    }
    for position, (name, kind) in enumerate(zip(names, types, strict=True)):
        columns[name] = numbers[:, position].astype(kind)
    return pd.DataFrame(columns)
