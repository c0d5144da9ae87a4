"""The images that stand for each class, chosen and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unetcam.page.overlays import Outlines, encoded, in_threads, overlay, resized
from unetcam.page.text import percent

if TYPE_CHECKING:
    from unetcam.runs import Run

Role = Literal["best", "typical", "worst"]

ROLE_TITLES: dict[Role, str] = {
    "best": "Best image",
    "typical": "Typical image",
    "worst": "Worst image",
}
#: Width of a picture in the page's file, by how many pictures there are: the file stays small
#: enough to be sent by mail.
WIDTHS = ((100, 440), (200, 360), (400, 280), (800, 220))
SMALLEST_WIDTH = 180


@dataclass(frozen=True)
class Origin:
    """What an encoder layer holds for a class: the picture of where a prediction comes from.

    Attributes
    ----------
    layer : str
        The layer, near the image's own resolution.
    stride : int
        Input pixels per pixel of it.
    heat : ndarray of float32, shape (H, W)
        What speaks for the class and against the next best one, over the pixels predicted as the
        class, by HiResCAM; scaled to [0, 1]. NaN where nothing is predicted as the class.
    """

    layer: str
    stride: int
    heat: NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """One image that stands for a class.

    Attributes
    ----------
    class_index : int
    role : {"best", "typical", "worst"}
        By the class's IoU.
    image_id : str
    score : float
        The class's IoU in this image.
    image : ndarray of uint8, shape (H, W, 3)
        RGB, for display.
    truth, prediction : ndarray of int, shape (H, W)
        Class indices; -1 in ``truth`` is an ignored pixel.
    maps : mapping of str to ndarray of float32, shape (H, W)
        Each layer's map of the class, scaled to [0, 1] by its own maximum; NaN where the class
        has none.
    slice_title : str
        Which slice of a volume image, masks and maps are; empty for an image.
    origin : Origin, optional
    """

    class_index: int
    role: Role
    image_id: str
    score: float
    image: NDArray[np.uint8]
    truth: NDArray[Any]
    prediction: NDArray[Any]
    maps: Mapping[str, NDArray[np.float32]]
    slice_title: str = ""
    origin: Origin | None = None


def choose_examples(
    rows: pd.DataFrame, layers: Sequence[str] | None = None
) -> list[tuple[int, Role, str]]:
    """Choose each class's best, typical and worst image.

    Images are ranked by the class's IoU among those that contain the class; the typical one stands
    in the middle of the ranking. Two images give a best and a worst, one gives a typical.

    Parameters
    ----------
    rows : DataFrame
        A run's rows.
    layers : sequence of str, optional
        Layers, deepest first. Default: in the rows' order.

    Returns
    -------
    list of (int, str, str)
        Class index, role and image id.

    Examples
    --------
    >>> rows = pd.DataFrame({
    ...     "image": ["a", "b", "c"], "layer": "up1", "class_index": 1,
    ...     "class_iou": [0.5, 0.9, 0.7], "truth_pixels": 9.0})
    >>> choose_examples(rows)
    [(1, 'best', 'b'), (1, 'typical', 'c'), (1, 'worst', 'a')]
    """
    names = list(layers) if layers is not None else list(dict.fromkeys(rows["layer"]))
    once = rows[rows["layer"] == names[-1]] if names else rows
    chosen: list[tuple[int, Role, str]] = []
    for index in sorted({int(value) for value in once["class_index"]}):
        group = once[once["class_index"] == index]
        present = group[group["class_iou"].notna() & (group["truth_pixels"] > 0)]
        ranked = present.sort_values(["class_iou", "image"])["image"].astype(str).tolist()
        chosen.extend((index, role, image) for role, image in _roles(ranked))
    return chosen


def _roles(ranked: list[str]) -> list[tuple[Role, str]]:
    """Roles of images that are ranked from worst to best."""
    if not ranked:
        return []
    if len(ranked) == 1:
        return [("typical", ranked[0])]
    middle: list[tuple[Role, str]] = (
        [("typical", ranked[len(ranked) // 2])] if len(ranked) > 2 else []
    )
    return [("best", ranked[-1]), *middle, ("worst", ranked[0])]


@dataclass(frozen=True)
class Tile:
    """One picture with its caption: ``title``, which is a layer's name where ``of`` says so."""

    title: str
    source: str
    width: int
    height: int
    alt: str
    note: str
    of: Literal["image", "origin", "layer"]


@dataclass(frozen=True)
class Strip:
    """One image of a class: the image itself, where it comes from, its map at every layer."""

    role: Role
    title: str
    image_id: str
    slice_title: str
    score: float
    anchor: str
    tiles: tuple[Tile, ...]


