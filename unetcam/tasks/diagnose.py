"""A network's faults, tested on a sample of a data set's own images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unetcam.data import Item, Skipped
from unetcam.diagnosis import Diagnosis, Finding, diagnose, names
from unetcam.errors import RunError, suggestion
from unetcam.models import LoadedModel
from unetcam.runs import Plan, Progress, Run, Silent, Spec, evaluated, prepare, publishing
from unetcam.runs.findings import Examined, read_examined, write_examined

#: Images that a diagnosis is made on, and values of their tensors: bounds time and memory.
MOST_IMAGES = 24
MOST_VALUES = 1 << 27

TOO_FEW = "Nothing was tested: that takes two images with masks of one size at least."
IN_TILES = (
    "Nothing was tested: the network is run in tiles, and a test predicts images whole, many times."
)
INSISTING = (
    "Nothing was tested: the network takes several images at once and no other number, and a test "
    "predicts any number of changed images."
)
SWITCHED_OFF = "Nothing was tested, as that was switched off."


@dataclass(frozen=True)
class Sampled:
    """Images of one size, as the network takes them, with their masks.

    Attributes
    ----------
    names : tuple of str
    images : Tensor
        (N, C, *spatial) float32.
    truth : Tensor
        (N, *spatial) int64; -1 where a pixel counts nowhere.
    """

    names: tuple[str, ...]
    images: Tensor
    truth: Tensor


def sample(plan: Plan, usable: Sequence[str] | None = None) -> Sampled | None:
    """Up to 24 images spread evenly over a data set, of the size that most of them have.

    Parameters
    ----------
    plan : Plan
    usable : sequence of str, optional
        Ids of the images that may be taken; all by default.

    Returns
    -------
    Sampled or None
        None where fewer than two are left.
    """
    allowed = None if usable is None else set(usable)
    positions = [n for n, one in enumerate(plan.samples) if allowed is None or one.id in allowed]
    count = min(MOST_IMAGES, len(positions))
    chosen = [positions[number * len(positions) // count] for number in range(count)]
    dataset = plan.dataset(chosen)
    items: list[Item] = []
    values = 0
    for index in range(count):
        entry = dataset[index]
        if isinstance(entry, Skipped) or entry.prepared.mask is None:
            continue
        values += entry.prepared.image.numel()
        if values > MOST_VALUES and len(items) > 1:
            break
        items.append(entry)
    if not items:
        return None
    shapes = Counter(tuple(item.prepared.image.shape) for item in items)
    shape = shapes.most_common(1)[0][0]
    items = [item for item in items if tuple(item.prepared.image.shape) == shape]
    if len(items) < 2:
        return None
    masks = [item.prepared.mask for item in items if item.prepared.mask is not None]
    return Sampled(
        tuple(item.sample.id for item in items),
        torch.stack([item.prepared.image for item in items]),
        torch.stack(masks),
    )


def examine(
    plan: Plan, usable: Sequence[str] | None = None, progress: Progress | None = None
) -> Examined:
    """Test a plan's network on a sample of its images.

    Parameters
    ----------
    plan : Plan
    usable : sequence of str, optional
        Ids of the images that may be taken.
    progress : Progress, optional

    Returns
    -------
    Examined
    """
    progress = progress or Silent()
    if plan.spec.tile is not None:
        return Examined(None, IN_TILES)
    if plan.network.batch_size not in (None, 1):
        return Examined(None, INSISTING)
    progress.step("choosing images to test on")
    sampled = sample(plan, usable)
    if sampled is None:
        return Examined(None, TOO_FEW)

    def told(done: int, total: int) -> None:
        progress.step(f"testing what the network leans on, question {min(done + 1, total)}/{total}")

    network = plan.network
    told(0, len(names()))
    with evaluated(network.module):
        diagnosis = diagnose(
            network,
            sampled.images.to(network.device, network.dtype),
            sampled.truth.to(network.device),
            classes=plan.spec.class_names,
            head=plan.spec.head or "softmax",
            names=sampled.names,
            seed=plan.spec.seed,
            progress=told,
        )
    return Examined(diagnosis, "", sampled.names)


def examine_run(plan: Plan, run: Run, progress: Progress | None = None) -> None:
    """Test a run's network, unless that was done, and write what was found into its folder."""
    fingerprint = str(run.meta["fingerprint"])
    examined = read_examined(run.path, fingerprint)
    if examined is None:
        usable = list(dict.fromkeys(run.rows["image"].astype(str)))
        examined = examine(plan, usable, progress)
        with publishing(run.path) as draft:
            write_examined(draft, fingerprint, examined)
    run.examined = examined


def run_diagnosis(
    spec: Spec,
    *,
    model: nn.Module | LoadedModel | None = None,
    data: Any = None,
    progress: Progress | None = None,
) -> Examined:
    """Test a network on a sample of a data set, without a run: what ``unetcam diagnose`` does.

    Parameters
    ----------
    spec : Spec
        What is asked for.
    model, data
        A network and images in memory, see :func:`unetcam.runs.prepare`.
    progress : Progress, optional

    Returns
    -------
    Examined

    Raises
    ------
    UnetcamError
        One sentence: what is wrong, and what to do.
    """
    return examine(prepare(spec, model, data), progress=progress)


@dataclass(frozen=True)
class Limit:
    """A kind of finding that is not tolerated, from an effect on.

    Attributes
    ----------
    kind : str
        A kind's name, or "any".
    effect : float
        The smallest effect that counts.
    """

    kind: str
    effect: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read ``KIND`` or ``KIND:EFFECT``.

        Raises
        ------
        RunError
            For an unknown kind, or an effect that is no number.

        Examples
        --------
        >>> Limit.parse("never-predicted:0.5")
        Limit(kind='never-predicted', effect=0.5)
        """
        kind, colon, effect = text.partition(":")
        if kind != "any" and kind not in names():
            raise RunError(
                f"There is no kind of finding '{kind}': {suggestion(kind, [*names(), 'any'])}",
                option="fail_on",
            )
        try:
            return cls(kind, float(effect) if colon else 0.0)
        except ValueError as error:
            raise RunError(
                f"fail_on='{text}' has no number behind the colon: give an effect, as in "
                f"{kind}:0.3.",
                option="fail_on",
            ) from error

    def exceeded_by(self, diagnosis: Diagnosis) -> list[Finding]:
        """The findings of the kind whose effect is as large."""
        return [
            one
            for one in diagnosis.findings
            if self.kind in ("any", one.kind) and one.effect >= self.effect
        ]


def told(examined: Examined) -> str:
    """A diagnosis as plain text: each finding with its numbers, then what was tested."""
    diagnosis = examined.diagnosis
    if diagnosis is None:
        return examined.reason
    lines = []
    for one in diagnosis.findings:
        low, high = one.interval
        lines += [
            f"{one.kind} ({one.severity}): {one.claim}",
            f"  effect {one.effect:.3g} ({one.effect_unit}), 95 % interval {low:.3g} to "
            f"{high:.3g}, control {one.control:.3g}; tested on {one.tested} images",
            f"  {one.remedy}",
            "",
        ]
    answered = sum(one.tested > 0 for one in diagnosis.tests)
    if not diagnosis.findings:
        lines.append("Nothing was found.")
    lines.append(
        f"{answered} of {len(diagnosis.tests)} questions could be asked, on "
        f"{len(examined.images)} images, by {diagnosis.forwards} forwards in "
        f"{diagnosis.seconds:.0f} s."
    )
    return "\n".join(lines)
