"""From a request to the page: explain the data set, choose the examples, write the report."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from unetcam.data import Sample
from unetcam.page.html import write_report
from unetcam.page.overview import warnings
from unetcam.runs import Progress, Run, Silent, Spec, execute, prepare, publishing
from unetcam.tasks.pictures import explain_pictures


@dataclass(frozen=True)
class Outcome:
    """What :func:`run_report` made.

    Attributes
    ----------
    run : Run
    page : Path
        report.html
    seconds : float
        Wall time of the whole.
    """

    run: Run
    page: Path
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for scripts."""
        return {
            "run": str(self.run.path),
            "report": str(self.page),
            "counts": self.run.meta["counts"],
            "layers": self.run.layers,
            "classes": list(self.run.classes.names),
            "skipped": self.run.meta["skipped"],
            "warnings": warnings(self.run),
            "seconds": round(self.seconds, 2),
        }

    def sentence(self) -> str:
        """What a person is told at the end."""
        counts = self.run.meta["counts"]
        text = f"{_images(counts['explained'])} explained"
        if counts["skipped"]:
            text += f", {counts['skipped']} skipped (see {self.run.path / 'skipped.csv'})"
        said = [f"{text}, in {self.seconds:.0f} s.", *warnings(self.run)]
        return "\n".join([*said, f"Report: {self.page}"])


def run_report(
    spec: Spec,
    out: Path,
    *,
    workers: int = 0,
    force: bool = False,
    command: Sequence[str] = (),
    beside: Collection[str] = (),
    progress: Progress | None = None,
) -> Outcome:
    """Explain a data set and write its run and report: what ``unetcam report`` does.

    Parameters
    ----------
    spec : Spec
        What is asked for.
    out : Path
        The run's folder.
    workers, force, command, beside, progress
        See :func:`unetcam.runs.execute`.

    Returns
    -------
    Outcome

    Raises
    ------
    UnetcamError
        One sentence: what is wrong, and what to do.
    """
    started = time.monotonic()
    progress = progress or Silent()
    plan = prepare(spec)
    run = execute(
        plan.network.model,
        plan.samples,
        plan.skipped,
        plan.spec,
        out,
        device=plan.network.device,
        workers=workers,
        force=force,
        command=command,
        beside=beside,
        progress=progress,
    )
    progress.step("writing the report")
    page = assemble(plan.network.model, plan.samples, run)
    return Outcome(run, page, time.monotonic() - started)


def assemble(model: nn.Module, samples: Sequence[Sample], run: Run) -> Path:
    """Write a run's report: figures/ and report.html come into its folder, whole or not at all.

    Only the images that are shown are explained again.

    Parameters
    ----------
    model : nn.Module
        The network of the run, in eval mode.
    samples : sequence of Sample
        The images of the run.
    run : Run

    Returns
    -------
    Path
        report.html
    """
    shown = explain_pictures(model, samples, run)
    with publishing(run.path) as draft:
        page = write_report(run, shown.examples, None, draft, mistakes=shown.mistakes)
        name = page.relative_to(draft)
    return run.path / name


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
