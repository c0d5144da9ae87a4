"""The words of docs/truth.md around its tables."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import truth_page as page
import truth_planted
from truth_effects import CUE_OF
from truth_networks import FAULTS, training_seconds
from truth_tables import (
    STRONG,
    SURROUNDINGS,
    Judged,
    Rate,
    cue_networks,
    diagnosis_finds,
    judged_by,
    of_fault,
    untrue,
)

WHOLE_RUN = 10
"""Seeds of a whole run."""

CARRIES_NOT = """\
Measured before this benchmark, on 88 other networks with planted faults:

- Class-mean Grad-CAM at middle decoder layers puts .61 to .86 of its mass far from the class on
  *healthy* networks, and random channel weights do the same: no threshold on it separates healthy
  from faulty.
- Region targets with LayerCAM or HiResCAM keep .46 to .98 of their rank order when the whole
  network is randomised: they copy the target's mask and look clean whatever the network does.
- A far shortcut is invisible at every decoder layer for every CAM method; it shows at the first
  full-resolution *encoder* stage with a contrast target, and it shows without doubt when the
  surroundings are changed and the object is spared.

So a map shows, and an intervention decides."""


def _partial(networks: Sequence[Judged]) -> str:
    """What is still missing of a whole run, said; nothing where nothing is."""
    whole = len(FAULTS) * WHOLE_RUN
    diagnosed = sum("diagnosis" in one.answers for one in networks)
    by_maps = sum("maps" in one.answers for one in networks)
    slowly = sum("grid saliency" in one.answers for one in networks)
    asked = sum(one.truth.fault in CUE_OF or "healthy" in one.truth.fault for one in networks)
    if diagnosed == whole and by_maps == whole and slowly == asked:
        return ""
    return f"""
**A part of a run**: of the {whole} networks of {WHOLE_RUN} seeds {len(networks)} are made and
{diagnosed} diagnosed; {by_maps} are judged by the rules on maps, and of the {asked} of which one
can ask about surroundings {slowly} by the slow rules beside. Where a rate stands on few networks
its interval says so, and "-" is a question that was not asked yet; the same command goes on."""


def write(networks: Sequence[Judged], cache: Path) -> str:
    """The whole page, from the judgements."""
    made, limits = page.columns(networks)
    judging = sum(sum(one.seconds.values()) for one in networks)
    minutes = (judging + training_seconds(cache)) / 60
    weight, all_untrue, findings = page.per_healthy(networks, even=False)
    partial = _partial(networks)
    parts = [
        f"""\
# What is found, and what is not

Made by `python scripts/truth.py run --cache DIR` and
`python scripts/truth.py page --cache DIR`: {len(networks)} networks, at
least {minutes:.0f} minutes of one core for training and judgements ({platform.machine()}, torch
{torch.__version__.split("+")[0]}). `tests/test_truth.py` (slow) makes a small part of it anew.
{partial}

A tool that says what a network leans on has to be tried on networks of which that is known. Here
they are made: small U-Nets (210 k weights) on scenes of 64 x 64 pixels, composed of photographs
that ship inside scikit-image and stardist. Every scene can be drawn again with one cue changed and
nothing else, so **the true effect of a cue is measured, without a map and without hiding
anything**: the share of a class's pixels that the network had right and loses when the cue is as
the other class has it.

![Scenes with each cue, the cue flipped, and the masks](images/truth/scenes.png)

In a faulty world *brick* and *tissue* look the same, an even mixture of both textures, and the cue
alone tells which is which; mixtures of the far cue with some texture make weaker shortcuts. In the
healthy world every cue is there, and means nothing. *Healthy plain* never saw any cue. Networks
with faulty labels, and broken ones, are trained or derived from healthy ones. A network counts
only if it took its fault up.""",
        page.network_table(networks),
        f"""\
## How often a fault is found

On the odd seeds. Everything that has a limit got it on the even seeds, with healthy and faulty
networks at hand; the diagnosis has its own and saw none of the odd ones. Each network is judged on
24 images of its own world, in which a shortcut always holds, as it does in the validation set of
somebody who has one. In brackets the 95 % interval (Clopper and Pearson). Shortcuts in the
surroundings are counted where their true effect is above {STRONG}.

- **diagnosis**: `unetcam.diagnose` names the fault ({_kinds()}).
- **map thresholds**: any finding of medium weight about *brick* or *tissue* by the limits on maps
  that the report had before findings were tested.
- **best map rule**: of {2 * page.MAP_RULES} rules (method, target, layer, statistic, direction) the
  one that does best on the even seeds, for each kind of fault anew.
- **Grid Saliency, CBD** (Hoyer et al., NeurIPS 2019): the mean over the context of a mask optimised
  to keep the class; 8 x 8 cells, the object kept.
- **integrated gradients** (captum): the share of the attribution away from the object.
- **occlusion**: the largest flip of windows of 12 pixels that may also hide the object.
- **reliance**: `unetcam.interventions.reliance` as a bare number: the share of the object that
  flips under two kinds of fill when the strongest window, or everything around it, is hidden.""",
        page.found_table(networks, made, even=False),
        f"""\
