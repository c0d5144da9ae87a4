"""Explaining a batch of read images or volumes: maps in each one's own frame, and rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unetcam import methods
from unetcam.cam import UNetCAM
from unetcam.data import Frame, Item
from unetcam.measures import Geometry, measure
from unetcam.measures.null import NULL_DRAWS, null_columns, null_numbers
from unetcam.methods.baseline import RandomDraws
from unetcam.models import LoadedModel
from unetcam.resizing import interpolated
from unetcam.result import CAMResult
from unetcam.runs.framed_targets import targets_for
from unetcam.runs.spec import Spec
from unetcam.targets import ClassScore, Target, predict

#: Map values that are measured at a time: bounds the memory that large images take.
MEASURED_AT_ONCE = 1 << 24


@dataclass(frozen=True, eq=False)
class ExplainedBatch:
    """Explained images that share a frame, so that one tensor holds them.

    Attributes
    ----------
    items : tuple of Item
    prediction : Tensor
        (B, H, W) or (B, D, H, W) int64, in the images' own frame, on the device; of a network
        whose classes don't exclude one another (B, C, *spatial) bool.
    names : tuple of str
        What the T maps are of: the classes, or what else the method has maps of.
    """

    items: tuple[Item, ...]
    prediction: Tensor
    names: tuple[str, ...]
    _result: CAMResult
    _at: Tensor
    _frame: Frame
    _size: tuple[int, ...]

    def maps(self, layer: str, targets: slice = slice(None)) -> Tensor:
        """(B, T, *spatial) raw maps of one layer in the images' own frame, on the device.

        One layer at a time, so that a network with many layers needs no more memory; and where
        `targets` says so, only some of the T.
        """
        maps = self._result[layer].index_select(0, self._at)[:, targets]
        return self._frame.restore(interpolated(maps, self._size))

    def predicted_as(self, class_index: int) -> NDArray[np.int64]:
        """The first image's prediction as far as one class goes, on the CPU.

        Class indices; where classes don't exclude one another -1 instead of any other class.
        """
        prediction = self.prediction[0]
        if prediction.dtype == torch.bool:
            prediction = torch.where(prediction[class_index], class_index, -1)
        labels: NDArray[np.int64] = prediction.cpu().numpy()
        return labels

    @property
    def layers(self) -> tuple[str, ...]:
        """The explained layers, deepest first."""
        return self._result.layers

    def scaled(self, layer: str, target: int) -> NDArray[np.float32]:
        """A single image's map of one target, on the CPU; see :func:`scaled`."""
        ((found,),) = self.maps(layer, slice(target, target + 1))
        return scaled(found.float().cpu().numpy())


