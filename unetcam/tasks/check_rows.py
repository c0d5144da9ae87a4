"""What a check of maps says: one row for each method, target and layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from unetcam.measures.sanity import Similarity

SAME_CLASS = "is the same for another class"
IGNORES_DECODER = "ignores the decoder's weights"


@dataclass(frozen=True)
class CheckRow:
    """What a check says of one method, target and layer.

    Attributes
    ----------
    method, layer : str
    target : str
        "class" (a class's mean score over the image), "predicted" (over the pixels predicted as
        it) or "truth" (over its true pixels).
    reasons : tuple of str
        Why it failed; none where it passed. Passing proves nothing, only a fail counts.
    threshold : Similarity
        Of maps of different images.
    cascade : tuple of (str, Similarity)
        Of the maps to those of networks randomised from the head down; the last is of all weights.
    decoder : Similarity or None
        To those of a network whose decoder alone is randomised; None where it is not known.
    other_class : Similarity
        To those of the next class for the same pixels.
    baselines : Mapping of str to Similarity
        To what "random", "edges" and "mask-prior" give.
    """

    method: str
    target: str
    layer: str
    reasons: tuple[str, ...]
    threshold: Similarity
    cascade: tuple[tuple[str, Similarity], ...]
    decoder: Similarity | None
    other_class: Similarity
    baselines: Mapping[str, Similarity]

    @property
    def judged(self) -> bool:
        """Whether there were maps enough to compare."""
        return self.threshold.pairs > 0 and self.cascade[-1][1].pairs > 0

    @property
    def passed(self) -> bool:
        """Whether it was judged and nothing spoke against it."""
        return self.judged and not self.reasons

    def sentence(self) -> str:
        """What was measured, in words."""
        name = f"{self.method} of the target '{self.target}' at {self.layer}"
        if not self.judged:
            return f"{name}: too few maps with evidence to judge."
        whole = self.cascade[-1][1]
        measured = (
            f"with all weights shuffled its maps keep a rank correlation of {whole.spearman:.2f} "
            f"and an SSIM of {whole.ssim:.2f}; maps of different images have "
            f"{self.threshold.spearman:.2f} and {self.threshold.ssim:.2f}"
        )
        verdict = " and ".join(self.reasons) if self.reasons else "passed"
        return f"{name} {verdict}: {measured}."


@dataclass(frozen=True)
class Check:
    """What :func:`check` found.

    Attributes
    ----------
    rows : tuple of CheckRow
        By method, target and layer.
    images : int
        On how many images it stands.
    seed : int
    seconds : float
    """

    rows: tuple[CheckRow, ...]
    images: int
    seed: int
    seconds: float

    @property
    def failed(self) -> tuple[CheckRow, ...]:
        """The rows that failed."""
        return tuple(row for row in self.rows if row.reasons)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for scripts; what could not be compared is None."""
        rows = [{**asdict(row), "passed": row.passed, "judged": row.judged} for row in self.rows]
        return {
            "images": self.images,
            "seed": self.seed,
            "seconds": self.seconds,
            "rows": _without_nan(rows),
        }

    def text(self) -> str:
        """One sentence for each row, and one for all."""
        lines = [row.sentence() for row in self.rows]
        judged = [row for row in self.rows if row.judged]
        lines.append(
            f"{len(self.failed)} of {len(judged)} combinations failed on {self.images} images: "
            + (
                "what such a map shows is not the network's doing."
                if self.failed
                else "no fail was found, which proves nothing yet."
            )
        )
        return "\n".join(lines)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