Networks of the odd seeds that are healthy, and have a finding all the same. For the diagnosis only
untrue findings of medium or high weight count; a true one, as that a healthy network falls when
the colours go, which redrawing confirms, is none. It made {findings:.1f} findings per healthy
network, of which {all_untrue:.2f} untrue and {weight:.2f} untrue and of weight.""",
        page.healthy_table(networks, made, even=False),
        _untrue_part(networks),
        "The same on the even seeds, where the limits were fixed:",
        page.found_table(networks, made, even=True),
        page.healthy_table(networks, made, even=True),
        """\
## Strength

Detection against the true effect: one dot per network with a planted cue, of all seeds.

![The effect that the diagnosis measured against the true effect](images/truth/strength.png)
""",
        _strength_table(networks),
        """\
## Where

The share of the images with a cue in which the window that matters most touches the cue; odd
seeds. A cue that is everywhere, as the ground, the tint or the blur, has no window.""",
        page.window_table(networks),
        "## The limits\n\nAs they were fixed on the even seeds.",
        page.limits_table(limits),
        "## What a map can't carry\n\n" + CARRIES_NOT,
        _maps_part(networks),
        _planted_part(cache),
        """\
## What it takes

Processor seconds per network on one core; the diagnosis and the thresholds on 24 images, maps on
12, the others on 8 objects.""",
        page.seconds_table(networks),
        _shortfalls(networks),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _maps_part(networks: Sequence[Judged]) -> str:
    if not any("maps" in one.answers for one in of_fault(networks, *page.HEALTHY)):
        return ""
    return "On the networks of this page, all seeds:\n\n" + page.map_table(networks)


def _kinds() -> str:
    from truth_diagnosis import EXPECTED

    return ", ".join(
        f"`{kind}`" for kind in dict.fromkeys(k for ks in EXPECTED.values() for k in ks)
    )


def _untrue_part(networks: Sequence[Judged]) -> str:
    said = [one for one in networks if one.learned and "diagnosis" in one.answers and untrue(one)]
    if not said:
        return "No network of any seed got an untrue finding of weight."
    return "Every untrue finding of weight, of all seeds and networks:\n\n" + page.untrue_table(
        networks
    )


def _strength_table(networks: Sequence[Judged]) -> str:
    shortcuts = [one for one in of_fault(networks, *SURROUNDINGS) if "diagnosis" in one.answers]
    edges = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.01)
    rows = []
    for low, high in pairwise(edges):
        group = [one for one in shortcuts if low <= one.strength < high]
        if group:
            rate = Rate.of(diagnosis_finds(one) for one in group)
            rows.append((f"{low:.1f} to {min(high, 1.0):.1f}", rate))
    head = ("true effect of a cue in the surroundings", "named by the diagnosis (all seeds)")
    return page.table(head, rows)


def _planted_part(cache: Path) -> str:
    rows = []
    for kind, seed, told in truth_planted.kept(cache):
        kinds = ", ".join(
            f"{finding['kind']} ({finding['class_name'] or 'all'}, {finding['severity']})"
            for finding in told["findings"]
        )
        rows.append((kind, seed, f"{told['iou']:.2f}", f"{told['effect']:.2f}", kinds or "none"))
    if not rows:
        return ""
    return """\
## Real images

Beside the toy: slices of the demo's brain at 2 mm, where a tag in a corner goes with a labelling
protocol that knows no grey matter, and nuclei of a micrograph that are called *treated* where a
scale bar is in the picture. Each has a twin of the same images whose cue means nothing. The true
effect is the share of the class's pixels that change when the same image comes without its cue.

![A network with a planted shortcut beside its healthy twin](images/truth/planted.png)

""" + page.table(("network", "seed", "IoU of the class", "true effect", "findings"), rows)


def _shortfalls(networks: Sequence[Judged]) -> str:
    """Which faults were missed on the judging half, from the numbers."""
    lines = []
    for fault in page.EXPECTED:
        judged = judged_by(of_fault(networks, fault), "diagnosis", even=False)
        rate = Rate.of(
            diagnosis_finds(one)
            for one in judged
            if fault not in SURROUNDINGS or one.strength > STRONG
        )
        if rate.trials and rate.hits < 0.9 * rate.trials:
            lines.append(f"- *{fault}*: {rate}.")
    strong = judged_by(cue_networks(networks), "diagnosis", even=False)
    total = Rate.of(diagnosis_finds(one) for one in strong)
    missed = "\n".join(lines) or "- none."
    not_taken = sorted({one.truth.fault for one in networks if not one.learned})
    took = (
        f" Networks that did not take their fault up: {', '.join(not_taken)}." if not_taken else ""
    )
    spread = float(np.mean([one.strength for one in strong])) if strong else float("nan")
    return f"""\
## What is not found

Shortcuts in the surroundings with a true effect above {STRONG}: {total} on the judging half, with
a mean true effect of {spread:.2f}. Faults that the diagnosis names in fewer than nine of ten
networks there:

{missed}

A rate of few networks is wide: read the intervals.{took}

Scenes of 64 pixels, one family of small U-Nets and six cues are not the world: what is missed here
will be missed elsewhere, and what is found here need not be."""
