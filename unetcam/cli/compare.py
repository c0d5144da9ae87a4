"""unetcam compare: what changed between two runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unetcam.cli import options, values
from unetcam.cli.console import print_json

EPILOG = """
**Examples**

`unetcam compare run_old run_new`

`unetcam compare run_gradcam run_layercam --metrics outside_far_share,boundary_ratio --out table.md`
"""


def compare(
    run_a: Annotated[
        Path, typer.Argument(metavar="RUN_A", show_default=False, help="A finished run.")
    ],
    run_b: Annotated[
        Path, typer.Argument(metavar="RUN_B", show_default=False, help="Another one.")
    ],
    metrics: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Columns of rows.csv; the main ones by default."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.md", help="Write the table into this file."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.md if it is there.")] = False,
    json: options.Json = False,
) -> None:
    """Compare two runs over the same images, per class and layer.

    Gives means, their difference and a paired test (Wilcoxon's signed-rank test, with Holm's
    correction over the whole table) as a Markdown table.
    """
    from unetcam.tasks.compare import compare as compare_runs

    comparison = compare_runs(
        run_a, run_b, values.read_names(metrics, "metrics"), out=out, force=force
    )
    if json:
        print_json(comparison.to_dict())
    elif out is None:
        print(comparison.markdown(), end="")
    else:
        print(f"Comparison: {out}")
