from __future__ import annotations

import numpy as np
import pandas as pd

from tests.page.synthetic import Run
from unetcam.page.examples import MOST_EVIDENCE, choose_examples
from unetcam.page.findings import find


def table(scores: list[float], pixels: float = 9.0) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image": [f"i{place}" for place in range(len(scores))], "layer": "up1",
            "class_index": 1, "class_name": "cell", "class_iou": scores,
            "truth_pixels": pixels, "effective_area": 0.1, "outside_far_share": 0.0,
            "boundary_ratio": 1.0, "band_mass_ratio": 3.0,
            "truth_energy": 0.9,
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


def test_every_grave_finding_has_its_clearest_image_among_the_examples(run: Run) -> None:
    chosen = {(index, image) for index, _, image in choose_examples(run.rows, run.layers)}
    found = find(run)[:MOST_EVIDENCE]
    assert found
    for finding in found:
        assert (finding.class_index, finding.images[0][0]) in chosen


def test_no_image_is_chosen_twice_for_a_class(run: Run) -> None:
    chosen = [(index, image) for index, _, image in choose_examples(run.rows, run.layers)]
    assert len(chosen) == len(set(chosen))
