"""Names of files for layers, classes and images of any name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence


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
