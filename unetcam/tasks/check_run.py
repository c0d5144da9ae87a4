"""The check of a run's own maps, on so few images that every report can have it."""

from __future__ import annotations

import math

from unetcam import methods
from unetcam.errors import UnetcamError
from unetcam.measures.sanity import PAIRS
from unetcam.methods import Wrapper
from unetcam.runs import Plan, Progress, Run, Silent, publishing
from unetcam.runs.prepare import evaluated
from unetcam.runs.sanity import Check, Checked, read_checked, write_checked
from unetcam.tasks.check import alike, check, stacked

UNASKED = "The check of the maps was switched off (check=False)."
#: What is checked: the targets whose regions every network's maps can be asked for.
TARGETS = ("class", "predicted", "truth")
#: Methods of these families cost about a forward and a backward.
CHEAP = ("gradient", "activation", "baseline")
FEWEST_IMAGES = 4
#: How many of a run's images are read, at most, to find some of one size.
MOST_READ = 48


def check_run(plan: Plan, run: Run, progress: Progress | None = None) -> None:
    """Check a run's method and target at its layers, unless that was done, and write it down.

    As few images are taken as make 50 pairs of maps of different images, over all classes. Their
    maps are compared with those of the network with all its weights shuffled, and with its decoder
    alone shuffled: see :func:`unetcam.check`.

    Parameters
    ----------
    plan : Plan
    run : Run
        Its `checked` is set.
    progress : Progress, optional
    """
    fingerprint = str(run.meta["fingerprint"])
    checked = read_checked(run.path, fingerprint)
    if checked is None:
        (progress or Silent()).step("checking the maps")
        checked = _checked(plan)
        with publishing(run.path) as draft:
            write_checked(draft, fingerprint, checked)
    run.checked = checked


def images_needed(classes: int) -> int:
    """How many images make :data:`~unetcam.measures.sanity.PAIRS` pairs, each class by itself.

    >>> images_needed(1), images_needed(2), images_needed(4), images_needed(50)
    (11, 8, 6, 4)
    """
    pairs = -(-PAIRS // classes)
    return max(FEWEST_IMAGES, math.ceil((1 + math.sqrt(1 + 8 * pairs)) / 2))


def _checked(plan: Plan) -> Checked:
    spec = plan.spec
    method = methods.get(spec.method)
    if spec.target not in TARGETS:
        return Checked(None, f"Maps of the target '{spec.target}' can't be checked.")
    if spec.tiles is not None:
        return Checked(None, "Maps that are put together of tiles can't be checked.")
    if plan.network.batch_size not in (None, 1):
        return Checked(
            None, "Maps of a network that takes one number of images alone can't be checked."
        )
    if method.family not in CHEAP or isinstance(method, Wrapper):
        return Checked(
            None,
            f"{method.title} takes many runs of the network for a map, and a check many maps: "
            f"`unetcam check --methods {spec.method}` does it.",
        )
    try:
        found = _check(plan)
    except (
        UnetcamError
    ) as error:  # as of a network that can't be copied: it has its maps all the same
        return Checked(None, f"The maps could not be checked: {error}")
    if found is None:
        return Checked(None, "There are no two images of one size to check the maps with.")
    return Checked(found)


def _check(plan: Plan) -> Check | None:
    spec = plan.spec
    items = alike(plan, images_needed(len(plan.spec.class_names)), MOST_READ)
    if len(items) < 2:
        return None
    images, truth = stacked(plan, items)
    with evaluated(plan.network.module):
        return check(
            plan.network,
            images,
            truth,
            methods=[spec.method],
            targets=[spec.target],
            layers=spec.layers,
            steps=1,
            seed=spec.seed,
        )
