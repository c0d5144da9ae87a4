from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.page.synthetic import Run
from unetcam.page.gallery import Gallery, choose_examples, page_width
from unetcam.page.tables import prepared


def table(scores: list[float], pixels: float = 9.0) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image": [f"i{number}" for number in range(len(scores))], "layer": "up1",
            "class_index": 1, "class_name": "cell", "class_iou": scores, "truth_pixels": pixels,
        }
    )  # fmt: skip


def test_best_typical_and_worst_are_chosen_by_the_iou_of_the_class() -> None:
    assert choose_examples(table([0.2, 0.9, 0.5, 0.6, 0.1])) == [
        (1, "best", "i1"),
        (1, "typical", "i2"),
        (1, "worst", "i4"),
    ]


def test_no_image_is_shown_in_two_roles() -> None:
    for count in range(1, 6):
        chosen = choose_examples(table([0.5] * count))
        images = [image for _, _, image in chosen]
        assert len(images) == len(set(images)) == min(count, 3)


def test_one_image_is_typical_and_two_are_best_and_worst() -> None:
    assert [role for _, role, _ in choose_examples(table([0.4]))] == ["typical"]
    assert [role for _, role, _ in choose_examples(table([0.4, 0.5]))] == ["best", "worst"]


def test_images_without_the_class_are_not_chosen() -> None:
    assert choose_examples(table([np.nan, np.nan])) == []
    assert choose_examples(table([0.0, 0.0], pixels=0.0)) == []


def test_the_choice_does_not_depend_on_the_order_of_the_rows() -> None:
    rows = table([0.5, 0.5, 0.7, 0.7, 0.2])
    assert choose_examples(rows) == choose_examples(rows.iloc[::-1])


def test_no_image_is_chosen_twice_for_a_class(run: Run) -> None:
    chosen = [(index, image) for index, _, image in choose_examples(run.rows, run.layers)]
    assert len(chosen) == len(set(chosen))


def test_a_strip_goes_from_the_image_over_where_from_to_the_finest_layer(run: Run) -> None:
    example = run.examples()[0]
    (strip,) = Gallery(run, prepared(run.rows), [example]).of(example.class_index)
    assert [tile.of for tile in strip.tiles] == ["image", "origin", *["layer"] * 4]
    assert [tile.title for tile in strip.tiles] == ["image", "down1", *run.layers]
    (without,) = Gallery(run, prepared(run.rows), [replace(example, origin=None)]).of(
        example.class_index
    )
    assert [tile.of for tile in without.tiles] == ["image", *["layer"] * 4]


@pytest.mark.parametrize(
    ("stride", "heat", "note"),
    [
        (1, 1.0, "what speaks for it in the image's details"),
        (2, 1.0, "what speaks for it at 1/2 of the resolution"),
        (1, 0.0, "empty map: no evidence"),
        (1, np.nan, "no map: nothing here is predicted as background"),
    ],
)
def test_where_from_says_what_it_is(run: Run, stride: int, heat: float, note: str) -> None:
    example = run.examples()[0]
    assert example.origin is not None
    origin = replace(example.origin, stride=stride, heat=np.full_like(example.origin.heat, heat))
    (strip,) = Gallery(run, prepared(run.rows), [replace(example, origin=origin)]).of(0)
    assert [tile.note for tile in strip.tiles if tile.of == "origin"] == [note]


@pytest.mark.parametrize(
    ("heat", "note"),
    [(np.nan, "no map: nothing to explain here"), (0.0, "empty map: no evidence")],
)
def test_a_map_that_shows_nothing_says_why(run: Run, heat: float, note: str) -> None:
    example = run.examples()[0]
    maps = {layer: np.full_like(found, heat) for layer, found in example.maps.items()}
    (strip,) = Gallery(run, prepared(run.rows), [replace(example, maps=maps)]).of(
        example.class_index
    )
    assert {tile.note for tile in strip.tiles if tile.of == "layer"} == {note}


def test_more_pictures_are_smaller_pictures() -> None:
    widths = [page_width(count) for count in (1, 101, 201, 401, 801)]
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == 5
