from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.page.synthetic import Run, make_run
from unetcam.page import tables
from unetcam.page.findings import find
from unetcam.page.gallery import file_names
from unetcam.page.overview import cautions, class_summaries, empty_maps
from unetcam.page.readings import prepared, readings
from unetcam.page.text import DASH


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
    run.rows.loc[ghost, ["truth_pixels", "empty", "present"]] = 0.0
    run.summary.loc[run.summary["class_index"] == 3, ["mean", "median", "low", "high"]] = np.nan
    run.summary.loc[run.summary["class_index"] == 3, "support"] = 0
    return run


def test_leakage_is_the_mean_over_images_and_its_rows_add_up(run: Run) -> None:
    layer = run.layers[-1]
    table, matrix = tables.leakage(run, prepared(run.rows), layer)
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
    table, _ = tables.leakage(run, rows, run.layers[0])
    assert table.baseline[0].text == f"{100 * shares[0]:.0f}\u00a0%"


def test_profiles_are_means_over_the_images_that_have_the_bin(run: Run) -> None:
    curves, support = tables.profiles(run, prepared(run.rows), 1)
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
    rows = dict(tables.class_table(run, stats, 1))
    cell = rows["up1"][0]
    assert cell.text == f"{100 * stat.mean:.0f}\u00a0%"
    assert cell.support == stat.support
    assert f"{stat.support} images" in cell.hint


def test_a_number_that_no_image_has_is_a_dash_with_support_zero(silent: Run) -> None:
    stats = tables.Stats(silent.summary)
    for _, cells in tables.class_table(silent, stats, 3):
        assert {(cell.text, cell.support) for cell in cells} == {(DASH, 0)}
    assert stats(99, "up1", "truth_energy").support == 0


def test_empty_maps_are_counted_and_give_no_other_number(silent: Run) -> None:
    assert empty_maps(silent) == [("mute", "up1", 3, 3), ("mute", "up2", 3, 3)]
    stats = tables.Stats(silent.summary)
    assert stats(2, "up1", "effective_area").support == 0
    curves, support = tables.profiles(silent, prepared(silent.rows), 2)
    assert support == 0
    assert np.isnan(curves["up1"]).all()


def test_what_limits_the_numbers_is_said(silent: Run) -> None:
    rows = prepared(silent.rows)
    stats, judged = tables.Stats(silent.summary), readings(rows, silent.layers)
    lines = class_summaries(silent, stats, rows, judged, find(silent))
    assert {line.name: line.status for line in lines}["ghost"] == "unknown"
    said = " ".join(cautions(silent, lines))
    assert "In no image: ghost" in said
    assert "In fewer than 5 images: background, disc, mute" in said
    assert "mute at every layer" in said


def test_each_class_gets_a_verdict_from_its_gravest_finding(run: Run) -> None:
    rows, found = prepared(run.rows), find(run)
    lines = class_summaries(run, tables.Stats(run.summary), rows, readings(rows, run.layers), found)
    for line in lines:
        worst = {f.severity for f in found if f.class_index == line.index}
        expected = next((s for s in ("high", "medium", "note") if s in worst), "ok")
        assert line.status == expected
        assert (
            line.present
            == (
                (run.rows["layer"] == "up1")
                & (run.rows["class_index"] == line.index)
                & (run.rows["truth_pixels"] > 0)
            ).sum()
        )


def test_a_cell_is_flagged_where_its_number_is_beyond_the_threshold(run: Run) -> None:
    shown = tables.overview_heat(run, tables.Stats(run.summary))
    heat = {measure.column: table for measure, table in shown}
    flags = {name: cells[-1].flag for name, cells in heat["boundary_ratio"].rows}
    assert flags["<b>hollow</b>"]
    assert not flags["sound"]
    flags = {name: cells[-1].flag for name, cells in heat["outside_far_share"].rows}
    assert flags["elsewhere"]
    assert not flags["background"]
    assert not any(cell.flag for _, cells in heat["truth_energy"].rows for cell in cells)


def test_a_ratio_is_told_by_its_median(run: Run) -> None:
    stats = tables.Stats(run.summary)
    (measure,) = (m for m in tables.KEY_MEASURES if m.column == "boundary_ratio")
    stat = replace(stats(1, "up1", "boundary_ratio"), mean=500.0, median=0.9)
    cell = tables.stat_cell(measure, stat)
    assert cell.text == "0.90"
    assert cell.hint.startswith("median of")


def test_the_full_table_has_every_number_but_charts_and_matrices(run: Run) -> None:
    titles = [line.title for line in tables.full_table(run, tables.Stats(run.summary), 1)]
    assert {"Gini", "Entropy", "Average precision (truth)", "Class IoU"} <= set(titles)
    assert not any(title.startswith(("Profile", "Mass on class")) for title in titles)


def test_a_table_of_missing_values_can_be_prepared() -> None:
    rows = pd.DataFrame(
        {
            "image": ["a"], "layer": ["up1"], "class_index": [0], "class_name": ["x"],
            "empty": [None], "truth_pixels": [np.nan], "effective_area": [np.nan],
            "boundary_ratio": [np.nan], "band_mass_ratio": [np.nan], "truth_energy": [np.nan],
        }
    )  # fmt: skip
    assert prepared(rows)["spread"].isna().all()


def test_file_names_stay_different_where_a_file_system_ignores_case() -> None:
    assert file_names(["Cell", "cell", "<b>", "b", "", "../"]) == [
        "Cell", "cell-2", "b", "b-2", "unnamed", "unnamed-2",
    ]  # fmt: skip
