"""A map that failed its check says so wherever it is shown."""

from __future__ import annotations

import re

from tests.page.synthetic import Run
from unetcam.measures.sanity import COPIES, Similarity
from unetcam.page.badges import badges, check_lines, check_sentence, check_table
from unetcam.page.html import render
from unetcam.runs.sanity import SAME_CLASS, Check, Checked, CheckRow

NOTHING = Similarity(float("nan"), float("nan"), 0)


def row(layer: str, *reasons: str, target: str = "class", pairs: int = 60) -> CheckRow:
    alike = Similarity(0.93, 0.81, pairs)
    return CheckRow(
        "gradcam",
        target,
        layer,
        reasons,
        Similarity(0.4, 0.3, pairs) if pairs else NOTHING,
        (("all weights", alike if pairs else NOTHING),),
        Similarity(0.2, 0.1, pairs),
        Similarity(-0.3, 0.2, pairs),
        {},
    )


def checked(run: Run, *rows: CheckRow) -> Run:
    run.checked = Checked(Check(rows, images=6, seed=0, seconds=1.0))
    return run


def test_a_failed_layer_is_marked_wherever_it_is_shown(run: Run) -> None:
    first, *others = run.layers
    page = render(checked(run, row(first, COPIES), *(row(name) for name in others)), run.examples())
    marked = re.findall(r"<em class=\"badge\"[^>]*>([^<]*)</em>", page)
    assert set(marked) == {COPIES}
    tiles = sum(1 for one in run.examples() if first in one.maps)
    assert len(marked) >= tiles + len(run.classes.names)  # each picture, each table of a class
    assert f"What the maps show at {first} {COPIES}: the check of the maps failed there." in page
    assert "1 of 4 layers failed, and is marked." in page or "layers failed, and is marked." in page
    assert "0.93, 0.81" in page


def test_only_a_check_of_what_is_shown_marks_it(run: Run) -> None:
    first, *_ = run.layers
    other = checked(run, row(first, COPIES, target="truth"), row("elsewhere", COPIES))
    assert badges(other) == {}
    assert check_lines(other) == []
    assert check_table(other) == []


def test_without_a_fail_nothing_is_marked_and_nothing_proved(run: Run) -> None:
    page = render(checked(run, *(row(name) for name in run.layers)), run.examples())
    assert 'class="badge"' not in page
    assert "which proves nothing yet: only a fail counts" in page


def test_two_reasons_stand_side_by_side_and_layers_are_gathered(run: Run) -> None:
    first, second, *_ = run.layers
    both = checked(run, row(first, COPIES, SAME_CLASS), row(second, COPIES))
    assert badges(both) == {first: f"{COPIES} and {SAME_CLASS}", second: COPIES}
    assert check_lines(both) == [
        f"What the maps show at {first} and {second} {COPIES}: the check of the maps failed there.",
        f"What the maps show at {first} {SAME_CLASS}: the check of the maps failed there.",
    ]


def test_what_could_not_be_judged_is_no_pass(run: Run) -> None:
    unjudged = checked(run, *(row(name, pairs=0) for name in run.layers))
    assert "too few maps with evidence to judge" in check_sentence(unjudged)
    assert {line.verdict for line in check_table(unjudged)} == {"too few maps to judge"}


def test_why_nothing_was_checked_is_said(run: Run) -> None:
    run.checked = Checked(None, "Maps that are put together of tiles can't be checked.")
    assert "Maps that are put together of tiles can&#39;t be checked." in render(run, [])


def test_what_is_known_of_the_network_and_the_data_stands_on_the_page(run: Run) -> None:
    said = "The network ends in a softmax; what enters it is explained <here>."
    run.meta["remarks"] = [said]
    page = render(run, [])
    assert "What to know about this run" in page
    assert "what enters it is explained &lt;here&gt;." in page
    run.meta["remarks"] = []
    assert "What to know about this run" not in render(run, [])
