"""The example images as they stand on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from unetcam.page.examples import Example, Role
from unetcam.page.findings import Finding
from unetcam.page.model import RunLike
from unetcam.page.overlays import encoded, outlined, overlay, resized
from unetcam.page.text import percent, slug
from unetcam.page.threads import in_threads

ROLE_TITLES: dict[Role, str] = {
    "best": "Best image",
    "typical": "Typical image",
    "worst": "Worst image",
    "evidence": "Behind a finding",
}
#: Width of a picture in the page's file, by how many pictures there are: the file stays small
#: enough to be sent by mail.
WIDTHS = ((100, 440), (200, 360), (400, 280), (800, 220))
SMALLEST_WIDTH = 180


@dataclass(frozen=True)
class Tile:
    """One picture with its caption."""

    layer: str
    source: str
    width: int
    height: int
    alt: str
    note: str


@dataclass(frozen=True)
class Strip:
    """One image of a class: the image itself, then its map at every layer."""

    role: str
    title: str
    image_id: str
    place: str
    score: float
    anchor: str
    tiles: tuple[Tile, ...]


class Gallery:
    """Draws the examples once, and finds them again by class and by finding.

    Parameters
    ----------
    run : RunLike
    rows : DataFrame
        From ``readings.prepared``.
    examples : sequence of Example
    findings : sequence of Finding
        So that an image chosen for a finding can name it.
    """

    def __init__(
        self,
        run: RunLike,
        rows: pd.DataFrame,
        examples: Sequence[Example],
        findings: Sequence[Finding],
    ) -> None:
        self._run = run
        self._findings = findings
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
        count = len(self._examples) * (len(self._run.layers) + 1)
        width = next((width for most, width in WIDTHS if count <= most), SMALLEST_WIDTH)
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

    def picture(self, finding: Finding) -> tuple[Strip, Tile] | None:
        """The clearest image of a finding, at its layer, where it is among the examples."""
        shown = {strip.image_id: strip for strip in self.of(finding.class_index)}
        for image, _ in finding.images:
            for tile in shown[image].tiles if image in shown else ():
                if tile.layer == finding.layer:
                    return shown[image], tile
        return None

    def anchor(self, class_index: int, image_id: str) -> str | None:
        """Where an image of a class stands on the page."""
        strips = (strip for strip in self.of(class_index) if strip.image_id == image_id)
        return next((strip.anchor for strip in strips), None)

    def _strip(self, place: int, example: Example, width: int) -> Strip:
        width = min(width, max(160, 3 * example.image.shape[1]))
        name = self._run.classes.names[example.class_index]
        truth, prediction = (
            mask == example.class_index for mask in (example.truth, example.prediction)
        )
        plain = outlined(resized(example.image, width), truth, prediction)
        tiles = [
            Tile(
                "", encoded(plain), width, plain.shape[0],
                f"{_where(example)} with the true and the predicted outline of {name}.", "",
            )
        ]  # fmt: skip
        for layer in self._run.layers:
            if layer not in example.maps:
                continue
            heat = example.maps[layer]
            drawn = overlay(example.image, heat, truth, prediction=prediction, width=width)
            note = self._note(example, layer)
            shown = _where(example)
            alt = f"Map of {name} at layer {layer} over {shown[0].lower()}{shown[1:]}; {note}."
            tiles.append(Tile(layer, encoded(drawn), width, drawn.shape[0], alt, note))
        return Strip(
            example.role,
            self._title(example),
            example.image_id,
            example.place,
            example.score,
            f"example-{place}",
            tuple(tiles),
        )

    def _title(self, example: Example) -> str:
        shown = [
            finding.title[0].lower() + finding.title[1:]
            for finding in self._findings
            if finding.class_index == example.class_index
            and any(image == example.image_id for image, _ in finding.images)
        ]
        if example.role == "evidence" and shown:
            return f"Clearest for: {', '.join(shown)}"
        return ROLE_TITLES[example.role]

    def _note(self, example: Example, layer: str) -> str:
        heat = example.maps[layer]
        if np.isnan(heat).all():
            return "no map: nothing to explain here"
        if not np.nanmax(heat) > 0:
            return "no evidence in this slice" if example.place else "empty map: no evidence"
        inside = self._inside.get((example.class_index, example.image_id, layer), float("nan"))
        return "" if np.isnan(inside) else f"{percent(inside)} on the class"


def _where(example: Example) -> str:
    if example.place:
        return f"{example.place.capitalize()} of volume {example.image_id}"
    return f"Image {example.image_id}"


def file_names(names: Sequence[str]) -> list[str]:
    """A different, safe file name for each name.

    Examples
    --------
    >>> file_names(["a/b", "a b", "c"])
    ['a-b', 'a-b-2', 'c']
    """
    taken: set[str] = set()
    found = []
    for name in names:
        stem, tail, count = slug(name)[:60], "", 1
        while (stem + tail).lower() in taken:
            count += 1
            tail = f"-{count}"
        taken.add((stem + tail).lower())
        found.append(stem + tail)
    return found
