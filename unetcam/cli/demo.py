"""unetcam demo: the whole way on data that come along."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unetcam.cli import options, values
from unetcam.cli.console import RichProgress, interruptible, print_json

EPILOG = """
**Example**

`unetcam demo --out demo-report`
"""


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder that is written.")] = Path(
        "demo-report"
    ),
    device: options.Device = "auto",
    workers: options.Workers = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace another run in DIR; only files that a run wrote are deleted.",
            rich_help_panel=options.RUNNING,
        ),
    ] = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Explain a small brain-tissue network on slices it has not been trained on.

    The network (about half a million parameters) segments background, other brain, grey and white
    matter in axial slices of the MNI152 template, one averaged brain: fit to show what a report
    looks like, and for nothing else. Needs `pip install unetcam[demo]`.
    """
    with (
        interruptible(f"Start the same command again, and the run in '{out}' goes on."),
        RichProgress(quiet or json) as progress,
    ):
        progress.step("loading")
        from unetcam.tasks.demo import run_demo

        outcome = run_demo(
            out,
            device=device,
            workers=values.choose_workers(workers),
            force=force,
            progress=progress,
        )
    if json:
        print_json(outcome.to_dict())
    else:
        print(outcome.sentence())
