"""What a check of maps says: a row for each method, target and layer, and a run's own check."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unetcam.measures.sanity import Similarity
from unetcam.runs.files import write_json

CHECK = "check.json"
SCHEMA_VERSION = 1

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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Check:
        """What :meth:`to_dict` gave."""
        return cls(
            tuple(_row(one) for one in values["rows"]),
            int(values["images"]),
            int(values["seed"]),
            float(values["seconds"]),
        )

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


def _row(values: Mapping[str, Any]) -> CheckRow:
    return CheckRow(
        str(values["method"]),
        str(values["target"]),
        str(values["layer"]),
        tuple(map(str, values["reasons"])),
        _similarity(values["threshold"]),
        tuple((str(step), _similarity(one)) for step, one in values["cascade"]),
        None if values["decoder"] is None else _similarity(values["decoder"]),
        _similarity(values["other_class"]),
        {str(name): _similarity(one) for name, one in values["baselines"].items()},
    )


def _similarity(values: Mapping[str, Any]) -> Similarity:
    means = [math.nan if values[name] is None else values[name] for name in ("spearman", "ssim")]
    return Similarity(float(means[0]), float(means[1]), int(values["pairs"]))


# -- the check of a run's own maps ------------------------------------------------------------


@dataclass(frozen=True)
class Checked:
    """Whether a run's maps were checked.

    Attributes
    ----------
    check : Check or None
        Of the run's method and target at its layers; None where nothing was checked.
    reason : str
        Why not, in one sentence; empty where something was.
    """

    check: Check | None
    reason: str = ""


def write_checked(folder: Path, fingerprint: str, checked: Checked) -> None:
    """Write check.json into a run's folder, or the draft of what comes into it."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": fingerprint,
        "reason": checked.reason,
        "check": None if checked.check is None else checked.check.to_dict(),
    }
    write_json(folder / CHECK, content)


def read_checked(folder: Path, fingerprint: str) -> Checked | None:
    """What :func:`write_checked` wrote for the run with this fingerprint.

    Returns
    -------
    Checked or None
        None where there is none of this run that can be read: it is made again then.
    """
    try:
        content = json.loads((folder / CHECK).read_text(encoding="utf-8"))
        if (content["schema_version"], content["fingerprint"]) != (SCHEMA_VERSION, fingerprint):
            return None
        found = content["check"]
        return Checked(None if found is None else Check.from_dict(found), str(content["reason"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
