"""The options that several commands share: the flags of a spec, with what they mean."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from unetcam.cli import values

_NETWORK, _MAPS, _DATA, _MEASURES, _RUNNING = (
    "The network",
    "The maps",
    "The data",
    "The measures",
    "Running",
)


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
        rich_help_panel=_NETWORK,
    ),
]
ModelArgs = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="An argument of the factory, as in classes=4; may be given several times.",
        rich_help_panel=_NETWORK,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Where the weights lie inside the checkpoint, as in state_dict, or what stands before "
        "their names, as in student.",
        rich_help_panel=_NETWORK,
    ),
]
AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Load a checkpoint that may run code of its own; only for files you trust.",
        rich_help_panel=_NETWORK,
    ),
]
Partial = Annotated[
    bool,
    typer.Option(
        "--partial",
        help="Load the weights that fit the network and name those that the checkpoint lacks, "
        "which stay random.",
        rich_help_panel=_NETWORK,
    ),
]
Channels = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Channels of the images; read from the network's first convolution by default.",
        rich_help_panel=_NETWORK,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="HxW",
        callback=values.read_size_option,
        help="Bring every image to this size, as in 256x256; by default images keep their size "
        "and are only filled up to what the network's stride needs. Volumes always keep theirs: "
        "a 3-D network is only looked at in it, as in 96x96x96.",
        rich_help_panel=_DATA,
    ),
]
Resize = Annotated[
    values.ResizeMode,
    typer.Option(
        "--resize-mode",
        help="pad: add a border and keep the pixels as they are; resize: stretch.",
        rich_help_panel=_DATA,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...",
        callback=values.read_mean_option,
        help="Mean of each channel that the network was trained with, on values in [0, 1].",
        rich_help_panel=_DATA,
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...",
        callback=values.read_std_option,
        help="Standard deviation of each channel, likewise.",
        rich_help_panel=_DATA,
    ),
]
MaxValue = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="The pixel value that becomes 1 before normalising; by default that of the image's "
        "type, as 255 for 8 bits.",
        rich_help_panel=_DATA,
    ),
]
Head = Annotated[
    values.Head | None,
    typer.Option(
        help="softmax: a pixel belongs to one class; sigmoid: to each class whose logit is above "
        "zero (multi-label, nested regions). By default as the network ends, and softmax where "
        "that can't be told.",
        rich_help_panel=_NETWORK,
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...",
        callback=values.read_layers_option,
        help="The layers to explain; every decoder layer by default (see unetcam layers).",
        rich_help_panel=_MAPS,
    ),
]
Method = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="How maps are made (see unetcam methods).", rich_help_panel=_MAPS
    ),
]
Target = Annotated[
    values.TargetName,
    typer.Option(
        help="What is explained: a class's mean score over the whole image, over the pixels "
        "predicted as the class, over those that truly are of the class, or over its errors of "
        "one kind.",
        rich_help_panel=_MAPS,
    ),
]
Tile = Annotated[
    str | None,
    typer.Option(
        metavar="HxW|DxHxW",
        callback=values.read_tile,
        help="Explain images and volumes that don't fit in tiles of this size, a multiple of the "
        "network's stride, as in 512x512 or 96x96x96; one number for all sides.",
        rich_help_panel=_RUNNING,
    ),
]
Overlap = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Pixels that tiles share at each side, a multiple of the network's stride; about a "
        "quarter of the tile by default.",
        rich_help_panel=_RUNNING,
    ),
]
Orientation = Annotated[
    str,
    typer.Option(
        metavar="CODE",
        help="Where the axes of volumes run to for a 3-D network: RAS for right, front and up, "
        "SPL and so on, as it was trained; or file: as they are stored.",
        rich_help_panel=_DATA,
    ),
]
Device = Annotated[
    str,
    typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:0.", rich_help_panel=_RUNNING),
]
Amp = Annotated[
    bool,
    typer.Option("--amp", help="Run the network in mixed precision.", rich_help_panel=_RUNNING),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Images in one pass: 4 by default, and 1 for volumes and for tiles.",
        rich_help_panel=_RUNNING,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Processes that read images; 0: none. By default one for each further core, at "
        "most 4. Of volumes, which fill the memory, one at most reads ahead.",
        rich_help_panel=_RUNNING,
    ),
]
Seed = Annotated[
    int, typer.Option(metavar="N", help="Seed of all that is drawn.", rich_help_panel=_RUNNING)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show no progress.", rich_help_panel=_RUNNING)
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object instead of text.", rich_help_panel=_RUNNING),
]
Images = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="The images, or for a 3-D network volumes.", rich_help_panel=_DATA
    ),
]
Masks = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The masks, named like the images.", rich_help_panel=_DATA),
]
Manifest = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A csv or json file with columns image and mask, instead of two folders.",
        rich_help_panel=_DATA,
    ),
]
Classes = Annotated[
    str,
    typer.Option(
        metavar="NAMES|FILE",
        show_default=False,
        help="The classes in the order of the network's channels, as in background,cell; or a "
        "txt, csv, json or yaml file with names, mask values and colours.",
        rich_help_panel=_DATA,
    ),
]
ClassNames = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES|FILE",
        help="The classes' names; class 0 and so on by default.",
        rich_help_panel=_DATA,
    ),
]
IgnoreIndex = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="The mask value of pixels that count nowhere.", rich_help_panel=_DATA
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(metavar="N", help="Take the first N images only.", rich_help_panel=_DATA),
]
Band = Annotated[
    float | None,
    typer.Option(
        metavar="PIXELS",
        help="Width of the band along a contour, of volumes in voxels; 2 % of the image's "
        "diagonal by default.",
        rich_help_panel=_MEASURES,
    ),
]
Threshold = Annotated[
    float,
    typer.Option(
        metavar="SHARE",
        help="The share of a map's maximum above which it counts in the overlap.",
        rich_help_panel=_MEASURES,
    ),
]
RunFolder = Annotated[
    Path,
    typer.Option(
        metavar="RUN",
        show_default=False,
        help="The folder that is written.",
        rich_help_panel=_RUNNING,
    ),
]
ForceRun = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Replace another run in RUN; only files that a run wrote are deleted.",
        rich_help_panel=_RUNNING,
    ),
]
DATA, MAPS, MEASURES, NETWORK, RUNNING = _DATA, _MAPS, _MEASURES, _NETWORK, _RUNNING

MaskSuffix = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="What a mask's name has behind its image's, as in _seg.",
        rich_help_panel=_DATA,
    ),
]
Pair = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN",
        help="How a mask is called, as in {stem}_gtFine_labelIds; or image and mask, as in "
        "{stem}_leftImg8bit:{stem}_gtFine_labelIds.",
        rich_help_panel=_DATA,
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Pixels of the largest image that is decoded, about 67 million by default; four "
        "times as many with --tile.",
        rich_help_panel=_DATA,
    ),
]
ExifTurn = Annotated[
    values.Exif,
    typer.Option(
        "--exif",
        help="Which way masks without an EXIF orientation lie where their images have one: as a "
        "person sees the image, or as its file stores it; auto tells by the sizes.",
        rich_help_panel=_DATA,
    ),
]
Instances = Annotated[
    bool,
    typer.Option(
        "--instances",
        help="Masks number single objects: every value above 0 is the second class.",
        rich_help_panel=_DATA,
    ),
]
Bands = Annotated[
    str | None,
    typer.Option(
        metavar="R,G,B",
        callback=values.read_bands_option,
        help="Which bands are shown as red, green and blue, counted from 1.",
        rich_help_panel=_DATA,
    ),
]
Stretch = Annotated[
    str | None,
    typer.Option(
        metavar="HOW",
        help="How values are shown: percentile:1:99, minmax, window:LOW:HIGH or none.",
        rich_help_panel=_DATA,
    ),
]
Axes = Annotated[
    str | None,
    typer.Option(
        metavar="ZYX",
        help="What the axes of volumes in TIFF and NumPy files are for a 3-D network, as in ZYX or "
        "CZYX; by default as a file tells it.",
        rich_help_panel=_DATA,
    ),
]
Normalise = Annotated[
    str | None,
    typer.Option(
        metavar="HOW",
        help="How values are brought to what the network was trained on: zscore, "
        "percentile:1:99, window:LOW:HIGH, minmax, or imagenet and other presets; instead of "
        "--mean and --std.",
        rich_help_panel=_DATA,
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
_PANELS = (None, _NETWORK, _DATA, _MAPS, _MEASURES, _RUNNING)


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
