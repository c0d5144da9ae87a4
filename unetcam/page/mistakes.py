"""Where the network errs: precision and recall, what is taken for what, and the worst images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unetcam.page.gallery import Origin

if TYPE_CHECKING:
    from unetcam.runs import Run

#: Pairs of classes whose worst image is shown, and images that are listed, of each kind of error.
MOST_PAIRS = 6
MOST_IMAGES = 8
#: Pairs of classes with a smaller share of the wrong pixels are no large error.
LEAST_SHARE = 0.01


@dataclass(frozen=True)
class ClassErrors:
    """A class's errors over all labelled pixels of the run together.

    Attributes
    ----------
    class_index : int
    truth_pixels, predicted_pixels, common : int
        How many pixels the masks have of it, the prediction, and both at once.
    """

    class_index: int
    truth_pixels: int
    predicted_pixels: int
    common: int

    @property
    def missed(self) -> int:
        """Pixels that are of the class and predicted as another."""
        return self.truth_pixels - self.common

    @property
    def made_up(self) -> int:
        """Pixels that are predicted as the class and are of another."""
        return self.predicted_pixels - self.common

    @property
    def recall(self) -> float:
        """Share of the class's pixels that are predicted as it; NaN where it has none.

        >>> ClassErrors(1, 80, 60, 40).recall, ClassErrors(1, 0, 60, 0).recall
        (0.5, nan)
        """
        return self.common / self.truth_pixels if self.truth_pixels else float("nan")

    @property
    def precision(self) -> float:
        """Share of what is predicted as the class that is of it; NaN where nothing is."""
        return self.common / self.predicted_pixels if self.predicted_pixels else float("nan")

    @property
    def iou(self) -> float:
        """Intersection over union of all pixels together; NaN where neither has any."""
        union = self.truth_pixels + self.predicted_pixels - self.common
        return self.common / union if union else float("nan")


@dataclass(frozen=True)
class ImageErrors:
    """How many pixels of a class an image misses or makes up, as ``kind`` says."""

    class_index: int
    image_id: str
    kind: Literal["missed", "made up"]
    pixels: int
    of: int


@dataclass(frozen=True)
class Pair:
    """Pixels of one class that were taken for another, over the run, and the worst image."""

    truth: int
    taken_for: int
    pixels: int
    images: int
    worst: str
    worst_pixels: int


@dataclass(frozen=True)
class Mistake:
    """A pair of classes as it is shown: the image that has most of it, and a map of why.

    Attributes
    ----------
    pair : Pair
    image : ndarray of uint8, shape (H, W, 3)
    truth, prediction : ndarray of int, shape (H, W)
        Class indices; -1 in ``truth`` is an ignored pixel.
    why : mapping of layer to ndarray
        What speaks for the class that the pixels were taken for and against the one that they
        are of, over these pixels, by HiResCAM; scaled to [0, 1].
    slice_title : str
        Which slice of a volume it is; empty for an image.
    """

    pair: Pair
    image: NDArray[np.uint8]
    truth: NDArray[Any]
    prediction: NDArray[Any]
    why: Sequence[Origin] = ()
    slice_title: str = ""

    @property
    def region(self) -> NDArray[np.bool_]:
        """(H, W): the pixels that were taken for the other class."""
        mistaken: NDArray[np.bool_] = (self.truth == self.pair.truth) & (
            self.prediction == self.pair.taken_for
        )
        return mistaken


class Errors:
    """The errors of a run, counted from its rows.

    Parameters
    ----------
    run : Run

    Attributes
    ----------
    classes : dict of int to ClassErrors
    confusion : ndarray of int64, shape (C, C), or None
        Pixels by true class (rows) and predicted class (columns), over the whole run; None where
        the rows do not hold them.
    """

    def __init__(self, run: Run) -> None:
        rows = run.rows
        self._rows = rows[rows["layer"] == run.layers[-1]].assign(
            common=lambda frame: common_pixels(frame)
        )
        self._names = list(run.classes.names)
        self._columns = [f"predicted_as_{index}" for index in range(len(self._names))]
        self.classes = {
            int(str(index)): ClassErrors(
                int(str(index)),
                *(
                    int(group[name].sum())
                    for name in ("truth_pixels", "predicted_pixels", "common")
                ),
            )
            for index, group in self._rows.groupby("class_index")
        }
        self.confusion = self._confusion()

    @property
    def pixels(self) -> int:
        """All labelled pixels."""
        return sum(one.truth_pixels for one in self.classes.values())

    @property
    def correct(self) -> int:
        """Those whose class was predicted."""
        return sum(one.common for one in self.classes.values())

    @property
    def kappa(self) -> float:
        """Agreement beyond chance: 1 is full, 0 what shuffled pixels would give (Cohen 1960).

        NaN where masks and prediction are of one and the same class throughout.
        """
        total = self.pixels
        if not total:
            return float("nan")
        agreed = self.correct / total
        chance = sum(
            one.truth_pixels / total * (one.predicted_pixels / total)
            for one in self.classes.values()
        )
        return (agreed - chance) / (1 - chance) if chance < 1 else float("nan")

    def worst_images(self, kind: Literal["missed", "made up"]) -> list[ImageErrors]:
        """The images with most pixels of a kind of error, the worst first."""
        whole = "truth_pixels" if kind == "missed" else "predicted_pixels"
        errors = [
            ImageErrors(int(index), str(image), kind, int(all_pixels - common), int(all_pixels))
            for index, image, all_pixels, common in self._rows[
                ["class_index", "image", whole, "common"]
            ].itertuples(index=False)
            if all_pixels > common
        ]
        return sorted(errors, key=lambda e: (-e.pixels, e.class_index, e.image_id))[:MOST_IMAGES]

    def pairs(self, most: int = MOST_PAIRS, least: float = LEAST_SHARE) -> list[Pair]:
        """What was taken for what, the costliest pairs of classes first.

        Parameters
        ----------
        most : int
            How many at most.
        least : float
            Pairs with a smaller share of the wrong pixels are left out.
        """
        if self.confusion is None:
            return []
        found = []
        for truth, taken_for in np.argwhere(self.confusion > 0).tolist():
            if truth == taken_for:
                continue
            own = self._rows[self._rows["class_index"] == truth]
            counts = own[self._columns[taken_for]].to_numpy(np.int64)
            worst = min(
                np.flatnonzero(counts == counts.max()), key=lambda at: str(own["image"].iloc[at])
            )
            found.append(
                Pair(
                    truth, taken_for, int(counts.sum()), int((counts > 0).sum()),
                    str(own["image"].iloc[worst]), int(counts[worst]),
                )
            )  # fmt: skip
        wrong = sum(pair.pixels for pair in found)
        large = [pair for pair in found if pair.pixels >= least * wrong]
        return sorted(large, key=lambda pair: (-pair.pixels, pair.truth, pair.taken_for))[:most]

    def _confusion(self) -> NDArray[np.int64] | None:
        if not set(self._columns) <= set(self._rows.columns):
            return None
        matrix = np.zeros((len(self._names), len(self._names)), np.int64)
        for index, group in self._rows.groupby("class_index"):
            matrix[int(str(index))] = group[self._columns].fillna(0).sum().to_numpy(np.int64)
        return matrix


def common_pixels(rows: pd.DataFrame) -> pd.Series[int]:
    """How many pixels prediction and truth share, from what a row has of both.

    With t, p and c pixels of the truth, the prediction and both, IoU is c / (t + p - c), so that
    c = IoU (t + p) / (1 + IoU), a whole number.

    >>> common_pixels(pd.DataFrame(
    ...     {"truth_pixels": [30, 0], "predicted_pixels": [30, 5], "class_iou": [0.5, np.nan]}
    ... )).tolist()
    [20, 0]
    """
    iou = rows["class_iou"].fillna(0.0).astype(float)
    both = rows["truth_pixels"].astype(float) + rows["predicted_pixels"].astype(float)
    return (iou * both / (1 + iou)).round().fillna(0).astype(np.int64)
