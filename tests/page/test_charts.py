from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from unetcam.measures.regions import PROFILE_BANDS, PROFILE_BINS
from unetcam.page.charts import (
    PROFILE_CENTRES,
    heat_figure,
    layer_colours,
    print_ink,
    profile_figure,
    profile_svg,
    save_png,
)


def curves(count: int) -> dict[str, np.ndarray]:
    return {f"up{place}": np.exp(-((PROFILE_CENTRES + place) ** 2) / 8) for place in range(count)}


def luminance(colour: str) -> float:
    channels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_a_profile_stands_alone_and_takes_its_colours_from_the_page() -> None:
    svg = profile_svg(curves(5), "five layers")
    assert "http" not in svg
    assert not re.search(r"\b(id|href|xlink|clip-path|font-family)\b", svg)
    for place in range(5):
        assert f"var(--layer-{place})" in svg
    assert "currentColor" in svg
    assert not re.search(r"#0102|#0103", svg)


def test_a_profile_is_well_formed_and_its_title_is_escaped() -> None:
    root = ElementTree.fromstring(profile_svg(curves(2), 'of "<b>" & \\1'))
    assert root.tag == "svg"
    assert root.attrib["aria-label"] == 'of "<b>" & \\1'
    assert root.attrib["role"] == "img"


def test_every_bin_with_a_value_has_a_marker_and_the_others_none() -> None:
    values = np.full(16, np.nan)
    values[3:9] = 0.4
    root = ElementTree.fromstring(profile_svg({"up1": values}, "gaps"))
    markers = [
        path
        for path in root.iter("path")
        if "fill: var(--layer-0)" in path.attrib.get("style", "") and "transform" in path.attrib
    ]
    assert len(markers) == 6


def test_a_profile_without_any_value_can_be_drawn() -> None:
    assert profile_svg({"up1": np.full(16, np.nan)}, "nothing").startswith("<svg")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_line_colours_differ_and_have_contrast(count: int, dark: bool) -> None:
    colours = layer_colours(count, dark=dark)
    assert len(set(colours)) == count
    paper = luminance("#1a1e22" if dark else "#ffffff")
    for colour in colours:
        low, high = sorted((luminance(colour), paper))
        assert (high + 0.05) / (low + 0.05) >= 3, colour


def test_files_are_written_at_print_resolution(tmp_path) -> None:
    save_png(profile_figure(curves(3), print_ink(3), title="$x$ <b>"), tmp_path / "profile.png")
    heat = np.array([[0.2, np.nan], [1.0, 0.0]])
    names = ["a$b", "with $math$"]
    figure = heat_figure(
        heat, names, names, title="heat", row_title="map of", column_title="true class"
    )
    written = {text.get_text() for text in figure.axes[0].texts}
    assert written == {"20\u00a0%", "–", "100\u00a0%", "0\u00a0%"}
    save_png(figure, tmp_path / "heat.png")
    for name in ("profile.png", "heat.png"):
        with Image.open(tmp_path / name) as image:
            assert image.width >= 700
            assert np.asarray(image.convert("L")).std() > 5


def test_the_profile_stands_where_its_bins_are_measured() -> None:
    width = 2 * PROFILE_BANDS / PROFILE_BINS
    np.testing.assert_allclose(PROFILE_CENTRES[0], -PROFILE_BANDS + width / 2)
    np.testing.assert_allclose(np.diff(PROFILE_CENTRES), width)
    values = np.full(PROFILE_BINS, np.nan)
    values[-1] = 1.0
    (axes,) = profile_figure({"up1": values}, print_ink(1)).axes
    assert axes.get_xlim() == (-PROFILE_BANDS, PROFILE_BANDS)
    ((x, y),) = [point for point in axes.lines[1].get_xydata() if np.isfinite(point).all()]
    assert (x, y) == (PROFILE_BANDS - width / 2, 1.0)
