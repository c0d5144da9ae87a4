from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from unetcam.data import ClassTable
from unetcam.errors import RunError
from unetcam.runs.compare import NETWORK, compare, holm, signed_rank
from unetcam.runs.run import Run
from unetcam.runs.spec import Spec

LAYERS = {"up1": 4, "up2": 2}


def run(
    seed: int = 0,
    *,
    images: int = 12,
    layers: dict[str, int] = LAYERS,
    names: tuple[str, ...] = ("background", "cell"),
    shift: float = 0.0,
    **config: Any,
) -> Run:
    rng = np.random.default_rng(seed)
    index = pd.MultiIndex.from_product(
        [[f"im{i}" for i in range(images)], layers, range(len(names))],
        names=["image", "layer", "class_index"],
    )
    rows = pd.DataFrame(index=index).reset_index()
    rows["class_name"] = rows["class_index"].map(dict(enumerate(names)))
    rows["stage_stride"] = rows["layer"].map(layers)
    rows["target"], rows["method"], rows["empty"] = "class", "gradcam", False
    iou = {key: rng.random() for key in zip(rows["image"], rows["class_index"], strict=True)}
    keys = zip(rows["image"], rows["class_index"], strict=True)
    rows["class_iou"] = [iou[key] for key in keys]
    rows["truth_ap"] = rng.random(len(rows)) + shift
    rows["entropy"] = rng.random(len(rows))
    spec = Spec(
        layers=tuple(layers),
        strides=tuple(layers.values()),
        classes=ClassTable(names),
        **{"data_digest": "d", "channels": 3, "stride": 4, "dims": 2, **config},
    )
    return Run(Path(f"run{seed}"), {}, rows, pd.DataFrame(), [], spec)


def test_every_number_agrees_with_pandas_and_scipy() -> None:
    a, b = run(0), run(1, shift=0.3)
    found = compare(a, b, ["truth_ap", "entropy"]).table
    assert len(found) == 2 * 2 * 2
    for row in found.to_dict("records"):
        first, second = (
            one.rows[
                (one.rows["class_name"] == row["class_name"]) & (one.rows["layer"] == layer)
            ].set_index("image")[row["metric"]]
            for one, layer in ((a, row["layer_a"]), (b, row["layer_b"]))
        )
        assert row["mean_a"] == pytest.approx(first.mean())
        assert row["difference"] == pytest.approx((second - first).mean())
        assert row["n"] == 12
        assert row["p"] == pytest.approx(stats.wilcoxon(second - first).pvalue)


def test_holm_agrees_with_its_definition() -> None:
    p = np.random.default_rng(0).random(9) ** 3
    order = np.argsort(p)
    expected = np.empty(9)
    highest = 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (9 - rank) * p[at]))
        expected[at] = highest
    np.testing.assert_allclose(holm(p), expected)
    with_gap = holm(np.insert(p, 4, np.nan))
    np.testing.assert_allclose(np.delete(with_gap, 4), expected)
    assert np.isnan(with_gap[4])


def test_the_whole_table_is_corrected_together() -> None:
    table = compare(run(0), run(1)).table
    np.testing.assert_allclose(table["p_holm"], holm(table["p"].to_numpy()))


def test_a_run_does_not_differ_from_itself() -> None:
    table = compare(run(0), run(0)).table
    assert (table["difference"] == 0).all()
    assert (table["p"] == 1).all()
    assert (table["p_holm"] == 1).all()


def test_no_pair_is_no_test() -> None:
    assert np.isnan(signed_rank(np.empty(0)))


def test_the_networks_quality_is_tested_once_per_class_and_not_per_layer() -> None:
    table = compare(run(0), run(1), ["class_iou", "truth_ap"]).table
    quality = table[table["metric"] == "class_iou"]
    assert list(quality["layer_a"]) == [NETWORK, NETWORK]
    assert (table["metric"] == "truth_ap").sum() == 4


