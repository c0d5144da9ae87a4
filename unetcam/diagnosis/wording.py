"""Numbers as words for claims."""

from __future__ import annotations

from collections.abc import Sequence


def percent(share: float) -> str:
    """A share for a sentence.

    >>> percent(0.4567), percent(0.004), percent(0.0)
    ('46 %', '0.4 %', '0 %')
    """
    if share != share:
        return "an unknown share"
    value = 100 * share
    return f"{value:.1f} %" if 0 < abs(value) < 2 else f"{value:.0f} %"


def pixels(count: float) -> str:
    """A length for a sentence.

    >>> pixels(1), pixels(2.5), pixels(4.0)
    ('1 pixel', '2.5 pixels', '4 pixels')
    """
    return "1 pixel" if count == 1 else f"{count:.3g} pixels"


def on_images(count: int) -> str:
    """How many images something holds for.

    >>> on_images(1), on_images(8)
    ('1 image', '8 images')
    """
    return f"{count} image" + ("" if count == 1 else "s")


def listed(words: Sequence[str]) -> str:
    """Words in a row.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
