"""The first screen: each class in a line, and the guard over all numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.page.synthetic import Run
from unetcam.measures import segmentation_quality
from unetcam.page.mistakes import Errors
from unetcam.page.overview import class_lines, warnings
from unetcam.page.tables import MeasureTables, prepared


def predicted(run: Run, predictions: dict[str, np.ndarray]) -> Run:
    """The run as it would be with other predictions, measured anew."""
    import torch

    rows = run.rows.copy()
    classes = len(run.classes.names)
    for image, prediction in predictions.items():
        truth = torch.from_numpy(run.pictures[image][1])[None]
        numbers = segmentation_quality(
            range(classes), truth, torch.from_numpy(prediction)[None], num_classes=classes
        )
        for name in ("predicted_pixels", "class_iou"):
            for index in range(classes):
                own = (rows["image"] == image) & (rows["class_index"] == index)
                rows.loc[own, name] = float(numbers[name][0, index])
    return replace(run, rows=rows)


def changed(run: Run, change) -> Run:  # type: ignore[no-untyped-def]
    return predicted(run, {name: change(*shown[1:3]) for name, shown in run.pictures.items()})


def test_a_prediction_that_fits_raises_no_warning(run: Run) -> None:
    assert warnings(run) == []
    assert warnings(changed(run, lambda truth, _: truth)) == []


def test_classes_in_another_order_are_noticed(run: Run) -> None:
    (said,) = warnings(changed(run, lambda truth, _: (truth + 1) % 5))
    assert "no better than chance" in said
    assert "class order" in said


def test_two_swapped_classes_are_named(run: Run) -> None:
    swapped = np.array([0, 2, 1, 3, 4])
    said = warnings(changed(run, lambda truth, _: swapped[truth]))
    assert [one.split(" is ")[0] for one in said] == ["sound", "elsewhere"]
    assert all("not where the masks have it" in one for one in said)


@pytest.mark.parametrize("everything", [0, 3])
def test_one_class_everywhere_is_noticed(run: Run, everything: int) -> None:
    (said,) = warnings(changed(run, lambda truth, _: np.full_like(truth, everything)))
    name = run.classes.names[everything]
    assert said.startswith(f"Every pixel of every image is predicted as {name}")
    assert "value range" in said


def test_a_class_that_is_never_predicted_is_named(run: Run) -> None:
    (said,) = warnings(changed(run, lambda truth, _: np.where(truth == 4, 0, truth)))
    assert said.startswith("scattered is never predicted, and the masks hold ")


def test_noise_is_no_agreement(run: Run) -> None:
    rng = np.random.default_rng(0)
    (said,) = warnings(changed(run, lambda truth, _: rng.integers(0, 5, truth.shape)))
    assert "no better than chance" in said


def test_masks_of_one_class_are_no_reason_for_a_warning(run: Run) -> None:
    rows = run.rows[run.rows["class_index"] == 0].assign(
        truth_pixels=100, predicted_pixels=100, class_iou=1.0
    )
    assert warnings(replace(run, rows=rows)) == []


def test_a_run_without_labelled_pixels_says_nothing(run: Run) -> None:
    rows = run.rows.assign(truth_pixels=0, predicted_pixels=0, class_iou=np.nan)
    assert warnings(replace(run, rows=rows)) == []


def test_each_class_gets_its_verdict_from_the_diagnosis(run: Run) -> None:
    rows = prepared(run.rows)
    stats, errors = MeasureTables(run, rows).stats, Errors(run)

    def verdicts(diagnosis) -> list[tuple[str, str]]:  # type: ignore[no-untyped-def]
        lines = class_lines(run, stats, rows, errors, diagnosis)
        return [(line.status, line.verdict) for line in lines]

    assert verdicts(None) == [("unknown", "Not tested")] * 5
    assert verdicts(run.diagnosis(healthy=True)) == [("ok", "Nothing found")] * 5
    found = verdicts(run.diagnosis())
    assert found[2] == ("high", "Needs attention")
    assert found[:2] + found[3:] == [("ok", "Nothing found")] * 4


def test_a_line_counts_the_images_that_hold_the_class(run: Run) -> None:
    rows = prepared(run.rows)
    lines = class_lines(run, MeasureTables(run, rows).stats, rows, Errors(run), None)
    truths = [shown[1] for shown in run.pictures.values()]
    for line in lines:
        assert line.present == sum(bool((truth == line.index).any()) for truth in truths)
        assert line.images == len(truths)


def test_a_class_of_which_no_pixel_is_right_gets_no_green_mark(run: Run) -> None:
    """Nothing was found about it, as nothing of it could flip: that is no clean bill."""
    wrong = changed(run, lambda truth, _: np.where(truth == 1, 0, truth))
    errors = Errors(wrong)
    assert errors.classes[1].common == 0
    clean = replace(wrong.diagnosis(), findings=())
    lines = class_lines(
        wrong, MeasureTables(wrong, prepared(wrong.rows)).stats, prepared(wrong.rows), errors, clean
    )
    verdicts = {line.index: (line.status, line.verdict) for line in lines}
    assert verdicts[1] == ("unknown", "Not judged: no pixel is right")
    assert ("ok", "Nothing found") in verdicts.values()
