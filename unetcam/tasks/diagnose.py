"""A network's faults, tested on a sample of a data set's own images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from unetcam.diagnosis import Diagnosis, Finding, diagnose, names
from unetcam.errors import RunError, suggestion
from unetcam.models import LoadedModel
from unetcam.runs import Plan, Progress, Run, Silent, Spec, evaluated, prepare, publishing
from unetcam.runs.findings import UNFINISHED, Examined, read_examined, write_examined
from unetcam.tasks.sampling import sample

TOO_FEW = "Nothing was tested: that takes two images with masks of one size at least."
INSISTING = (
    "Nothing was tested: the network takes several images at once and no other number, and a test "
    "predicts any number of changed images."
)
SWITCHED_OFF = "Nothing was tested, as that was switched off."


def examine(
    plan: Plan,
    usable: Sequence[str] | None = None,
    progress: Progress | None = None,
    *,
    earlier: Examined | None = None,
    keep: Callable[[Examined], None] | None = None,
) -> Examined:
    """Test a plan's network on a sample of its images.

    Parameters
    ----------
    plan : Plan
    usable : sequence of str, optional
        Ids of the images that may be taken.
    progress : Progress, optional
    earlier : Examined, optional
        What was kept of a diagnosis on the same images that was stopped.
    keep : callable, optional
        Is given what is known so far whenever a kind is through.

    Returns
    -------
    Examined
    """
    progress = progress or Silent()
    if plan.network.batch_size not in (None, 1):
        return Examined(None, INSISTING)
    progress.step("choosing images to test on")
    sampled = sample(plan, usable)
    if sampled is None:
        return Examined(None, TOO_FEW)

    def kept(so_far: Diagnosis) -> None:
        if keep is not None:
            keep(Examined(so_far, "", sampled.names))

    network = plan.network
    progress.step("testing what the network leans on")
    with evaluated(network.module):
        diagnosis = diagnose(
            network,
            sampled.images.to(network.device, network.dtype),
            sampled.truth.to(network.device),
            classes=plan.spec.class_names,
            head=plan.spec.head or "softmax",
            names=sampled.names,
            seed=plan.spec.seed,
            earlier=earlier.diagnosis
            if earlier is not None and earlier.images == sampled.names
            else None,
            keep=kept,
            progress=progress.within,
        )
    return Examined(diagnosis, "", sampled.names)


def examine_run(plan: Plan, run: Run, progress: Progress | None = None) -> None:
    """Test a run's network, unless that was done, and write what was found into its folder.

    What is known is written whenever a kind is through, so that a test that was stopped goes on.
    """
    fingerprint = str(run.meta["fingerprint"])
    examined = read_examined(run.path, fingerprint)
    if examined is None:

        def keep(so_far: Examined) -> None:
            with publishing(run.path) as draft:
                write_examined(draft, fingerprint, so_far, unfinished=True)

        usable = list(dict.fromkeys(run.rows["image"].astype(str)))
        earlier = read_examined(run.path, fingerprint, unfinished=True)
        examined = examine(plan, usable, progress, earlier=earlier, keep=keep)
        with publishing(run.path, in_place_of=UNFINISHED) as draft:
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
