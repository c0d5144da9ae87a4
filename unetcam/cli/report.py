"""unetcam report: a data set explained, measured, and told on one page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from unetcam.cli import options
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


def report(
    model: options.Model,
    *,
    checkpoint: options.Checkpoint = None,
    model_args: options.ModelArgs = None,
    key: options.Key = None,
    allow_pickle: options.AllowPickle = False,
    channels: options.Channels = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The images, or for a 3-D network volumes.",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The masks, named like the images.", rich_help_panel=options.DATA
        ),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A csv or json file with columns image and mask, instead of two folders.",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    classes: Annotated[
        str,
        typer.Option(
            metavar="NAMES|FILE",
            show_default=False,
            help="The classes in the order of the network's channels, as in background,cell; or a "
            "txt, csv, json or yaml file with names, mask values and colours.",
            rich_help_panel=options.DATA,
        ),
    ],
    ignore_index: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="The mask value of pixels that count nowhere.",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Take the first N images only.", rich_help_panel=options.DATA
        ),
    ] = None,
    size: options.Size = None,
    resize_mode: options.Resize = options.ResizeMode.PAD,
    mean: options.Mean = None,
    std: options.Std = None,
    max_value: options.MaxValue = None,
    orientation: options.Orientation = "RAS",
    layers: options.Layers = None,
    method: options.Method = "gradcam",
    target: options.Target = options.TargetName.CLASS,
    band: Annotated[
        float | None,
        typer.Option(
            metavar="PIXELS",
            help="Width of the band along a contour, of volumes in voxels; 2 % of the image's "
            "diagonal by default.",
            rich_help_panel=options.MEASURES,
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="The share of a map's maximum above which it counts in the overlap.",
            rich_help_panel=options.MEASURES,
        ),
    ] = 0.5,
    out: Annotated[
        Path,
        typer.Option(
            metavar="RUN",
            show_default=False,
            help="The folder that is written.",
            rich_help_panel=options.RUNNING,
        ),
    ],
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace another run in RUN; only files that a run wrote are deleted.",
            rich_help_panel=options.RUNNING,
        ),
    ] = False,
    tile: options.Tile = None,
    overlap: options.Overlap = None,
    device: options.Device = "auto",
    amp: options.Amp = False,
    batch_size: options.BatchSize = None,
    workers: options.Workers = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Explain every image or volume of a data set and write a report.

    RUN then holds report.html, rows.parquet and rows.csv (one row per image, layer and class),
    summary.csv (per class and layer), skipped.csv, figures and run.json. For a 3-D network NIfTI
    and NRRD volumes are explained and measured whole, in voxels.
    """
    tile_read = options.read_tile(tile)
    size_read = options.read_size(size)
    layers_read = options.read_names("--layers", layers)
    mean_read = options.read_numbers("--mean", mean)
    std_read = options.read_numbers("--std", std)
    with (
        interruptible(f"Start the same command again, and the run in '{out}' goes on."),
        RichProgress(quiet or json) as progress,
    ):
        progress.step("loading")
        from unetcam.runs import DataRequest, Explanation, Measuring, ModelRequest
        from unetcam.tasks.report import run_report

        outcome = run_report(
            ModelRequest(
                model,
                checkpoint=checkpoint,
                model_args=model_args or (),
                key=key,
                allow_pickle=allow_pickle,
                device=device,
                channels=channels,
                size=size_read,
                seed=seed,
            ),
            DataRequest(
                classes=classes,
                images=images,
                masks=masks,
                manifest=manifest,
                ignore_index=ignore_index,
                limit=limit,
            ),
            Explanation(
                layers=layers_read,
                method=method,
                target=target.value,
                resize_mode=resize_mode.value,
                mean=mean_read,
                std=std_read,
                max_value=max_value,
                amp=amp,
                tile=tile_read,
                overlap=overlap,
                orientation=orientation,
            ),
            Measuring(band=band, threshold=threshold, batch_size=batch_size),
            out,
            workers=options.choose_workers(workers),
            force=force,
            command=["unetcam", *sys.argv[1:]],
            progress=progress,
        )
    if json:
        print_json(outcome.to_dict())
    else:
        print(outcome.sentence())
