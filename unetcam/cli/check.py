"""unetcam check: whether maps depend on the network's weights at all."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from unetcam.cli import data_options, options, values
from unetcam.cli.console import RichProgress, interruptible, print_json

EPILOG = """
**Examples**

`unetcam check net.py:build --checkpoint best.pth --images test/images --masks test/masks
--classes background,cell`

`unetcam check smp:Unet --checkpoint best.safetensors --model-args classes=3 --manifest test.csv
--methods gradcam,layercam --limit 20 --json`
"""


@options.takes(
    *(
        name
        for name in options.SPEC
        if name not in ("method", "target", "tile", "overlap", "amp", "band", "threshold")
        and name not in ("batch_size", "head")
    )
)
def check(
    model: options.Model,
    classes: data_options.ClassNames = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="The methods to check; gradcam, hirescam and layercam by default.",
            rich_help_panel=options.MAPS,
        ),
    ] = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
    **given: Any,
) -> None:
    """Check whether maps depend on the network: shuffle its weights and compare.

    A method fails for a target at a layer if its maps of the network with shuffled weights are as
    like its maps as maps of different images are: what such a map shows is not the network's
    doing. Only a fail counts. 12 images are taken, or --limit.
    """
    with interruptible("Start the same command again."), RichProgress(quiet or json) as progress:
        progress.step("loading")
        from unetcam.runs import Spec
        from unetcam.tasks.check import METHODS, check_data

        names = values.read_names(methods, "methods")
        spec = Spec.of(model=model, classes=classes, **given)
        outcome = check_data(spec, names or METHODS, progress=progress)
    if json:
        print_json(outcome.to_dict())
    else:
        print(outcome.text())