def scaled(found: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map divided by its own maximum; zeros stay zeros and NaN stays NaN.

    Examples
    --------
    >>> scaled(np.array([0.0, 1.0, 4.0], np.float32)).tolist()
    [0.0, 0.25, 1.0]
    """
    peak = found.max()
    return found / peak if peak > 0 else found


class Explainer:
    """A network together with what is asked of it; use it as a context manager.

    Parameters
    ----------
    model : nn.Module or LoadedModel
        In eval mode, on the device where the work is done.
    spec : Spec
        A settled one.
    progress : callable, optional
        Is told how many tiles of how many are done.
    null_images : collection of str
        The ids of the images in which the measures' null is measured.
    """

    def __init__(
        self,
        model: nn.Module | LoadedModel,
        spec: Spec,
        progress: Callable[[int, int], None] | None = None,
        null_images: Collection[str] = (),
    ) -> None:
        self._progress = progress
        self._null_images = frozenset(null_images)
        self.spec = spec
        self.layers, self.strides = spec.layers or (), spec.strides or ()
        model = LoadedModel.of(model)
        self.device, self._dtype = model.device, model.dtype
        self._cam = UNetCAM(
            model,
            layers=list(self.layers),
            method=methods.get(spec.method, spec.seed),
            head=spec.head,
        )
        self._null_cam = UNetCAM(
            model, layers=list(self.layers), method=RandomDraws(NULL_DRAWS, spec.seed)
        )

    def __enter__(self) -> Explainer:
        self._cam.__enter__()
        self._null_cam.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._null_cam.__exit__(kind, error, traceback)
        self._cam.__exit__(kind, error, traceback)

    def explained(self, items: Sequence[Item]) -> Iterator[ExplainedBatch]:
        """Explain images whose prepared tensors have one shape, in a single pass.

        Raises
        ------
        UnetcamError
            For an input or a network that can't be explained.
        """
        images = torch.stack([item.prepared.image for item in items]).to(self.device, self._dtype)
        size = tuple(images.shape[2:])
        with torch.autocast(self.device.type, enabled=self.spec.amp):
            kind, classes = self.spec.target, len(self.spec.class_names)
            wanted = targets_for(kind, classes, items, self.device)
            result = self._maps_of(images, wanted)
        logits = interpolated(result.logits.float(), size)
        names = self.spec.class_names
        groups: dict[Frame, list[int]] = {}
        for position, item in enumerate(items):
            groups.setdefault(item.prepared.frame, []).append(position)
        for frame, positions in groups.items():
            at = torch.tensor(positions, device=self.device)
            prediction = predict(
                frame.restore(logits.index_select(0, at)), self.spec.head or "softmax"
            )
            images_here = tuple(items[i] for i in positions)
            yield ExplainedBatch(images_here, prediction, names, result, at, frame, size)

    def _maps_of(self, images: Tensor, targets: Sequence[Target]) -> CAMResult:
        if self.spec.tiles is None:
            return self._cam(images, targets=targets)
        tile, overlap = self.spec.tiles
        return self._cam.tiled(images, tile, overlap, targets=targets, progress=self._progress)

    def rows(self, items: Sequence[Item]) -> pd.DataFrame:
        """One row per image, layer and class, of images whose prepared tensors have one shape.

        Parameters
        ----------
        items : sequence of Item
            With their ground truth.

        Returns
        -------
        DataFrame
            The key columns, then the measures of :func:`unetcam.measures.measure`.
        """
        null = self._null([item for item in items if item.sample.id in self._null_images])
        tables = [
            self._measured(batch, slice(start, start + count), null)
            for batch in self.explained(items)
            for count in (self._at_once(batch),)
            for start in range(0, len(batch.items), count)
        ]
        return pd.concat(tables, ignore_index=True)

    def _at_once(self, batch: ExplainedBatch) -> int:
        pixels = batch.prediction[0].numel() * len(self.spec.class_names)
        return max(1, MEASURED_AT_ONCE // pixels)

    def _null(self, items: Sequence[Item]) -> dict[str, list[dict[str, Tensor]]]:
        """By image and layer, the measures (1, T) of maps whose channels are weighed at random."""
        if not items or self.spec.tiles is not None:  # such maps are of a whole image's forward
            return {}
        images = torch.stack([item.prepared.image for item in items]).to(self.device, self._dtype)
        size = tuple(images.shape[2:])
        with torch.autocast(self.device.type, enabled=self.spec.amp):
            result = self._null_cam(images, ClassScore(0))

        def of_image(position: int, item: Item) -> list[dict[str, Tensor]]:
            restore = item.prepared.frame.restore
            geometry = Geometry(
                torch.from_numpy(item.truth)[None].to(self.device),
                range(len(self.spec.class_names)),
                num_classes=len(self.spec.class_names),
                band=self.spec.band,
                tolerance=0.0,
            )

            def draws(layer: str) -> Iterator[Tensor]:
                for one in result[layer][position].unbind(0):
                    yield restore(interpolated(one[None, None], size))[:, 0].float()

            return [null_numbers(draws(layer), geometry) for layer in self.layers]

        return {item.sample.id: of_image(k, item) for k, item in enumerate(items)}

    def _measured(
        self,
        batch: ExplainedBatch,
        part: slice,
        null: Mapping[str, Sequence[Mapping[str, Tensor]]],
    ) -> pd.DataFrame:
        """The rows of some images; of a volume that is large, one class after the other."""
        items, count = batch.items[part], len(self.spec.class_names)
        truth = torch.from_numpy(np.stack([item.truth for item in items])).to(self.device)
        at_once = max(1, min(count, MEASURED_AT_ONCE // truth.numel()))
        groups = [range(start, count)[:at_once] for start in range(0, count, at_once)]
        measured = [self._of_classes(batch, part, truth, classes) for classes in groups]
        found = [
            {name: torch.cat([one[name] for one in layer], dim=1) for name in layer[0]}
            for layer in zip(*measured, strict=True)
        ]
        unknown = torch.full((1, count), torch.nan, dtype=torch.float64, device=self.device)
        for number, layer_numbers in enumerate(found):
            of_images = [null[i.sample.id][number] if i.sample.id in null else {} for i in items]
            for name in null_columns():
                layer_numbers[name] = torch.cat([one.get(name, unknown) for one in of_images])
        return self._table(items, found)

    def _of_classes(
        self, batch: ExplainedBatch, part: slice, truth: Tensor, classes: range
    ) -> list[dict[str, Tensor]]:
        """By layer, the measures of some classes, (b, t) each."""
        spec, prediction = self.spec, batch.prediction[part]
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
            for layer in self.layers
        ]

    def _table(self, items: Sequence[Item], found: Sequence[Mapping[str, Tensor]]) -> pd.DataFrame:
        """Rows in the order image, layer, class; the one place where numbers leave the device."""
        names = list(found[0])
        stacked = torch.stack([torch.stack([one[n].double() for n in names]) for one in found])
        numbers = stacked.permute(2, 0, 3, 1).reshape(-1, len(names)).cpu().numpy()  # (B L T, M)
        types = [_TYPES.get(found[0][n].dtype, np.float32) for n in names]
        b, t = len(items), len(self.spec.class_names)
        layers = len(self.layers)
        columns: dict[str, Any] = {
            "image": np.repeat([item.sample.id for item in items], layers * t),
            "layer": np.tile(np.repeat(self.layers, t), b),
            "stage_stride": np.tile(np.repeat(np.array(self.strides, np.int32), t), b),
            "class_index": np.tile(np.arange(t, dtype=np.int32), b * layers),
            "class_name": np.tile(self.spec.class_names, b * layers),
            "target": self.spec.target,
            "method": self.spec.method,
        }
        for position, (name, kind) in enumerate(zip(names, types, strict=True)):
            columns[name] = numbers[:, position].astype(kind)
        return pd.DataFrame(columns)


_TYPES: dict[torch.dtype, Any] = {
    torch.bool: np.bool_,
    torch.int64: np.int64,
    torch.int32: np.int32,
    torch.float64: np.float64,
}
