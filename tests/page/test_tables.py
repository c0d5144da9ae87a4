from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.page.synthetic import Run, make_run
from unetcam.page import tables
from unetcam.page.mistakes import Errors
from unetcam.page.overview import cautions, class_lines, empty_maps
from unetcam.page.tables import MeasureTables, prepared
from unetcam.page.text import DASH, file_names


def numbers_of(run: Run) -> MeasureTables:
    return MeasureTables(run, prepared(run.rows))


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a class that has only empty maps, one that is never there, and few images."""
    run = make_run(
        tmp_path_factory.mktemp("silent"),
        names=("background", "disc", "mute", "ghost"),
        characters=("sound", "sound", "silent", "sound"),
        strides=(4, 2),
        images=3,
        absent=0.0,
    )
    ghost = run.rows["class_index"] == 3
    numbers = run.rows.columns[7:]
    run.rows[numbers] = run.rows[numbers].astype(float)
    run.rows.loc[ghost, numbers] = np.nan
    run.rows.loc[ghost, ["truth_pixels", "predicted_pixels", "empty", "present"]] = 0.0
    run.summary.loc[run.summary["class_index"] == 3, ["mean", "median", "low", "high"]] = np.nan
    run.summary.loc[run.summary["class_index"] == 3, "support"] = 0
    return run


def test_leakage_is_the_mean_over_images_and_its_rows_add_up(run: Run) -> None:
    layer = run.layers[-1]
    table, matrix = numbers_of(run).leakage(layer)
    own = run.rows[(run.rows["layer"] == layer) & (run.rows["class_index"] == 2)]
    expected = [np.nanmean(own[f"leak_{index}"].to_numpy(float)) for index in range(5)]
    np.testing.assert_allclose(matrix[2], expected, rtol=1e-6)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-4)
    name, cells = table.rows[2]
    assert name == "elsewhere"
    assert [cell.support for cell in cells] == [own["leak_0"].notna().sum()] * 5


def test_the_yardstick_of_the_leakage_is_the_area_of_the_classes(run: Run) -> None:
    rows = prepared(run.rows)
    shares = rows[rows["layer"] == run.layers[0]].groupby("class_index")["class_share"].mean()
    assert shares.sum() == pytest.approx(1.0)
    table, _ = numbers_of(run).leakage(run.layers[0])
    assert table.baseline[0].text == f"{100 * shares[0]:.0f}\u00a0%"


def test_profiles_are_means_over_the_images_that_have_the_bin(run: Run) -> None:
    curves, support = numbers_of(run).profiles(1)
    own = run.rows[(run.rows["layer"] == "up2") & (run.rows["class_index"] == 1)]
    columns = [f"profile_{place:02d}" for place in range(16)]
    np.testing.assert_allclose(curves["up2"], own[columns].mean(), rtol=1e-6)
    assert support == own[columns].notna().any(axis=1).sum()


def test_numbers_come_from_the_summary_with_their_support(run: Run) -> None:
    stats = tables.Stats(run.summary)
    line = run.summary.query("class_index == 1 and layer == 'up1' and metric == 'truth_energy'")
    stat = stats(1, "up1", "truth_energy")
    assert stat.mean == line["mean"].item()
    assert (stat.low, stat.high, stat.support) == tuple(line[["low", "high", "support"]].iloc[0])
    rows = dict(numbers_of(run).of_class(1))
    cell = rows["up1"][0]
    assert cell.text == f"{100 * stat.mean:.0f}\u00a0%"
    assert cell.support == stat.support
    assert f"{stat.support} images" in cell.hint


def test_a_number_that_no_image_has_is_a_dash_with_support_zero(silent: Run) -> None:
    stats = tables.Stats(silent.summary)
    for _, cells in numbers_of(silent).of_class(3):
        assert {(cell.text, cell.support) for cell in cells} == {(DASH, 0)}
    assert stats(99, "up1", "truth_energy").support == 0


def test_empty_maps_are_counted_and_give_no_other_number(silent: Run) -> None:
    assert empty_maps(silent) == [("mute", "up1", 3, 3), ("mute", "up2", 3, 3)]
    stats = tables.Stats(silent.summary)
    assert stats(2, "up1", "effective_area").support == 0
    curves, support = numbers_of(silent).profiles(2)
    assert support == 0
    assert np.isnan(curves["up1"]).all()


def test_what_limits_the_numbers_is_said(silent: Run) -> None:
    rows, stats = prepared(silent.rows), tables.Stats(silent.summary)
    lines = class_lines(silent, stats, rows, Errors(silent), None)
    said = " ".join(cautions(silent, lines))
    assert "In no image: ghost" in said
    assert "In fewer than 5 images: background, disc, mute" in said
    assert "mute at every layer" in said


def test_a_cell_says_whether_its_number_differs_from_its_null(run: Run) -> None:
    shown = {measure.column: table for measure, table in numbers_of(run).overview()}
    for name, cells in shown["truth_energy"].rows:
        assert not cells[0].apart, name  # made as the number itself and some noise
        assert cells[-1].apart, name
        assert all(cell.null for cell in cells)
    assert "within the range of random channel weights" in cells[0].hint


def test_a_run_without_nulls_shows_none(run: Run) -> None:
    rows = run.rows[[name for name in run.rows if not name.endswith("_null")]]
    bare = replace(run, rows=rows)
    for _, table in numbers_of(bare).overview():
        assert all(cell.apart and not cell.null for _, cells in table.rows for cell in cells)
    for _, answer in numbers_of(bare).symptoms(1):
        assert "random" not in answer


def test_the_three_symptoms_are_numbers_beside_their_null(run: Run) -> None:
    answers = numbers_of(run).symptoms(1)
    assert [question.split("?")[0] for question, _ in answers] == [
        "How much of the map lies away from the class",
        "How strong is the map along the boundary",
        "How far is the map scattered over the image",
    ]
    assert all("At up4 random channel weights give" in answer for _, answer in answers)


def test_a_symptom_that_no_image_has_is_not_answered(silent: Run) -> None:
    assert {answer for _, answer in numbers_of(silent).symptoms(3)} == {
        "No image could be measured."
    }


def test_maps_of_mistakes_have_no_better_side(run: Run) -> None:
    mistakes = replace(run, rows=run.rows.assign(target="false-positives"))
    assert numbers_of(mistakes).symptoms(1) == []
    assert {m.better for m in tables.judging(mistakes, tables.KEY_MEASURES)} == {""}
    assert "" not in {m.better for m in tables.judging(run, tables.KEY_MEASURES)}


def test_a_ratio_is_told_by_its_median(run: Run) -> None:
    (measure,) = (m for m in tables.KEY_MEASURES if m.column == "boundary_ratio")
    summary = run.summary.copy()
    own = (summary["class_index"] == 1) & (summary["metric"] == "boundary_ratio")
    summary.loc[own, ["mean", "median"]] = 500.0, 0.9
    cell = numbers_of(replace(run, summary=summary)).cell(1, "up1", measure)
    assert cell.text == "0.90"
    assert cell.hint.startswith("median of")


def test_the_full_table_has_every_number_but_charts_and_matrices(run: Run) -> None:
    titles = [line.title for line in numbers_of(run).full(1)]
    assert {"Gini", "Entropy", "Average precision (truth)", "Class IoU"} <= set(titles)
    assert not any(title.startswith(("Profile", "Mass on class")) for title in titles)


def test_an_empty_map_has_no_number_but_those_of_the_network() -> None:
    rows = pd.DataFrame(
        {
            "image": ["a"], "layer": ["up1"], "class_index": [0], "class_name": ["x"],
            "empty": [True], "truth_pixels": [4.0], "gini": [0.5], "predicted_as_0": [3],
        }
    )  # fmt: skip
    frame = prepared(rows)
    assert frame["gini"].isna().all()
    assert frame[["truth_pixels", "predicted_as_0"]].to_numpy().tolist() == [[4.0, 3]]


def test_a_table_of_missing_values_can_be_prepared() -> None:
    rows = pd.DataFrame(
        {
            "image": ["a"], "layer": ["up1"], "class_index": [0], "class_name": ["x"],
            "empty": [None], "truth_pixels": [np.nan],
        }
    )  # fmt: skip
    assert prepared(rows)["class_share"].isna().all()


def test_file_names_stay_different_where_a_file_system_ignores_case() -> None:
    names = file_names(["Cell", "cell", "<b>", "b", "", "../", "con/x"])
    assert len({name.lower() for name in names}) == 7
    assert all(name and set(name).isdisjoint('/\\<>:"|?*') for name in names)
