from __future__ import annotations

from dataclasses import replace
from math import nan

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.page.synthetic import Run, make_run
from unetcam.page.findings import Finding, find, find_in_rows
from unetcam.page.readings import prepared, wilson
from unetcam.page.thresholds import ADVICE, CRITERIA, DIAGNOSES, SYMPTOMS

SOUND = {
    "outside_share": 0.1, "outside_far_share": 0.05, "hot_background": 0.0, "hot_count": 0.0,
    "boundary_inner": 0.5, "boundary_interior": 0.6, "boundary_ratio": 0.9,
    "band_mass_ratio": 3.0, "effective_area": 0.12, "entropy": 0.6, "truth_energy": 0.9,
    "leak_0": 0.1, "leak_1": 0.9, "empty": False,
}  # fmt: skip
LAYERS = ["up1", "up2"]


def table(images: int = 20, layers: list[str] = LAYERS, **faults: object) -> pd.DataFrame:
    """Rows of one class (a tenth of the image) beside its background; faults by column.

    A fault is a value, or a function of layer and image number.
    """
    rows = []
    for number in range(images):
        for layer in layers:
            cell = {**SOUND}
            for column, fault in faults.items():
                cell[column] = fault(layer, number) if callable(fault) else fault
            row = {"image": f"i{number:02d}", "layer": layer, "class_index": 1}
            rows.append({**row, "class_name": "cell", "truth_pixels": 100.0, **cell})
            ground = {"class_index": 0, "class_name": "background", "truth_pixels": 900.0}
            rows.append({**row, **SOUND, **ground})
    return pd.DataFrame(rows)


def findings(rows: pd.DataFrame, layers: list[str] = LAYERS) -> list[Finding]:
    return [finding for finding in find_in_rows(rows, layers) if finding.class_index == 1]


def test_a_sound_class_has_no_finding() -> None:
    assert find_in_rows(table(), LAYERS) == []


def test_each_character_raises_its_symptom_and_no_sound_class_does(run: Run) -> None:
    found = {(finding.class_name, finding.symptom) for finding in find(run)}
    assert ("scattered", "scattered") in found
    assert ("elsewhere", "background") in found
    assert ("<b>hollow</b>", "boundary") in found
    assert {symptom for name, symptom in found if name in ("background", "sound")} <= {"background"}
    grave = {f.class_name for f in find(run) if f.severity != "note"}
    assert not grave & {"background", "sound"}
    assert ("scattered", "boundary") not in found
    assert ("elsewhere", "scattered") not in found


@pytest.mark.parametrize(
    ("column", "value", "symptom"),
    [
        ("effective_area", 0.95, "scattered"),
        ("outside_far_share", 0.7, "background"),
        ("boundary_ratio", 0.1, "boundary"),
    ],
)
def test_a_strong_fault_in_every_image_is_grave_and_explains_itself(
    column: str, value: float, symptom: str
) -> None:
    (finding,) = findings(table(**{column: value}))
    assert (finding.symptom, finding.severity) == (symptom, "high")
    assert (finding.affected, finding.support) == (20, 20)
    assert finding.layer == "up2"
    assert [reading.layer for reading in finding.also] == ["up1"]
    assert finding.criterion.beyond(finding.number, severe=True)
    assert len(finding.images) == 3
    assert "20 of 20 images" in finding.evidence[0]
    assert "cell" in finding.diagnosis
    assert finding.advice


def test_the_halo_of_a_coarse_layer_is_no_finding() -> None:
    assert findings(table(outside_share=0.6, outside_far_share=0.1)) == []


def test_halo_and_mistake_are_told_apart_in_the_evidence() -> None:
    (finding,) = findings(table(outside_share=0.6, outside_far_share=0.45, hot_count=2.0))
    text = " ".join(finding.evidence)
    assert "15\u00a0% in the band" in text
    assert "45\u00a0% beyond it" in text
    assert "2.0 separate patches" in text


def test_most_of_the_map_is_told_from_a_good_part_of_it() -> None:
    (finding,) = findings(table(outside_far_share=0.6))
    assert finding.diagnosis.startswith("Most of what speaks for cell")
    (finding,) = findings(table(outside_far_share=0.4))
    assert finding.diagnosis.startswith("A good part of what speaks for cell")


