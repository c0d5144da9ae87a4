"""Parts of a claim's sentence: shares, lengths, counts, places and directions."""

from __future__ import annotations

from collections.abc import Sequence

#: What lies before and behind these shares of a side is at its one end and at the other.
_FIRST, _LAST = 0.4, 0.6


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


def in_the_image(y: float, x: float) -> str:
    """Where a point lies in an image, from shares of its height and width.

    >>> in_the_image(0.1, 0.2), in_the_image(0.5, 0.9)
    ('in the upper left of the image', 'in the right part of the image')
    """
    vertical = "upper" if y < _FIRST else "lower" if y > _LAST else ""
    horizontal = "left" if x < _FIRST else "right" if x > _LAST else ""
    if not vertical and not horizontal:
        return "in the middle of the image"
    if vertical and horizontal:
        return f"in the {vertical} {horizontal} of the image"
    return f"in the {vertical or horizontal} part of the image"


def towards(axis: int, by: int, dims: int) -> str:
    """In which direction something moves by some pixels along an axis.

    >>> towards(1, -8, dims=2), towards(0, 4, dims=3)
    ('to the left', 'along axis 0 forwards')
    """
    if dims != 2:
        return f"along axis {axis} {'forwards' if by > 0 else 'backwards'}"
    names = (("up", "down"), ("to the left", "to the right"))
    return names[axis][by > 0]
