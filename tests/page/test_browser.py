"""The page as a person meets it: in a real browser, on a wide screen and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.page.browser import Browser, find_browser
from tests.page.conftest import SCRIPT

EXECUTABLE = find_browser()
pytestmark = pytest.mark.skipif(
    EXECUTABLE is None, reason="no Chromium or Chrome on this machine (apt-get install chromium)"
)

UNREADABLE = """(() => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const light = (c) => {
    const [r, g, b] = c.map((v) => v / 255).map(
      (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] > 0) layers.push(colour);
      if (colour[3] === 1) break;
    }
    return layers.reduceRight((below, top) => over(top, below), [255, 255, 255]);
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim()) continue;
    if (element.closest("script, svg, dialog, .sr, .skip")) continue;
    const style = getComputedStyle(element);
    const below = behind(element);
    let ink = rgba(style.color);
    let opacity = 1;
    for (let at = element; at; at = at.parentElement) opacity *= +getComputedStyle(at).opacity;
    ink[3] *= opacity;
    const [dark, bright] = [light(over(ink, below)), light(below)].sort((a, b) => a - b);
    const ratio = (bright + 0.05) / (dark + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) poor.push([walker.currentNode.data.trim().slice(0, 40), ratio]);
  }
  return poor;
})()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert EXECUTABLE is not None
    with Browser(EXECUTABLE) as opened:
        yield opened


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_complains_and_nothing_is_asked_of_the_network(
    browser: Browser, page_file: Path, width: int
) -> None:
    browser.open(page_file, width)
    assert browser.complaints() == []
    asked = browser.requests()
    assert asked[0] == page_file.resolve().as_uri()
    assert len(asked) > 20
    assert all(address.startswith("data:") for address in asked[1:])


@pytest.mark.parametrize(
    ("which", "width"),
    [
        ("page_file", 1280),
        ("page_file", 1000),
        ("page_file", 400),
        ("page_file", 320),
        ("wide_page_file", 1280),
        ("wide_page_file", 400),
    ],
)
def test_the_page_never_scrolls_sideways(
    browser: Browser, which: str, width: int, request: pytest.FixtureRequest
) -> None:
    browser.open(request.getfixturevalue(which), width)
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]


def test_a_name_that_is_a_script_is_text(browser: Browser, page_file: Path) -> None:
    browser.open(page_file, 1280)
    assert browser.evaluate("typeof window.hacked") == "undefined"
    assert SCRIPT in browser.evaluate("document.body.innerText")
    assert browser.evaluate("document.querySelectorAll('main b').length") == browser.evaluate(
        "document.querySelectorAll('.tags > b, figcaption > b, td > b, .remedy > b').length"
    )


def test_the_policy_stops_a_script_that_got_in(browser: Browser, page_file: Path) -> None:
    browser.open(page_file, 1280)
    browser.evaluate(
        "(() => { const s = document.createElement('script'); s.textContent = 'hacked = 1';"
        "document.body.append(s); })()"
    )
    assert browser.evaluate("typeof window.hacked") == "undefined"


def test_every_picture_is_drawn(browser: Browser, page_file: Path) -> None:
    browser.open(page_file, 1280)
    assert (
        browser.evaluate(
            "Promise.all([...document.querySelectorAll('main img')].map((i) => i.decode()))"
            ".then((all) => all.length)"
        )
        > 40
    )


@pytest.mark.parametrize(
    ("which", "dark"), [("page_file", False), ("page_file", True), ("wide_page_file", False)]
)
def test_all_text_has_contrast(
    browser: Browser, which: str, dark: bool, request: pytest.FixtureRequest
) -> None:
    browser.open(request.getfixturevalue(which), 1280, dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    scheme = browser.evaluate("getComputedStyle(document.body).colorScheme")
    assert scheme == ("dark" if dark else "light")
    assert browser.evaluate(UNREADABLE) == []


def test_a_link_opens_the_section_it_leads_to(browser: Browser, wide_page_file: Path) -> None:
    browser.open(wide_page_file, 1280)
    folded = "[...document.querySelectorAll('#classes > details:not([open])')]"
    assert browser.evaluate(f"{folded}.length") > 5
    found = browser.evaluate(
        f"(() => {{ const one = {folded}[3]; window.target = one;"
        "document.querySelector(`.contents a[href='#${one.id}']`).click(); })()"
    )
    assert found is None
    browser.evaluate("new Promise((done) => setTimeout(done, 100))")
    assert browser.evaluate("target.open")
    top = browser.evaluate("target.getBoundingClientRect().top")
    assert -5 <= top <= 150


def test_all_sections_open_and_fold_at_once(browser: Browser, wide_page_file: Path) -> None:
    browser.open(wide_page_file, 1280)
    browser.evaluate("document.querySelector('[data-fold]').click()")
    assert (
        browser.evaluate("document.querySelectorAll('#classes > details:not([open])').length") == 0
    )
    browser.evaluate("document.querySelector('[data-fold]').click()")
    assert browser.evaluate("document.querySelectorAll('#classes > details[open]').length") == 0


def test_a_picture_is_enlarged_by_keyboard_and_closed_again(
    browser: Browser, page_file: Path
) -> None:
    browser.open(page_file, 1280)
    browser.evaluate("document.querySelector('.zoom').focus()")
    browser.press("Enter")
    assert browser.evaluate("document.getElementById('enlarged').open")
    assert browser.evaluate(
        "document.querySelector('#enlarged img').src === document.querySelector('.zoom img').src"
    )
    browser.press("Escape")
    assert not browser.evaluate("document.getElementById('enlarged').open")
    assert browser.evaluate("document.activeElement.className") == "zoom"


def test_everything_is_open_on_paper_and_folded_afterwards(
    browser: Browser, page_file: Path
) -> None:
    browser.open(page_file, 1280)
    folded = "document.querySelectorAll('details:not([open])').length"
    before = browser.evaluate(folded)
    assert before > 0
    browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert browser.evaluate(folded) == 0
    browser.evaluate("dispatchEvent(new Event('afterprint'))")
    assert browser.evaluate(folded) == before


def test_wide_tables_scroll_in_their_own_box_and_can_be_reached_by_keyboard(
    browser: Browser, wide_page_file: Path
) -> None:
    browser.open(wide_page_file, 400)
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    boxes = browser.evaluate(
        "[...document.querySelectorAll('.scroll')].map((box) => [box.scrollWidth > box.clientWidth,"
        "getComputedStyle(box).overflowX, box.tabIndex, box.getAttribute('aria-label') !== null])"
    )
    assert any(wider for wider, *_ in boxes)
    assert all(rest == ["auto", 0, True] for _, *rest in boxes)


def test_the_contents_mark_where_the_reader_is(browser: Browser, page_file: Path) -> None:
    browser.open(page_file, 1280)
    current = "document.querySelector('.contents [aria-current]').getAttribute('href')"
    assert browser.evaluate(current) == "#glance"
    browser.evaluate("document.getElementById('leakage').scrollIntoView()")
    browser.evaluate("new Promise((done) => setTimeout(done, 200))")
    assert browser.evaluate(current) == "#leakage"