def test_layers_of_other_names_are_matched_by_stride_and_that_is_said() -> None:
    b = run(1, layers={"dec.0": 4, "dec.1": 2})
    found = compare(run(0), b, ["truth_ap"])
    pairs = set(zip(found.table["layer_a"], found.table["layer_b"], strict=True))
    assert pairs == {("up1", "dec.0"), ("up2", "dec.1")}
    assert any("up1" in note and "dec.0" in note and "stride 4" in note for note in found.notes)
    assert "up1 / dec.0" in found.markdown()


def test_layers_whose_stride_is_ambiguous_are_left_out_and_that_is_said() -> None:
    a = run(0, layers={"up1": 4, "up2": 2, "same": 1})
    b = run(1, layers={"x": 2, "y": 2, "same": 1})
    found = compare(a, b, ["truth_ap"])
    assert set(found.table["layer_a"]) == {"same"}
    assert any("run A: up1, up2" in note for note in found.notes)
    assert any("run B: x, y" in note for note in found.notes)


def test_only_shared_images_count_and_the_others_are_mentioned() -> None:
    found = compare(run(0, images=9), run(1, images=12), ["truth_ap"])
    assert (found.table["n"] == 9).all()
    assert any(note.startswith("3 images are in run B only") for note in found.notes)


def test_nan_and_empty_maps_of_either_run_are_no_pairs() -> None:
    a, b = run(0), run(1)
    here = (a.rows["layer"] == "up1") & (a.rows["class_name"] == "cell")
    a.rows.loc[here & (a.rows["image"] == "im0"), "truth_ap"] = np.nan
    b.rows.loc[here & (b.rows["image"] == "im1"), "empty"] = True
    table = compare(a, b, ["truth_ap", "class_iou"]).table
    one = table[(table["layer_a"] == "up1") & (table["class_name"] == "cell")]
    assert list(one["n"]) == [10]
    assert set(table.loc[table["metric"] == "class_iou", "n"]) == {12}


def test_settings_that_differ_are_notes() -> None:
    b = run(1, method="layercam", data_digest="e", stride=8, band=3.0)
    notes = " ".join(compare(run(0), b).notes)
    for words in ("method: gradcam in A, layercam in B", "not the same files", "preprocessing",
                  "band: automatic in A, 3.0 in B"):  # fmt: skip
        assert words in notes


def test_classes_are_matched_by_name_even_where_their_order_differs() -> None:
    a, b = run(0, names=("background", "cell")), run(0, names=("cell", "background"))
    b.rows["truth_ap"] = b.rows["class_index"].map({0: 5.0, 1: 7.0})
    table = compare(a, b, ["truth_ap"]).table
    assert set(table.loc[table["class_name"] == "cell", "mean_b"]) == {5.0}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"names": ("sky", "road")}, "share no class"),
        ({"layers": {"x": 8}}, "share no layer"),
    ],
)
def test_runs_with_nothing_in_common_are_refused(other: dict[str, Any], words: str) -> None:
    with pytest.raises(RunError, match=words):
        compare(run(0), run(1, **other))


def test_runs_without_a_shared_image_are_refused() -> None:
    b = run(1)
    b.rows["image"] = "other-" + b.rows["image"]
    with pytest.raises(RunError, match="share no image"):
        compare(run(0), b)


def test_an_unknown_measure_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RunError, match=r"no measure 'iou': choose from .*class_iou"):
        compare(run(0), run(1), ["iou"])


def test_the_markdown_table_is_whole_and_no_name_breaks_out_of_it() -> None:
    names = ("a|b", "<script>alert(1)</script>")
    text = compare(run(0, names=names), run(1, names=names)).markdown()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {10}
    assert "<script>" not in text


def test_json_has_none_where_there_is_no_number() -> None:
    a = run(0)
    a.rows["truth_ap"] = np.nan
    rows = compare(a, run(1), ["truth_ap"]).to_dict()["rows"]
    assert {row["mean_a"] for row in rows} == {None}
    assert {row["n"] for row in rows} == {0}
    assert "| – | – | – | 0 | – | – |" in compare(a, run(1), ["truth_ap"]).markdown()
