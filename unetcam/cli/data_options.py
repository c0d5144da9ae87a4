"""The flags of a spec that say where the data lies, how it is read and what its classes are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unetcam.cli import values

DATA = "The data"

Images = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="The images, or for a 3-D network volumes.", rich_help_panel=DATA
    ),
]
Masks = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The masks, named like the images.", rich_help_panel=DATA),
]
Manifest = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A csv or json file with columns image and mask, instead of two folders.",
        rich_help_panel=DATA,
    ),
]
Classes = Annotated[
    str,
    typer.Option(
        metavar="NAMES|FILE",
        show_default=False,
        help="The classes in the order of the network's channels, as in background,cell; or a "
        "txt, csv, json or yaml file with names, mask values and colours.",
        rich_help_panel=DATA,
    ),
]
ClassNames = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES|FILE",
        help="The classes' names; class 0 and so on by default.",
        rich_help_panel=DATA,
    ),
]
IgnoreIndex = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="The mask value of pixels that count nowhere.", rich_help_panel=DATA
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(metavar="N", help="Take the first N images only.", rich_help_panel=DATA),
]
MaskSuffix = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="What a mask's name has behind its image's, as in _seg.",
        rich_help_panel=DATA,
    ),
]
Pair = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN",
        help="How a mask is called, as in {stem}_gtFine_labelIds; or image and mask, as in "
        "{stem}_leftImg8bit:{stem}_gtFine_labelIds.",
        rich_help_panel=DATA,
    ),
]
Instances = Annotated[
    bool,
    typer.Option(
        "--instances",
        help="Masks number single objects: every value above 0 is the second class.",
        rich_help_panel=DATA,
    ),
]
ExifTurn = Annotated[
    values.Exif,
    typer.Option(
        "--exif",
        help="Which way masks without an EXIF orientation lie where their images have one: as a "
        "person sees the image, or as its file stores it; auto tells by the sizes.",
        rich_help_panel=DATA,
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Pixels of the largest image that is decoded, about 67 million by default; four "
        "times as many with --tile.",
        rich_help_panel=DATA,
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
        rich_help_panel=DATA,
    ),
]
Resize = Annotated[
    values.ResizeMode,
    typer.Option(
        "--resize-mode",
        help="pad: add a border and keep the pixels as they are; resize: stretch.",
        rich_help_panel=DATA,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...",
        callback=values.read_mean_option,
        help="Mean of each channel that the network was trained with, on values in [0, 1].",
        rich_help_panel=DATA,
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...",
        callback=values.read_std_option,
        help="Standard deviation of each channel, likewise.",
        rich_help_panel=DATA,
    ),
]
MaxValue = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="The pixel value that becomes 1 before normalising; by default that of the image's "
        "type, as 255 for 8 bits.",
        rich_help_panel=DATA,
    ),
]
Normalise = Annotated[
    str | None,
    typer.Option(
        metavar="HOW",
        help="How values are brought to what the network was trained on: zscore, "
        "percentile:1:99, window:LOW:HIGH, minmax, or imagenet and other presets; instead of "
        "--mean and --std.",
        rich_help_panel=DATA,
    ),
]
Orientation = Annotated[
    str,
    typer.Option(
        metavar="CODE",
        help="Where the axes of volumes run to for a 3-D network: RAS for right, front and up, "
        "SPL and so on, as it was trained; or file: as they are stored.",
        rich_help_panel=DATA,
    ),
]
Axes = Annotated[
    str | None,
    typer.Option(
        metavar="ZYX",
        help="What the axes of volumes in TIFF and NumPy files are for a 3-D network, as in ZYX or "
        "CZYX; by default as a file tells it.",
        rich_help_panel=DATA,
    ),
]
Bands = Annotated[
    str | None,
    typer.Option(
        metavar="R,G,B",
        callback=values.read_bands_option,
        help="Which bands are shown as red, green and blue, counted from 1.",
        rich_help_panel=DATA,
    ),
]
Stretch = Annotated[
    str | None,
    typer.Option(
        metavar="HOW",
        help="How values are shown: percentile:1:99, minmax, window:LOW:HIGH or none.",
        rich_help_panel=DATA,
    ),
]
