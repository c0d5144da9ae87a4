"""The toolkit's own diagnosis of a planted network, and which of its findings are true."""

from __future__ import annotations

from typing import Any

import numpy as np
from truth_effects import APPEARANCES, CUE_OF, FAR_FAULTS, Truth
from truth_networks import Planted
from truth_scenes import CLASSES

IMAGES = 24

EXPECTED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*FAR_FAULTS, "near", "context"), ("leans-on-surroundings",)),
    "position": ("leans-on-position",),
    "tint": ("leans-on-appearance",),
    "blur": ("leans-on-appearance",),
    "eroded": ("outline-too-tight",),
    "dilated": ("outline-too-wide",),
    "jittered": ("poorly-learned", "outline-too-tight", "outline-too-wide"),
    "shuffled": ("poorly-learned", "never-predicted"),
    "undertrained": ("poorly-learned", "never-predicted"),
    "cut skips": ("stage-unused",),
    "dead class": ("never-predicted",),
    "permuted": ("classes-permuted",),
    "wrong scaling": ("input-scaling",),
}
"""The findings that name each fault."""

TRUE_FROM = 0.1
"""From which share of a class's pixels on a claim of an effect counts as true."""


def diagnosed(network: Planted) -> dict[str, Any]:
    """Diagnose a network on 24 images of its own kind, as a user would."""
    import unetcam

    _, images, masks = network.examples(IMAGES)
    result = unetcam.diagnose(network.model, images, masks, classes=list(CLASSES))
    answer: dict[str, Any] = result.to_dict()
    return answer


def found(answer: dict[str, Any], truth: Truth) -> bool:
    """Whether one of the findings names the planted fault, about a class that has it."""
    concerned: set[int | None] = {None}
    if truth.fault in CUE_OF:
        concerned |= {1, 2}
    elif truth.fault == "dead class":
        concerned = {1 + truth.seed % 3}
    else:
        concerned |= set(range(1, len(CLASSES)))
    return any(
        finding["kind"] in EXPECTED.get(truth.fault, ()) and finding["class_index"] in concerned
        for finding in answer["findings"]
    )


def false_findings(
    answer: dict[str, Any], truth: Truth, *, of_weight: bool = True
) -> list[dict[str, Any]]:
    """The findings that what was measured of the network does not bear out."""
    return [
        finding
        for finding in answer["findings"]
        if (not of_weight or finding["severity"] in ("high", "medium"))
        and not is_true(finding, truth)
    ]


def is_true(finding: dict[str, Any], truth: Truth) -> bool:
    """Whether a finding holds by what redrawing the scenes showed; unknown kinds do not."""
    kind, index = finding["kind"], finding["class_index"]
    classes = range(len(CLASSES)) if index is None else (index,)

    def costs(*changes: str) -> bool:
        return any(truth.effects[change][c] > TRUE_FROM for change in changes for c in classes)

    checks = {
        "leans-on-surroundings": lambda: costs("tag", "dots", "ground", *_others(index)),
        "background-evidence": lambda: costs("tag", "dots", "ground", *_others(index)),
        "leans-on-class": lambda: costs(*_others(index)),
        "leans-on-position": lambda: costs("place"),
        "leans-on-appearance": lambda: costs("tint", "blur", *APPEARANCES),
        "outline-too-tight": lambda: any(truth.area[c] < 1 - TRUE_FROM for c in classes),
        "outline-too-wide": lambda: any(truth.area[c] > 1 + TRUE_FROM for c in classes),
        "never-predicted": lambda: any(truth.recall[c] < 0.05 for c in classes),
        "poorly-learned": lambda: any(truth.iou[c] < 0.6 for c in classes),
        "confused-with": lambda: any(_confusion(truth, c) > TRUE_FROM for c in classes),
        "small-objects-missed": lambda: any(truth.small[c] > TRUE_FROM for c in classes),
        "stage-unused": lambda: truth.fault == "cut skips",
        "classes-permuted": lambda: truth.fault == "permuted",
        "input-scaling": lambda: truth.fault == "wrong scaling",
    }
    return kind in checks and bool(checks[kind]())


def _others(index: int | None) -> tuple[str, ...]:
    return tuple(name for c, name in enumerate(CLASSES) if c not in (0, index))


def _confusion(truth: Truth, label: int) -> float:
    """The largest share of a class that goes to one other class, either of them an object."""
    row = np.array(truth.confusion[label])
    column = np.array([one[label] for one in truth.confusion])
    row[label] = column[label] = 0
    return float(max(row.max(), column.max()))
