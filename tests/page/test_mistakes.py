"""Where a network errs, counted again from its masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.page.synthetic import Run
from unetcam.page.mistake_views import confusion_table, error_content
from unetcam.page.mistakes import Errors, common_pixels


def masks(run: Run) -> tuple[np.ndarray, np.ndarray]:
    truths, predictions = zip(*(shown[1:3] for shown in run.pictures.values()), strict=True)
    return np.stack(truths), np.stack(predictions)


def test_every_count_is_that_of_the_masks(run: Run) -> None:
    truth, prediction = masks(run)
    errors = Errors(run)
    assert errors.pixels == truth.size
    assert errors.correct == (truth == prediction).sum()
    for index, one in errors.classes.items():
        inside, marked = truth == index, prediction == index
        assert one.missed == (inside & ~marked).sum()
        assert one.made_up == (marked & ~inside).sum()
        assert one.recall == pytest.approx((inside & marked).sum() / inside.sum())
        assert one.precision == pytest.approx((inside & marked).sum() / marked.sum())
        assert one.iou == pytest.approx((inside & marked).sum() / (inside | marked).sum())
    for i in range(5):
        for j in range(5):
            assert errors.confusion[i, j] == ((truth == i) & (prediction == j)).sum()


def test_common_pixels_are_exact_for_every_small_overlap() -> None:
    triples = [(t, p, c) for t in range(1, 30) for p in range(30) for c in range(min(t, p) + 1)]
    table = pd.DataFrame(triples, columns=["truth_pixels", "predicted_pixels", "common"])
    union = table["truth_pixels"] + table["predicted_pixels"] - table["common"]
    for dtype in (np.float64, np.float32):
        table["class_iou"] = (table["common"] / union).astype(dtype)
        assert (common_pixels(table) == table["common"]).all()


def test_pairs_are_ordered_by_what_they_cost_and_name_their_worst_image(run: Run) -> None:
    pairs = Errors(run).pairs(most=100, least=0.0)
    assert [pair.pixels for pair in pairs] == sorted((p.pixels for p in pairs), reverse=True)
    assert sum(pair.pixels for pair in pairs) == Errors(run).pixels - Errors(run).correct
    pair = pairs[0]
    counts = {
        image: int(((truth == pair.truth) & (prediction == pair.taken_for)).sum())
        for image, (_, truth, prediction, _) in run.pictures.items()
    }
    assert counts[pair.worst] == max(counts.values()) == pair.worst_pixels
    assert sum(count > 0 for count in counts.values()) == pair.images


def test_errors_of_a_few_pixels_are_not_shown(run: Run) -> None:
    errors = Errors(run)
    wrong = errors.pixels - errors.correct
    every = errors.pairs(most=100, least=0.0)
    large = errors.pairs(most=100)
    assert large == [pair for pair in every if pair.pixels >= 0.01 * wrong]
    assert len(large) < len(every)


@pytest.mark.parametrize("kind", ["missed", "made up"])
def test_the_worst_images_are_those_with_most_wrong_pixels(run: Run, kind: str) -> None:
    truth, prediction = masks(run)
    first = Errors(run).worst_images(kind)[0]
    inside, marked = ([mask == c for c in range(5)] for mask in (truth, prediction))
    wrong = [
        (i & ~m if kind == "missed" else m & ~i).sum((1, 2))
        for i, m in zip(inside, marked, strict=True)
    ]
    assert first.pixels == max(int(counts.max()) for counts in wrong)
    assert list(run.pictures)[int(wrong[first.class_index].argmax())] == first.image_id


def test_agreement_beyond_chance_is_that_of_scikit_learn(run: Run) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    truth, prediction = masks(run)
    expected = metrics.cohen_kappa_score(truth.ravel(), prediction.ravel())
    assert Errors(run).kappa == pytest.approx(expected)


def test_a_row_of_the_confusion_adds_up(run: Run) -> None:
    table = confusion_table(run, Errors(run))
    for index, (_, cells) in enumerate(table.rows):
        assert sum(cell.support for cell in cells) == Errors(run).classes[index].truth_pixels


def test_rows_without_a_confusion_have_none(run: Run) -> None:
    rows = run.rows.drop(columns=[f"predicted_as_{index}" for index in range(5)])
    errors = Errors(replace(run, rows=rows))
    assert errors.confusion is None
    assert errors.pairs() == []
    assert error_content(run, errors, [])["confusion"] is None


def test_the_pictures_of_a_mistake_outline_it(run: Run) -> None:
    mistake = run.mistakes()[0]
    truth, prediction = run.pictures[mistake.pair.worst][1:3]
    expected = (truth == mistake.pair.truth) & (prediction == mistake.pair.taken_for)
    np.testing.assert_array_equal(mistake.region, expected)
    (card, *_) = error_content(run, Errors(run), [mistake])["cards"]
    assert [tile.title for tile in card.tiles] == ["image", "down1", "up4"]
    assert f"{mistake.pair.pixels:,} pixels" in card.sentence