def test_a_faint_veil_is_not_called_a_hot_spot() -> None:
    (finding,) = findings(table(outside_share=0.5, outside_far_share=0.4))
    assert "faint veil" in " ".join(finding.evidence)


def test_the_leading_wrong_class_is_named() -> None:
    (finding,) = findings(table(outside_share=0.5, outside_far_share=0.4, leak_0=0.5))
    assert "true class is background (50\u00a0% of the map)" in " ".join(finding.evidence)


def test_few_images_give_a_note_at_most() -> None:
    (finding,) = findings(table(images=4, outside_far_share=0.9))
    assert finding.severity == "note"
    assert "a hint and no more" in finding.evidence[0]


def test_what_only_a_coarse_layer_shows_counts_one_step_less() -> None:
    def on(layer: str) -> float:
        (finding,) = findings(table(outside_far_share=lambda at, _: 0.9 if at == layer else 0.05))
        assert finding.layer == layer
        return {"high": 2, "medium": 1, "note": 0}[finding.severity]

    assert on("up2") == 2
    assert on("up1") == 1


def test_the_finest_clean_layer_is_mentioned() -> None:
    (finding,) = findings(table(boundary_ratio=lambda at, _: 0.1 if at == "up1" else 0.8))
    assert "up2, does not show it (0.80)" in finding.evidence[-1]


@pytest.mark.parametrize(
    ("faulty", "severity"),
    [(4, None), (5, "note"), (9, "note"), (10, "medium"), (14, "medium"), (20, "high")],
)
def test_severity_follows_the_share_of_images(faulty: int, severity: str | None) -> None:
    found = findings(table(outside_far_share=lambda _, number: 0.9 if number < faulty else 0.0))
    assert [finding.severity for finding in found] == ([] if severity is None else [severity])
    for finding in found:
        assert finding.affected == faulty
        assert finding.criterion.beyond(finding.number)


def test_a_number_that_only_some_images_show_is_that_of_the_worse_quarter() -> None:
    rows = table(outside_far_share=lambda _, number: 0.9 if number < 7 else 0.0)
    (finding,) = findings(rows)
    assert finding.statistic == "worse quarter of the images"
    own = rows[(rows["class_index"] == 1) & (rows["layer"] == "up2")]
    assert (own["outside_far_share"] >= finding.number).mean() >= 0.25
    assert finding.number == 0.9


def test_absent_classes_and_empty_maps_are_not_judged() -> None:
    def value(_: str, number: int) -> float:
        return nan if number < 5 else 0.9

    rows = table(outside_far_share=value, empty=lambda _, number: number >= 15)
    (finding,) = findings(rows)
    assert (finding.affected, finding.support) == (10, 10)
    assert "(10 more could not be judged)" in finding.evidence[0]


def test_what_can_be_judged_in_a_minority_of_the_images_is_a_note() -> None:
    def severity(judged: int) -> str:
        rows = table(boundary_ratio=lambda _, number: 0.1 if number < judged else nan,
                     band_mass_ratio=nan)  # fmt: skip
        (finding,) = findings(rows)
        assert finding.support == judged
        return finding.severity

    assert severity(9) == "note"
    assert severity(10) == "high"


def test_a_map_that_misses_the_class_is_not_blamed_for_the_edge() -> None:
    # the class fills a tenth of the image
    assert findings(table(boundary_ratio=0.1, truth_energy=0.05)) == []
    assert [f.symptom for f in findings(table(boundary_ratio=0.1, truth_energy=0.1))] == [
        "boundary"
    ]


def test_a_class_too_thin_for_an_interior_is_judged_by_its_band() -> None:
    (finding,) = findings(table(boundary_ratio=nan, band_mass_ratio=0.4))
    assert finding.symptom == "boundary"
    assert finding.criterion.measure == "thin_band_ratio"
    assert "keeps away from the edge" in finding.diagnosis


def test_a_sound_map_of_a_large_class_is_not_blamed_for_its_band() -> None:
    # a class that fills 90 % and a map that fills it evenly: the band holds 0.5 / 0.9 of its share
    rows = table()
    large = rows["class_index"] == 0
    rows.loc[large, ["band_mass_ratio", "effective_area"]] = [0.56, 0.9]
    assert find_in_rows(rows, LAYERS) == []


