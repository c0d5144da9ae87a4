"""From a request to the page: explain the data set, choose the examples, write the report."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from unetcam.models import LoadedModel
from unetcam.page.badges import check_lines
from unetcam.page.html import write_report
from unetcam.page.overview import warnings
from unetcam.runs import Plan, Progress, Run, Silent, Spec, execute, prepare, publishing
from unetcam.runs.findings import Examined
from unetcam.runs.prepare import evaluated
from unetcam.runs.sanity import Checked
from unetcam.tasks.check_run import UNASKED, check_run
from unetcam.tasks.diagnose import SWITCHED_OFF, examine_run
from unetcam.tasks.options import located, named, shows_options
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
        checked = self.run.checked
        return {
            "run": str(self.run.path),
            "report": str(self.page),
            "counts": self.run.meta["counts"],
            "layers": self.run.layers,
            "classes": list(self.run.classes.names),
            "skipped": self.run.meta["skipped"],
            "findings": [one.to_dict() for one in self.run.findings],
            "undiagnosed": self.run.undiagnosed,
            "check": None if checked.check is None else checked.check.to_dict(),
            "unchecked": checked.reason,
            "remarks": list(self.run.meta.get("remarks", [])),
            "warnings": warnings(self.run),
            "seconds": round(self.seconds, 2),
        }

    def sentence(self) -> str:
        """What a person is told at the end."""
        counts = self.run.meta["counts"]
        text = f"{_images(counts['explained'])} explained"
        if counts["skipped"]:
            text += f", {counts['skipped']} skipped (see {self.run.path / 'skipped.csv'})"
        said = [f"{text}, in {self.seconds:.0f} s.", *warnings(self.run), *check_lines(self.run)]
        return "\n".join([*said, f"Report: {self.page}"])


@shows_options
def report(
    model: str | os.PathLike[str] | nn.Module | LoadedModel,
    data: Any,
    *,
    out: str | os.PathLike[str],
    diagnose: bool = True,
    check: bool = True,
    workers: int = 0,
    force: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Run:
    """Explain a data set, measure it, and write a report, as ``unetcam report`` does.

    Parameters
    ----------
    model : str, path, nn.Module or LoadedModel
        What MODEL is on the command line, or a network in memory, which is explained in eval mode
        on its own device and left as it was.
    data : object
        Two folders (images, masks), a manifest, a torch ``Dataset`` or ``DataLoader`` of
        (image, mask), or two arrays; see :func:`unetcam.data.open_source`. Images in memory are
        taken as they are: prepared for the network.
    out : path
        The run's folder. A run that was stopped goes on with the same call.
    diagnose : bool
        Whether what the network gets wrong and leans on is tested, on up to 24 of the images; see
        `findings` of the run.
    check : bool
        Whether the maps are checked with the network's weights shuffled, on a few of the images;
        layers that fail are marked on the page.
    workers : int
        Processes that read files; data in memory is read in this one.
    force : bool
        Replace another run in the folder; only files that a run wrote are deleted.
    progress : Progress, optional
        Is told how it goes on.
    **options
        `classes` (names, a table or a file), `ignore_index`, and the fields of
        :class:`unetcam.runs.Spec`.

    Returns
    -------
    Run
        `rows`, `summary`, `findings`, `path`, and more; in a notebook it shows itself.

    Raises
    ------
    UnetcamError
        One sentence: what is wrong, and what to do.

    Examples
    --------
    >>> import tempfile, torch
    >>> from torch import nn
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.down, self.up = nn.Conv2d(1, 4, 3, 2, 1), nn.ConvTranspose2d(4, 4, 2, 2)
    ...         self.head = nn.Conv2d(4, 2, 1)
    ...     def forward(self, x):
    ...         return self.head(self.up(self.down(x).relu()).relu())
    >>> images, masks = torch.rand(3, 1, 16, 16), torch.randint(0, 2, (3, 16, 16))
    >>> run = report(Net(), (images, masks), classes=["ground", "cell"], layers=["up"],
    ...              out=tempfile.mkdtemp())
    >>> len(run.rows), run.page.name
    (6, 'report.html')
    """
    name, module = named(model)
    where, in_memory = located(data)
    spec = Spec.of(model=name, **where, **options)
    outcome = run_report(
        spec,
        Path(out),
        model=module,
        data=in_memory,
        diagnose=diagnose,
        check=check,
        workers=workers,
        force=force,
        progress=progress,
    )
    return outcome.run


def run_report(
    spec: Spec,
    out: Path,
    *,
    model: nn.Module | LoadedModel | None = None,
    data: Any = None,
    diagnose: bool = True,
    check: bool = True,
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
    model, data
        A network and images in memory, see :func:`unetcam.runs.prepare`.
    diagnose : bool
        Whether what the network leans on is tested, see :mod:`unetcam.tasks.diagnose`.
    check : bool
        Whether the maps are checked, see :mod:`unetcam.tasks.check_run`.
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
    plan = prepare(spec, model, data)
    run = execute(
        plan,
        out,
        workers=workers,
        force=force,
        command=command,
        beside=beside,
        progress=progress,
    )
    if diagnose:
        examine_run(plan, run, progress)
    elif run.diagnosis is None:
        run.examined = Examined(None, SWITCHED_OFF)
    if check:
        check_run(plan, run, progress)
    elif run.checked.check is None:
        run.checked = Checked(None, UNASKED)
    progress.step("writing the report")
    page = assemble(plan, run)
    return Outcome(run, page, time.monotonic() - started)


def assemble(plan: Plan, run: Run) -> Path:
    """Write a run's report: figures/ and report.html come into its folder, whole or not at all.

    Only the images that are shown are explained again.

    Parameters
    ----------
    plan : Plan
        The network and images of the run.
    run : Run

    Returns
    -------
    Path
        report.html
    """
    with evaluated(plan.network.module):
        shown = explain_pictures(plan, run)
    with publishing(run.path) as draft:
        page = write_report(run, shown.examples, run.diagnosis, draft, mistakes=shown.mistakes)
        name = page.relative_to(draft)
    return run.path / name


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
