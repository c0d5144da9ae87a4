"""The flags of a spec: those of the network, the maps and the run, and how a command takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from unetcam.cli import values
from unetcam.cli.data_options import (
    DATA,
    Axes,
    Bands,
    ExifTurn,
    IgnoreIndex,
    Images,
    Instances,
    Limit,
    Manifest,
    Masks,
    MaskSuffix,
    MaxPixels,
    MaxValue,
    Mean,
    Normalise,
    Orientation,
    Pair,
    Resize,
    Size,
    Std,
    Stretch,
)

NETWORK, MAPS, MEASURES, RUNNING = "The network", "The maps", "The measures", "Running"


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="A folder written by save_pretrained of segmentation-models-pytorch; "
        "package.module:factory or file.py:factory; or smp:Unet and its siblings.",
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Weights: safetensors, .pt, .pth, or the .index.json of several files.",
        rich_help_panel=NETWORK,
    ),
]
ModelArgs = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="An argument of the factory, as in classes=4; may be given several times.",
        rich_help_panel=NETWORK,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Where the weights lie inside the checkpoint, as in state_dict, or what stands before "
        "their names, as in student.",
        rich_help_panel=NETWORK,
    ),
]
AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Load a checkpoint that may run code of its own; only for files you trust.",
        rich_help_panel=NETWORK,
    ),
]
Partial = Annotated[
    bool,
    typer.Option(
        "--partial",
        help="Load the weights that fit the network and name those that the checkpoint lacks, "
        "which stay random.",
        rich_help_panel=NETWORK,
    ),
]
Channels = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Channels of the images; read from the network's first convolution by default.",
        rich_help_panel=NETWORK,
    ),
]
Head = Annotated[
    values.Head | None,
    typer.Option(
        help="softmax: a pixel belongs to one class; sigmoid: to each class whose logit is above "
        "zero (multi-label, nested regions). By default as the network ends, and softmax where "
        "that can't be told.",
        rich_help_panel=NETWORK,
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...",
        callback=values.read_layers_option,
        help="The layers to explain; every decoder layer by default (see unetcam layers).",
        rich_help_panel=MAPS,
    ),
]
Method = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="How maps are made (see unetcam methods).", rich_help_panel=MAPS
    ),
]
Target = Annotated[
    values.TargetName,
    typer.Option(
        help="What is explained: a class's mean score over the whole image, over the pixels "
        "predicted as the class, over those that truly are of the class, or over its errors of "
        "one kind.",
        rich_help_panel=MAPS,
    ),
]
Tile = Annotated[
    str | None,
    typer.Option(
        metavar="HxW|DxHxW",
        callback=values.read_tile,
        help="Explain images and volumes that don't fit in tiles of this size, a multiple of the "
        "network's stride, as in 512x512 or 96x96x96; one number for all sides.",
        rich_help_panel=RUNNING,
    ),
]
Overlap = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Pixels that tiles share at each side, a multiple of the network's stride; about a "
        "quarter of the tile by default.",
        rich_help_panel=RUNNING,
    ),
]
Device = Annotated[
    str,
    typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:0.", rich_help_panel=RUNNING),
]
Amp = Annotated[
    bool,
    typer.Option("--amp", help="Run the network in mixed precision.", rich_help_panel=RUNNING),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Images in one pass: 4 by default, and 1 for volumes and for tiles. A network that "
        "takes one number of images alone needs it said.",
        rich_help_panel=RUNNING,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Processes that read images; 0: none. By default one for each further core, at "
        "most 4. Of volumes, which fill the memory, one at most reads ahead.",
        rich_help_panel=RUNNING,
    ),
]
Seed = Annotated[
    int, typer.Option(metavar="N", help="Seed of all that is drawn.", rich_help_panel=RUNNING)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show no progress.", rich_help_panel=RUNNING)
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object instead of text.", rich_help_panel=RUNNING),
]
Band = Annotated[
    float | None,
    typer.Option(
        metavar="PIXELS",
        help="Width of the band along a contour, of volumes in voxels; 2 % of the image's "
        "diagonal by default.",
        rich_help_panel=MEASURES,
    ),
]
Threshold = Annotated[
    float,
    typer.Option(
        metavar="SHARE",
        help="The share of a map's maximum above which it counts in the overlap.",
        rich_help_panel=MEASURES,
    ),
]
RunFolder = Annotated[
    Path,
    typer.Option(
        metavar="RUN",
        show_default=False,
        help="The folder that is written.",
        rich_help_panel=RUNNING,
    ),
]
ForceRun = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Replace another run in RUN; only files that a run wrote are deleted.",
        rich_help_panel=RUNNING,
    ),
]


#: The flags that are fields of a spec: their names, what the command line takes, their defaults.
SPEC: dict[str, tuple[Any, Any]] = {
    "checkpoint": (Checkpoint, None),
    "model_args": (ModelArgs, None),
    "key": (Key, None),
    "allow_pickle": (AllowPickle, False),
    "partial": (Partial, False),
    "channels": (Channels, None),
    "head": (Head, None),
    "images": (Images, None),
    "masks": (Masks, None),
    "manifest": (Manifest, None),
    "ignore_index": (IgnoreIndex, None),
    "limit": (Limit, None),
    "size": (Size, None),
    "resize_mode": (Resize, values.ResizeMode.PAD),
    "mean": (Mean, None),
    "std": (Std, None),
    "max_value": (MaxValue, None),
    "normalise": (Normalise, None),
    "mask_suffix": (MaskSuffix, None),
    "pair": (Pair, None),
    "instances": (Instances, False),
    "exif": (ExifTurn, values.Exif.AUTO),
    "max_pixels": (MaxPixels, None),
    "bands": (Bands, None),
    "stretch": (Stretch, None),
    "axes": (Axes, None),
    "orientation": (Orientation, "RAS"),
    "layers": (Layers, None),
    "method": (Method, "gradcam"),
    "target": (Target, values.TargetName.CLASS),
    "band": (Band, None),
    "threshold": (Threshold, 0.5),
    "tile": (Tile, None),
    "overlap": (Overlap, None),
    "device": (Device, "auto"),
    "amp": (Amp, False),
    "batch_size": (BatchSize, None),
    "seed": (Seed, 0),
}
_PANELS = (None, NETWORK, DATA, MAPS, MEASURES, RUNNING)


def takes(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these flags of a spec; their values come as keyword arguments."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        own = [
            parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(command).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        further = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=SPEC[name][1],
                annotation=SPEC[name][0],
            )
            for name in names
        ]
        parameters = sorted([*own, *further], key=_panel)

        @wraps(command)
        def called(**given: Any) -> None:
            command(
                **{
                    name: value.value if isinstance(value, Enum) else value
                    for name, value in given.items()
                }
            )

        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in parameters}
        return called

    return decorate


def _panel(parameter: inspect.Parameter) -> int:
    (info,) = parameter.annotation.__metadata__
    return _PANELS.index(getattr(info, "rich_help_panel", None))
