"""How numbers, counts and names are written: NaN as an en dash, shares in percent, plurals."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from math import isfinite

DASH = "\u2013"
NBSP = "\u00a0"


def number(value: float, digits: int = 2) -> str:
    """A number with fixed digits; an en dash where there is none.

    Examples
    --------
    >>> number(0.5), number(float("nan")) == DASH, number(12345.6, 0), number(float("inf"))
    ('0.50', True, '12,346', '∞')
    """
    if isfinite(value):
        return f"{value:,.{digits}f}".replace("-", "\u2212")
    return "\u221e" if value == float("inf") else DASH


def percent(value: float) -> str:
    """A share in percent, with a digit behind the point only where it is needed.

    What is not all is never written as all, and what is not nothing never as nothing.

    Examples
    --------
    >>> [percent(x).replace(NBSP, " ") for x in (0.345, 0.0042, 0.0, 1.0, 0.0001)]
    ['34 %', '0.4 %', '0 %', '100 %', '<0.1 %']
    >>> [percent(x).replace(NBSP, " ") for x in (0.9949, 0.996, 0.99996)]
    ['99 %', '99.6 %', '>99.9 %']
    >>> percent(float("nan")) == DASH
    True
    """
    if not isfinite(value):
        return number(value)
    if 0 < value < 0.0005:
        return f"<0.1{NBSP}%"
    if 0.9995 <= value < 1:
        return f">99.9{NBSP}%"
    digits = 1 if 0 < value < 0.0095 or 0.995 <= value < 1 else 0
    return f"{100 * value:.{digits}f}{NBSP}%".replace("-", "\u2212")


def plural(count: int, noun: str, many: str | None = None) -> str:
    """A count with its noun.

    Examples
    --------
    >>> plural(1, "image"), plural(3, "class", "classes")
    ('1 image', '3 classes')
    """
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def file_names(texts: Sequence[str]) -> list[str]:
    """Names that every file system takes, each another.

    >>> file_names(["grey matter", "grey/matter", "up1.conv", "<b>"])
    ['grey_matter', 'grey_matter-afa726', 'up1.conv', '_b_']
    """
    names: list[str] = []
    for text in texts:
        name = re.sub(r"[^\w.-]", "_", text)[:100].lstrip(".") or "_"
        if name.lower() in {other.lower() for other in names}:
            digest = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
            name = f"{name}-{digest[:6]}"
        names.append(name)
    return names


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names in a sentence; of many the first ones, and how many more there are.

    >>> listed(["a", "b"]), listed(["a", "b", "c"], most=2)
    ('a and b', 'a, b and 1 more')
    """
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
