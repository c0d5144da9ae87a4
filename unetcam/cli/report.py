"""unetcam report: a data set explained, measured, and told on one page."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from unetcam.cli import data_options, options, values
from unetcam.cli.console import RichProgress, interruptible, print_json

EPILOG = """
**Examples**

A network from code, masks with the values 0, 1 and 2:

`unetcam report net.py:build --checkpoint best.pth --images test/images --masks test/masks
--classes background,cell,border --out run`

A network of segmentation-models-pytorch that was trained on normalised images:

`unetcam report smp:Unet --checkpoint best.safetensors --model-args classes=3 --manifest test.csv
--classes classes.csv --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --out run`

A 3-D network, NIfTI or NRRD volumes and label volumes, in tiles:

`unetcam report net3d.py:build --checkpoint best.pth --images scans --masks labels
--classes background,tumour --tile 96 --out run`

A run that was stopped goes on when the same command is started again.
"""


@options.takes(*options.SPEC)
def report(
    model: options.Model,
    classes: data_options.Classes,
    out: options.RunFolder,
    force: options.ForceRun = False,
    diagnose: Annotated[
        bool,
        typer.Option(
            "--diagnose/--no-diagnose",
            help="Test what the network gets wrong and leans on, on up to 24 of the images.",
            rich_help_panel=options.RUNNING,
        ),
    ] = True,
    check: Annotated[
        bool,
        typer.Option(
            "--check/--no-check",
            help="Check the maps against those of the network with its weights shuffled, on a few "
            "of the images.",
            rich_help_panel=options.RUNNING,
        ),
    ] = True,
    workers: options.Workers = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
    **given: Any,
) -> None:
    """Explain every image or volume of a data set and write a report.

    RUN then holds report.html, rows.parquet and rows.csv (one row per image, layer and class),
    summary.csv (per class and layer), findings.json, skipped.csv, figures and run.json. For a 3-D
    network volumes (NIfTI, NRRD, TIFF, NumPy) are explained and measured whole, in voxels.
    """
    with (
        interruptible(f"Start the same command again, and the run in '{out}' goes on."),
        RichProgress(quiet or json) as progress,
    ):
        progress.step("loading")
        from unetcam.runs import Spec
        from unetcam.tasks.report import run_report

        outcome = run_report(
            Spec.of(model=model, classes=classes, **given),
            out,
            diagnose=diagnose,
            check=check,
            workers=values.choose_workers(workers),
            force=force,
            command=["unetcam", *sys.argv[1:]],
            progress=progress,
        )
    if json:
        print_json(outcome.to_dict())
    else:
        print(outcome.sentence())
