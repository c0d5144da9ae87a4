"""unetcam diagnose: a network's faults, tested on one's own images."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from unetcam.cli import data_options, options
from unetcam.cli.console import RichProgress, interruptible, print_json

FAILED = 3

EPILOG = """
**Examples**

`unetcam diagnose net.py:build --checkpoint best.pth --images test/images --masks test/masks
--classes background,cell`

In a build, which fails where the network leans on what is around an object:

`unetcam diagnose net.py:build --checkpoint best.pth --manifest test.csv --classes classes.csv
--fail-on leans-on-surroundings:0.3`
"""

_MAPS_ONLY = ("layers", "method", "target", "band", "threshold", "tile", "overlap")


@options.takes(*(name for name in options.SPEC if name not in (*_MAPS_ONLY, "amp")))
def diagnose(
    model: options.Model,
    classes: data_options.Classes,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND[:EFFECT]",
            help="Exit with code 3 if there is such a finding, of so large an effect; any stands "
            "for every kind; may be given several times.",
            rich_help_panel=options.RUNNING,
        ),
    ] = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
    **given: Any,
) -> None:
    """Test what a network gets wrong and what it leans on, on a sample of images with masks.

    Each finding was tested on the images against a control. Up to 24 images, spread evenly over
    the data set, are taken.
    """
    with interruptible("Nothing was written."), RichProgress(quiet or json) as progress:
        progress.step("loading")
        from unetcam.runs import Spec
        from unetcam.tasks.diagnose import Limit, run_diagnosis, told

        limits = [Limit.parse(text) for text in fail_on or ()]
        spec = Spec.of(model=model, classes=classes, **given)
        examined = run_diagnosis(spec, progress=progress)
    diagnosis = examined.diagnosis
    if json:
        print_json(
            {
                "images": list(examined.images),
                "reason": examined.reason,
                "diagnosis": None if diagnosis is None else diagnosis.to_dict(),
            }
        )
    else:
        print(told(examined))
    if diagnosis is not None and any(limit.exceeded_by(diagnosis) for limit in limits):
        raise typer.Exit(FAILED)
