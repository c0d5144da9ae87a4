"""Which images stand for a class, and what is shown of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unetcam.page.findings import find_in_rows

Role = Literal["best", "typical", "worst", "evidence"]

#: Findings whose clearest image is shown beside them, the gravest first.
MOST_EVIDENCE = 12


@dataclass(frozen=True)
class Example:
    """One image that stands for a class.

    Attributes
    ----------
    class_index : int
    role : {"best", "typical", "worst", "evidence"}
        By the class's IoU; ``"evidence"``: the image that shows a finding most.
    image_id : str
    score : float
        The class's IoU in this image.
    image : ndarray of uint8, shape (H, W, 3)
        RGB, for display.
    truth, prediction : ndarray of int, shape (H, W)
        Class indices; -1 in ``truth`` is an ignored pixel.
    maps : mapping of str to ndarray of float32, shape (H, W)
        Each layer's map of the class, scaled to [0, 1] by its own maximum; NaN where the class
        has none.
    place : str
        Which slice of a volume image, masks and maps are; empty for an image.
    """

    class_index: int
    role: Role
    image_id: str
    score: float
    image: NDArray[np.uint8]
    truth: NDArray[Any]
    prediction: NDArray[Any]
    maps: Mapping[str, NDArray[np.float32]]
    place: str = ""


def choose_examples(
    rows: pd.DataFrame, layers: Sequence[str] | None = None
) -> list[tuple[int, Role, str]]:
    """Choose each class's best, typical and worst image, and the images behind the findings.

    Images are ranked by the class's IoU among those that contain the class; the typical one stands
    in the middle of the ranking. Two images give a best and a worst, one gives a typical. For each
    of the gravest findings the image that shows it most is added as ``"evidence"``, unless it is
    already there for that class.

    Parameters
    ----------
    rows : DataFrame
        A run's rows.
    layers : sequence of str, optional
        Layers, deepest first. Default: in the rows' order.

    Returns
    -------
    list of (int, str, str)
        Class index, role and image id.

    Examples
    --------
    >>> rows = pd.DataFrame({
    ...     "image": ["a", "b", "c"], "layer": "up1", "class_index": 1, "class_name": "cell",
    ...     "class_iou": [0.5, 0.9, 0.7], "truth_pixels": 9.0, "effective_area": 0.1,
    ...     "outside_far_share": 0.0, "boundary_ratio": 1.0, "band_mass_ratio": 3.0,
    ...     "truth_energy": 0.9})
    >>> choose_examples(rows)
    [(1, 'best', 'b'), (1, 'typical', 'c'), (1, 'worst', 'a')]
    """
    names = list(layers) if layers is not None else list(dict.fromkeys(rows["layer"]))
    once = rows[rows["layer"] == names[-1]] if names else rows
    chosen: list[tuple[int, Role, str]] = []
    for index in sorted({int(value) for value in once["class_index"]}):
        group = once[once["class_index"] == index]
        present = group[group["class_iou"].notna() & (group["truth_pixels"] > 0)]
        ranked = present.sort_values(["class_iou", "image"])["image"].astype(str).tolist()
        chosen.extend((index, role, image) for role, image in _roles(ranked))
    taken = {(index, image) for index, _, image in chosen}
    for finding in find_in_rows(rows, names)[:MOST_EVIDENCE]:
        image = finding.images[0][0]
        if (finding.class_index, image) not in taken:
            taken.add((finding.class_index, image))
            chosen.append((finding.class_index, "evidence", image))
    return chosen


def _roles(ranked: list[str]) -> list[tuple[Role, str]]:
    """Roles of images that are ranked from worst to best."""
    if not ranked:
        return []
    if len(ranked) == 1:
        return [("typical", ranked[0])]
    middle: list[tuple[Role, str]] = (
        [("typical", ranked[len(ranked) // 2])] if len(ranked) > 2 else []
    )
    return [("best", ranked[-1]), *middle, ("worst", ranked[0])]
