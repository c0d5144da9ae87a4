"""unetcam map: where a network looks in single images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from unetcam.cli import data_options, options
from unetcam.cli.console import RichProgress, interruptible, print_json

EPILOG = """
**Examples**

`unetcam map smp_folder photo.png --out maps`

`unetcam map net.py:build a.tif b.tif --checkpoint best.pth --classes background,cell
--method layercam --out maps`

`unetcam map smp_folder photo.png --method reliance --out maps`

`unetcam map net3d.py:build brain.nii.gz --checkpoint best.pth --tile 96 --out maps`
"""


@options.takes(
    *(
        name
        for name in options.SPEC
        if name not in ("images", "masks", "manifest", "ignore_index", "limit")
        and name not in ("band", "threshold", "mask_suffix", "pair", "instances")
        and name != "exif"
    )
)
def map_images(
    model: options.Model,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...",
            show_default=False,
            help="Images, or for a 3-D network volumes; or folders of them.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="The folder that is written.",
            rich_help_panel=options.RUNNING,
        ),
    ],
    classes: data_options.ClassNames = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace the files of images that are there already.",
            rich_help_panel=options.RUNNING,
        ),
    ] = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
    **given: Any,
) -> None:
    """Write overlays and raw maps of single images.

    DIR gets a folder for each image, with one PNG per layer and class and with the raw maps in
    maps.npz, all in the image's own size. For a 3-D network volumes (NIfTI, NRRD,
    TIFF, NumPy) are explained whole, and the folder gets the prediction and the raw map of each
    layer and class as volumes of the same kind, which a viewer lays over the input.
    """
    with (
        interruptible("Start the same command with --force to write the maps again."),
        RichProgress(quiet or json) as progress,
    ):
        progress.step("loading")
        from unetcam.runs import Spec
        from unetcam.tasks.map import write_maps

        outcome = write_maps(
            Spec.of(model=model, classes=classes, **given),
            images,
            out,
            force=force,
            progress=progress,
        )
    if json:
        print_json(outcome.to_dict())
    else:
        print(outcome.sentence())
