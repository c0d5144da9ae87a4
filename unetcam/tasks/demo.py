"""The demo: the network that comes along, explained on the slices kept from its training."""

from __future__ import annotations

from pathlib import Path

from unetcam.demo import DEMO_STATISTICS, write_demo_data
from unetcam.runs import Progress, Silent, Spec
from unetcam.runs.store import check_free
from unetcam.tasks.report import Outcome, run_report

#: Where the slices lie, beside the run.
DATA = "data"
MODEL = "unetcam.demo:load_demo_model"


def run_demo(
    out: Path,
    *,
    device: str = "auto",
    workers: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Write the demo's slices into `out`/data, and the run with its report into `out`.

    Parameters
    ----------
    out : Path
        Is made where it is missing.
    device : str
        "auto", "cpu", "cuda" or "cuda:1".
    workers, force, progress
        See :func:`unetcam.runs.execute`.

    Returns
    -------
    Outcome

    Raises
    ------
    UnetcamError
        If nilearn is missing, or `out` holds something else.
    """
    progress = progress or Silent()
    progress.step("reading the slices")
    check_free(out, force=force, beside=(DATA,))
    data = out / DATA
    write_demo_data(data)
    progress.step("loading")
    spec = Spec.of(
        model=MODEL,
        device=device,
        classes=data / "classes.csv",
        images=data / "images",
        masks=data / "masks",
        mean=DEMO_STATISTICS.mean,
        std=DEMO_STATISTICS.std,
    )
    return run_report(
        spec,
        out,
        workers=workers,
        force=force,
        command=["unetcam", "demo", "--out", str(out)],
        beside=(DATA,),
        progress=progress,
    )