class Gallery:
    """Draws the examples once, and finds them again by class.

    Parameters
    ----------
    run : Run
    rows : DataFrame
        From :func:`unetcam.page.tables.prepared`.
    examples : sequence of Example
    """

    def __init__(self, run: Run, rows: pd.DataFrame, examples: Sequence[Example]) -> None:
        self._run = run
        self._examples = examples
        self._inside = {
            (int(index), str(image), str(layer)): float(value)
            for index, image, layer, value in rows[
                ["class_index", "image", "layer", "truth_energy"]
            ].itertuples(index=False)
        }

    @cached_property
    def strips(self) -> list[tuple[int, Strip]]:
        """Every example with its class."""
        width = page_width(len(self._examples) * (len(self._run.layers) + 2))
        strips = in_threads(
            lambda numbered: self._strip(*numbered, width), enumerate(self._examples)
        )
        return [
            (example.class_index, strip)
            for example, strip in zip(self._examples, strips, strict=True)
        ]

    def of(self, class_index: int) -> list[Strip]:
        """A class's examples."""
        return [strip for index, strip in self.strips if index == class_index]

    def anchor(self, class_index: int, image_id: str) -> str | None:
        """Where an image of a class stands on the page."""
        strips = (strip for strip in self.of(class_index) if strip.image_id == image_id)
        return next((strip.anchor for strip in strips), None)

    def _strip(self, number: int, example: Example, width: int) -> Strip:
        width = min(width, max(160, 3 * example.image.shape[1]))
        return Strip(
            example.role,
            ROLE_TITLES[example.role],
            example.image_id,
            example.slice_title,
            example.score,
            f"example-{number}",
            tuple(self._tiles(example, width)),
        )

    def _tiles(self, example: Example, width: int) -> list[Tile]:
        name = self._run.classes.names[example.class_index]
        truth, prediction = (
            mask == example.class_index for mask in (example.truth, example.prediction)
        )
        shown = shown_as(example.image_id, example.slice_title)
        over = shown[0].lower() + shown[1:]
        canvas = resized(example.image, width)
        outlines = Outlines(canvas.shape[:2], truth, prediction)
        plain = outlines.over(canvas)
        tiles = [
            tile(
                "image", plain, f"{shown} with the true and the predicted outline of {name}.",
                "and outlines", "image",
            )
        ]  # fmt: skip
        heats: list[tuple[Literal["origin", "layer"], str, NDArray[np.float32]]] = []
        if example.origin is not None:
            heats.append(("origin", example.origin.layer, example.origin.heat))
        heats += [("layer", one, example.maps[one]) for one in self._run.layers
                  if one in example.maps]  # fmt: skip
        for of, layer, heat in heats:
            drawn = outlines.over(overlay(example.image, heat, width=width))
            note = (
                self._note(example, layer, heat) if of == "layer" else _origin_note(example, name)
            )
            kind = "Map" if of == "layer" else "Where from: map"
            alt = f"{kind} of {name} at layer {layer} over {over}{'; ' if note else ''}{note}."
            tiles.append(tile(layer, drawn, alt, note, of))
        return tiles

    def _note(self, example: Example, layer: str, heat: NDArray[np.float32]) -> str:
        if np.isnan(heat).all():
            return "no map: nothing to explain here"
        if not np.nanmax(heat) > 0:
            return "no evidence in this slice" if example.slice_title else "empty map: no evidence"
        inside = self._inside.get((example.class_index, example.image_id, layer), float("nan"))
        return "" if np.isnan(inside) else f"{percent(inside)} on the class"


def page_width(pictures: int) -> int:
    """Width of each of so many pictures in the page's file.

    >>> page_width(40), page_width(1000)
    (440, 180)
    """
    return next((width for most, width in WIDTHS if pictures <= most), SMALLEST_WIDTH)


def shown_as(image_id: str, slice_title: str) -> str:
    """What an image, or the slice of a volume, is called in a sentence.

    >>> shown_as("scan_1", "axial slice 3 of 9")
    'Axial slice 3 of 9 of volume scan_1'
    """
    if slice_title:
        return f"{slice_title.capitalize()} of volume {image_id}"
    return f"Image {image_id}"


def _origin_note(example: Example, name: str) -> str:
    assert example.origin is not None
    heat, stride = example.origin.heat, example.origin.stride
    if np.isnan(heat).all():
        return f"no map: nothing here is predicted as {name}"
    if not np.nanmax(heat) > 0:
        return "empty map: no evidence"
    finest = "in the image's details" if stride == 1 else f"at 1/{stride} of the resolution"
    return f"what speaks for it {finest}"


def tile(
    title: str,
    picture: NDArray[np.uint8],
    alt: str,
    note: str,
    of: Literal["image", "origin", "layer"],
) -> Tile:
    """A picture with its caption, packed for the page."""
    height, width = picture.shape[:2]
    return Tile(title, encoded(picture), width, height, alt, note, of)
