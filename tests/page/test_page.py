from __future__ import annotations

import base64
import copy
import hashlib
import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.page.conftest import NAMES, SCRIPT
from tests.page.synthetic import Run, make_run
from unetcam.page.html import render, write_report

VOID = {"wbr", "meta", "link", "img", "br", "path", "line", "use"}


class Page(HTMLParser):
    """A page's elements, its text and how they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return re.sub("[ \n]+", " ", "".join(self.texts))


@pytest.fixture(scope="module")
def page(page_file: Path) -> Page:
    return Page(page_file.read_text(encoding="utf-8"))


def test_every_element_is_closed_and_every_id_is_used_once(page: Page) -> None:
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_link_leads_to_a_place_on_the_page(page: Page) -> None:
    ids = {attributes.get("id") for _, attributes in page.elements}
    links = [attributes["href"] for attributes in page.all("a")]
    assert len(links) > 15
    for link in links:
        assert link is not None
        assert link.startswith("#")
        assert link[1:] in ids


def test_nothing_points_outside(page: Page, page_file: Path) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "srcset", "action", "poster", "data", "xlink:href"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    text = page_file.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"@import|url\(", text)


def test_the_policy_allows_this_script_and_nothing_from_outside(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text


def test_names_are_shown_and_not_run(page: Page) -> None:
    assert len(page.all("script")) == 1
    assert SCRIPT in page.text
    assert "<b>hollow</b>" in page.text
    assert "masks/a&b.png" in page.text


def test_names_are_escaped_wherever_they_stand(run: Run) -> None:
    evil = "\"><img src=x onerror=alert(1)>'{{ 7 * 7 }}"
    rows, summary = run.rows.copy(), run.summary.copy()
    for table in (rows, summary):
        table["layer"] = table["layer"].replace("up1", evil)
        table["class_name"] = table["class_name"].replace("elsewhere", evil)
    names = tuple(evil if name == "elsewhere" else name for name in run.classes.names)
    meta = {**run.meta, "spec": {**run.meta["spec"], "model": evil, "method": evil}}
    marked = replace(
        run, rows=rows, summary=summary, layers=[evil, *run.layers[1:]], meta=meta,
        classes=replace(run.classes, names=names),
    )  # fmt: skip
    examples = [
        replace(example, maps={evil: example.maps["up1"], **example.maps})
        for example in run.examples()
    ]
    page = Page(render(marked, examples))
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    assert all(str(image["src"]).startswith("data:") for image in page.all("img"))
    assert "{{ 7 * 7 }}" in page.text


def test_every_picture_has_a_text_and_a_size(page: Page) -> None:
    pictures = [image for image in page.all("img") if image["src"] != "data:,"]
    assert len(pictures) > 40
    for image in pictures:
        assert image["alt"]
        assert image["width"]
        assert image["height"]
    assert all(chart["aria-label"] for chart in page.all("svg") if "role" in chart)


def test_headings_do_not_skip_a_level(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_it_says_what_was_run(page: Page) -> None:
    for fact in ("plates/unet-small", "Grad-CAM", "up1, up2, up3, up4", "8 images, 1 skipped",
                 "15 January 2026, 09:41 UTC"):  # fmt: skip
        assert fact in page.text


def test_the_class_that_fails_and_the_findings_come_before_everything_else(
    run: Run, page: Page
) -> None:
    ids = [attributes.get("id") for tag, attributes in page.elements if tag == "section"]
    assert ids[:3] == ["glance", "findings", "errors"]
    worst = run.rows.groupby("class_name")["class_iou"].mean().idxmin()
    assert f"The lowest is {worst} with" in page.text


def test_a_finding_is_shown_with_all_that_was_tested(run: Run, page: Page) -> None:
    cards = [a for tag, a in page.elements if tag == "article" and "finding" in str(a["class"])]
    assert len(cards) == 1
    (finding,) = run.diagnosis().findings
    for said in (
        finding.kind, finding.claim, finding.effect_unit, finding.remedy, "42 %",
        "31 % to 55 %", "the image's mean and a blur", "Tested on 8 images",
        "Without it the IoU of elsewhere would be 0.12 higher.", finding.evidence[0].caption,
        "Everything that was tested, 10 tests",
    ):  # fmt: skip
        assert said in page.text


def test_a_healthy_network_is_told_so_with_the_power_of_the_tests(run: Run) -> None:
    page = Page(render(run, [], run.diagnosis(healthy=True)))
    assert "Nothing was found." in page.text
    assert "2 kinds of fault were looked for in 10 tests, each on 8 images" in page.text
    assert "Would have been seen from" in page.text


def test_without_a_diagnosis_nothing_is_claimed(run: Run) -> None:
    page = Page(render(run, []))
    assert f"Nothing was tested in this run. {run.undiagnosed}" in page.text
    assert "Nothing was found" not in page.text
    assert page.text.count("Not tested") == 2 * len(NAMES)


def test_what_is_wrong_altogether_is_said_first(run: Run, page: Page) -> None:
    assert "Check this first" not in page.text
    rows = run.rows.copy()
    rows.loc[rows["class_index"] == 2, ["predicted_pixels", "class_iou"]] = 0.0
    text = Page(render(replace(run, rows=rows), [])).text
    assert "elsewhere is never predicted, and the masks hold" in text
    assert text.index("Check this first") < text.index("The network reaches a mean IoU")
    assert "as it is never predicted" in text or "The lowest is" in text


def test_what_is_taken_for_what_is_shown_with_counts(run: Run, page: Page) -> None:
    for mistake in run.mistakes():
        names = run.classes.names
        title = f"{names[mistake.pair.truth]} taken for {names[mistake.pair.taken_for]}"
        assert title in page.text
        assert f"{mistake.pair.pixels:,} pixels of {names[mistake.pair.truth]}" in page.text


def test_each_class_has_its_section_with_pictures_at_every_layer(run: Run, page: Page) -> None:
    for index in range(len(NAMES)):
        assert any(attributes.get("id") == f"class-{index}" for _, attributes in page.elements)
    alts = [str(image["alt"]) for image in page.all("img")]
    for example in run.examples():
        for layer in run.layers:
            name = run.classes.names[example.class_index]
            start = f"Map of {name} at layer {layer} over image {example.image_id};"
            assert any(alt.startswith(start) for alt in alts)


def test_what_was_skipped_and_why_is_listed(page: Page) -> None:
    assert "The mask holds 7 & 9, which no class has." in page.text


def test_what_the_numbers_do_not_prove_is_said(page: Page) -> None:
    for said in ("Correlation, not cause", "Coarse layers blur", "look right and be wrong"):
        assert said in page.text


def test_a_run_with_nothing_to_complain_about_says_so(tmp_path: Path) -> None:
    run = make_run(
        tmp_path, names=("background", "disc"), characters=("sound", "sound"), strides=(2, 1),
        images=5, absent=0.0, shape=(64, 64),
    )  # fmt: skip
    page = Page(render(run, run.examples(), run.diagnosis(healthy=True)))
    assert "Nothing was found." in page.text
    assert "No file was skipped" in page.text
    assert "No map was empty" in page.text


def test_missing_numbers_are_dashes_and_never_nan(wide_page_file: Path) -> None:
    text = Page(wide_page_file.read_text(encoding="utf-8")).text
    assert "–" in text
    assert not re.search(r"\bnan\b", text, flags=re.I)


def test_a_report_without_examples_is_still_whole(run: Run) -> None:
    page = Page(render(run, []))
    assert page.open == []
    assert "Findings" in page.text


def test_examples_without_a_map_are_told(run: Run) -> None:
    example = run.examples()[0]
    nothing = np.full_like(example.maps["up1"], np.nan)
    changed = replace(example, maps={**example.maps, "up1": nothing, "up2": np.zeros_like(nothing)})
    text = Page(render(run, [changed])).text
    assert "no map: nothing to explain here" in text
    assert "empty map: no evidence" in text


def test_the_figures_are_written_as_files(run: Run, page_file: Path) -> None:
    files = {path.name for path in (page_file.parent / "figures").iterdir()}
    assert {f"leakage_{layer}.png" for layer in run.layers} <= files
    assert {"overview_truth_energy.png", "overview_boundary_ratio.png"} <= files
    assert {"profile_background.png", "profile__b_hollow__b_.png"} <= files
    examples = [name for name in files if name.startswith("example_")]
    assert len(examples) == len(run.examples()) * (len(run.layers) + 2)
    for name in files:
        with Image.open(page_file.parent / "figures" / name) as image:
            assert image.format == "PNG"
            assert image.width >= 400


def test_the_same_run_gives_the_same_page(run: Run, page_file: Path) -> None:
    text = render(run, run.examples(), run.diagnosis(), mistakes=run.mistakes())
    assert text == page_file.read_text(encoding="utf-8")


def test_the_run_is_left_as_it_was(run: Run) -> None:
    rows, summary, meta = run.rows.copy(), run.summary.copy(), copy.deepcopy(run.meta)
    render(run, [], run.diagnosis())
    assert run.rows.equals(rows)
    assert run.summary.equals(summary)
    assert run.meta == meta


def test_a_report_with_large_pictures_stays_small_enough_to_be_sent(run: Run) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (60, 80, 3)).astype(np.uint8)
    texture = np.asarray(Image.fromarray(coarse).resize((640, 480)))
    block = np.ones((5, 5), np.float32)
    examples = [
        replace(
            example, image=texture, truth=np.kron(example.truth, block),
            prediction=np.kron(example.prediction, block),
            maps={layer: np.kron(heat, block) for layer, heat in example.maps.items()},
            origin=replace(example.origin, heat=np.kron(example.origin.heat, block)),
        )
        for example in run.examples()
    ]  # fmt: skip
    assert len(examples) >= 15
    assert len(render(run, examples).encode()) < 8_000_000


def test_a_report_of_many_classes_and_layers_stays_small_enough(wide_page_file: Path) -> None:
    page = Page(wide_page_file.read_text(encoding="utf-8"))
    assert len(page.all("img")) > 250
    assert wide_page_file.stat().st_size < 8_000_000


def test_maps_of_mistakes_are_shown_and_not_judged(run: Run) -> None:
    rows = run.rows.assign(target="false-positives")
    meta = {**run.meta, "spec": {**run.meta["spec"], "target": "false-positives"}}
    page = Page(render(replace(run, rows=rows, meta=meta), []))
    assert "no side of a number is the better one" in page.text
    assert "is better" not in page.text.lower()
    assert "each class's mean score over the pixels that are wrongly predicted as it" in page.text


@pytest.mark.parametrize("shape", [(300, 1), (1, 300), (1, 1), (2500, 8)])
def test_images_of_any_shape_are_shown(run: Run, shape: tuple[int, int], tmp_path: Path) -> None:
    example = run.examples()[0]
    odd = replace(
        example,
        image=np.zeros((*shape, 3), np.uint8),
        truth=np.zeros(shape, int),
        prediction=np.ones(shape, int),
        maps={layer: np.ones(shape, np.float32) for layer in run.layers},
        origin=replace(example.origin, heat=np.ones(shape, np.float32)),
    )
    mistake = replace(
        run.mistakes()[0], image=odd.image, truth=odd.truth, prediction=odd.prediction, why=()
    )
    page = write_report(run, [odd], None, tmp_path, mistakes=[mistake])
    for image in Page(page.read_text(encoding="utf-8")).all("img"):
        if image["src"] != "data:,":
            assert int(image["height"] or 0) <= 2 * 440
    for file in (tmp_path / "figures").glob("example*.png"):
        with Image.open(file) as figure:
            assert figure.width <= 1600
            assert figure.height <= 3200
