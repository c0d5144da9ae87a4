"""Explaining a batch of read images or volumes: maps in each one's own frame."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unetcam import methods
from unetcam.cam import UNetCAM
from unetcam.data import Frame, Item
from unetcam.measures.null import NULL_DRAWS
from unetcam.methods.baseline import RandomDraws
from unetcam.models import LoadedModel
from unetcam.resizing import interpolated
from unetcam.result import CAMResult
from unetcam.runs.framed_targets import targets_for
from unetcam.runs.spec import Spec
from unetcam.targets import ClassScore, Target, predict


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


@dataclass(frozen=True, eq=False)
class RandomMaps:
    """Maps of some images whose channels are weighed at random.

    Attributes
    ----------
    items : tuple of Item
    """

    items: tuple[Item, ...]
    _result: CAMResult
    _size: tuple[int, ...]

    @property
    def device(self) -> torch.device:
        """Where the maps lie."""
        return self._result.logits.device

    def draws(self, position: int, layer: str) -> Iterator[Tensor]:
        """One image's maps at a layer, each (1, *spatial) float32 in the image's own frame."""
        restore = self.items[position].prepared.frame.restore
        for one in self._result[layer][position].unbind(0):
            yield restore(interpolated(one[None, None], self._size))[:, 0].float()


@dataclass(frozen=True, eq=False)
class Explained:
    """What the network was asked for some images; the rows follow from it without the network.

    Attributes
    ----------
    batches : tuple of ExplainedBatch
    null : RandomMaps or None
        Of those images in which the measures' null is measured.
    """

    batches: tuple[ExplainedBatch, ...]
    null: RandomMaps | None


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
        self._insisted = model.batch_size if model.is_traced else None
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
        filled = self._filled(items)
        images = torch.stack([item.prepared.image for item in filled])
        images = images.to(self.device, self._dtype)
        size = tuple(images.shape[2:])
        with torch.autocast(self.device.type, enabled=self.spec.amp):
            kind, classes = self.spec.target, len(self.spec.class_names)
            wanted = targets_for(kind, classes, filled, self.device)
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

    def _filled(self, items: Sequence[Item]) -> list[Item]:
        """Images with the last one repeated, as many as a network that insists on some takes."""
        return [*items, *[items[-1]] * ((self._insisted or 0) - len(items))]

    def _maps_of(self, images: Tensor, targets: Sequence[Target]) -> CAMResult:
        if self.spec.tiles is None:
            return self._cam(images, targets=targets)
        tile, overlap = self.spec.tiles
        return self._cam.tiled(images, tile, overlap, targets=targets, progress=self._progress)

    def explain(self, items: Sequence[Item]) -> Explained:
        """Everything that rows need of the network, for images whose tensors have one shape.

        Raises
        ------
        UnetcamError
            For an input or a network that can't be explained.
        """
        null = self._random([item for item in items if item.sample.id in self._null_images])
        return Explained(tuple(self.explained(items)), null)

    def _random(self, items: Sequence[Item]) -> RandomMaps | None:
        if not items or self.spec.tiles is not None:  # such maps are of a whole image's forward
            return None
        images = torch.stack([item.prepared.image for item in self._filled(items)])
        images = images.to(self.device, self._dtype)
        with torch.autocast(self.device.type, enabled=self.spec.amp):
            result = self._null_cam(images, ClassScore(0))
        return RandomMaps(tuple(items), result, tuple(images.shape[2:]))