def test_a_large_map_of_a_large_class_is_not_scattered() -> None:
    rows = table(effective_area=0.7)
    assert [finding.symptom for finding in findings(rows)] == ["scattered"]
    rows["truth_pixels"] = np.where(rows["class_index"] == 1, 700.0, 300.0)
    assert findings(rows) == []


def test_the_grave_findings_come_first() -> None:
    rows = table(
        outside_far_share=lambda _, number: 0.4 if number < 6 else 0.0,
        boundary_ratio=0.1,
        effective_area=lambda _, number: 0.7 if number < 12 else 0.1,
    )
    assert [f.severity for f in findings(rows)] == ["high", "medium", "note"]


def test_a_scattered_map_is_named_as_the_reason_for_background_activation() -> None:
    found = {f.symptom: f for f in findings(table(effective_area=0.95, outside_far_share=0.8))}
    assert "also scattered" in found["background"].evidence[-1]
    assert "also scattered" not in found["scattered"].evidence[-1]


def test_activation_away_from_the_background_is_not_called_background() -> None:
    rows = table()
    rows.loc[rows["class_index"] == 0, "outside_far_share"] = 0.6
    (finding,) = find_in_rows(rows, LAYERS)
    assert finding.title == "Activation away from the class"
    assert replace(finding, class_name="cell").title == "Activation on the background"


def test_the_worst_images_stand_first() -> None:
    rows = table(boundary_ratio=lambda _, number: 0.4 - number / 100)
    (finding,) = findings(rows)
    assert [image for image, _ in finding.images] == ["i19", "i18", "i17"]


def test_spread_puts_a_uniform_map_at_one_and_the_class_itself_at_zero() -> None:
    rows = table(effective_area=lambda layer, _: 1.0 if layer == "up1" else 0.1)
    spread = prepared(rows).query("class_index == 1").groupby("layer")["spread"].mean()
    assert spread["up1"] == pytest.approx(1.0)
    assert spread["up2"] == pytest.approx(0.0)


def test_a_real_uniform_map_is_beyond_no_boundary_threshold_but_is_scattered(tmp_path) -> None:
    run = make_run(
        tmp_path, names=("background", "disc"), characters=("sound", "scattered"),
        strides=(2,), images=6, absent=0.0,
    )  # fmt: skip
    assert {f.symptom for f in find(run) if f.class_name == "disc"} == {"scattered", "background"}


def test_thresholds_are_consistent_and_documented() -> None:
    for symptom in SYMPTOMS:
        assert ADVICE[symptom]
        for criterion in CRITERIA[symptom]:
            assert criterion.symptom == symptom
            assert criterion.beyond(criterion.severe) or criterion.worse == "low"
            assert (criterion.severe > criterion.threshold) == (criterion.worse == "high")
            assert len(criterion.reason) > 80
            assert "{name}" in DIAGNOSES[criterion.measure]


def test_a_name_with_braces_is_shown_as_it_is() -> None:
    rows = table(boundary_ratio=0.1).replace("cell", "{0.__class__}")
    (finding,) = findings(rows)
    assert "{0.__class__}" in finding.diagnosis


@given(trials=st.integers(1, 400), data=st.data())
@settings(deadline=None, max_examples=50)
def test_wilson_agrees_with_scipy(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    expected = stats.binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    assert wilson(hits, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(
    values=st.lists(st.floats(0, 1) | st.just(nan), min_size=1, max_size=30),
    worse=st.lists(st.integers(0, 29), max_size=30),
)
@settings(deadline=None, max_examples=40)
def test_more_faulty_images_never_make_a_finding_milder(
    values: list[float], worse: list[int]
) -> None:
    def severity(numbers: list[float]) -> int:
        rows = table(images=len(numbers), layers=["up2"], outside_far_share=lambda _, i: numbers[i])
        found = [f for f in find_in_rows(rows, ["up2"]) if f.class_index == 1]
        return {"note": 1, "medium": 2, "high": 3}[found[0].severity] if found else 0

    raised = [
        1.0 if place in worse and not np.isnan(value) else value
        for place, value in enumerate(values)
    ]
    assert severity(raised) >= severity(values)
