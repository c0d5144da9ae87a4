"""unetcam map: where a network looks in single images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unetcam.cli import options
from unetcam.cli.console import RichProgress, interruptible, print_json

EPILOG = """
**Examples**

`unetcam map smp_folder photo.png --out maps`

`unetcam map net.py:build a.tif b.tif --checkpoint best.pth --classes background,cell
--method layercam --out maps`

`unetcam map net3d.py:build brain.nii.gz --checkpoint best.pth --tile 96 --out maps`
"""


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
    *,
    checkpoint: options.Checkpoint = None,
    model_args: options.ModelArgs = None,
    key: options.Key = None,
    allow_pickle: options.AllowPickle = False,
    channels: options.Channels = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES|FILE",
            help="The classes' names; class 0 and so on by default.",
            rich_help_panel=options.DATA,
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
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="The folder that is written.",
            rich_help_panel=options.RUNNING,
        ),
    ],
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace the files of images that are there already.",
            rich_help_panel=options.RUNNING,
        ),
    ] = False,
    tile: options.Tile = None,
    overlap: options.Overlap = None,
    device: options.Device = "auto",
    amp: options.Amp = False,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Write overlays and raw maps of single images.

    DIR gets a folder for each image, with one PNG per layer and class and with the raw maps in
    maps.npz, all in the image's own size. For a 3-D network NIfTI and NRRD volumes are explained
    whole, and the folder gets the prediction and the raw map of each layer and class as volumes
    of the same kind, which a viewer lays over the input.
    """
    tile_read = options.read_tile(tile)
    size_read = options.read_size(size)
    layers_read = options.read_names("--layers", layers)
    mean_read = options.read_numbers("--mean", mean)
    std_read = options.read_numbers("--std", std)
    with (
        interruptible("Start the same command with --force to write the maps again."),
        RichProgress(quiet or json) as progress,
    ):
        progress.step("loading")
        from unetcam.page.map_files import write_maps
        from unetcam.runs import Explanation, ModelRequest

        files, skipped = write_maps(
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
            images,
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
            out,
            classes=classes,
            force=force,
            progress=progress,
        )
    if json:
        print_json(
            {
                "out": str(out),
                "files": [str(path) for path in files],
                "skipped": [{"file": one.file, "reason": one.reason} for one in skipped],
            }
        )
    else:
        more = f"; {len(skipped)} images were skipped" if skipped else ""
        print(f"{len(files)} files in {out}{more}.")
