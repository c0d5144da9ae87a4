"""Every threshold behind a finding, with the reason why it stands where it does.

A finding is raised by one number that passes one threshold. The anchor of each is what a *uniform*
map would give, one that spreads the same value over every pixel and so says nothing about where the
model looks. Thresholds are conventions, not laws of nature: they tell a person where to look first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Symptom = Literal["scattered", "background", "boundary"]
Severity = Literal["high", "medium", "note"]

SYMPTOMS: tuple[Symptom, ...] = ("scattered", "background", "boundary")

#: A symptom counts as the rule for a class when at least half of its images show it: then the
#: median image is beyond the threshold, and a few odd images can neither cause nor hide it.
USUAL_SHARE = 0.5

#: Between a quarter and a half of the images it is still worth a note: some images, not the rule.
SOME_SHARE = 0.25

#: With fewer images than this nothing is called more than a note: with four images even "all of
#: them" is compatible with half of all images (the 95 % Wilson interval of 4/4 starts at 0.51, that
#: of 3/4 at 0.30).
MIN_SUPPORT = 5

#: A class that fills more than this share of the image leaves too little room outside it to tell a
#: scattered map from one that fills the class.
LARGEST_JUDGED_SHARE = 0.8

#: A layer whose maps are empty in more than this share of the images gets a caution: its other
#: numbers then describe a minority.
EMPTY_SHARE = 0.25

#: The value of the map, relative to its maximum, from which a background pixel is "hot".
HOT = 0.5


@dataclass(frozen=True)
class Criterion:
    """One number and the values from which it is a symptom.

    Attributes
    ----------
    symptom : str
        ``"scattered"``, ``"background"`` or ``"boundary"``.
    measure : str
        Column of the rows, or one that :func:`~unetcam.page.readings.prepared` derives.
    title : str
        The number in plain words.
    worse : {"high", "low"}
        The direction in which the number is a symptom.
    threshold, severe : float
        Beyond ``threshold`` an image shows the symptom; beyond ``severe`` it shows it strongly.
    uniform : float or None
        What a uniform map would give; ``None`` where that depends on the size of the class.
    reason : str
        Why the thresholds stand where they do.
    percent : bool
        Whether the number is a share, to be written in percent.

    Examples
    --------
    >>> CRITERIA["background"][0].beyond(0.4), CRITERIA["boundary"][0].beyond(0.4)
    (True, True)
    """

    symptom: Symptom
    measure: str
    title: str
    worse: Literal["high", "low"]
    threshold: float
    severe: float
    uniform: float | None
    reason: str
    percent: bool

    def beyond(self, value: float, *, severe: bool = False) -> bool:
        """Whether ``value`` is on the bad side of the (severe) threshold; NaN never is."""
        limit = self.severe if severe else self.threshold
        return bool(value >= limit) if self.worse == "high" else bool(value < limit)


SPREAD = Criterion(
    symptom="scattered",
    measure="spread",
    title="spread beyond the class",
    worse="high",
    threshold=0.5,
    severe=0.75,
    uniform=1.0,
    reason=(
        "The map's effective area is placed on a scale from 0 (no wider than the class itself) to "
        "100 % (even over the whole image, a uniform map). From 50 % on, the map is nearer to "
        "saying nothing than to fitting the class. Because the scale starts at the class's own "
        "size, a large class is not blamed for a large map. A class that fills more than 80 % of "
        "an image is not judged there."
    ),
    percent=True,
)

FAR_OUTSIDE = Criterion(
    symptom="background",
    measure="outside_far_share",
    title="share of the map away from the class",
    worse="high",
    threshold=0.25,
    severe=0.5,
    uniform=None,
    reason=(
        "Only what lies outside the class and also beyond the band around its edge is counted, so "
        "that the halo that every coarse layer has does not count as a mistake. From 25 % on, one "
        "part in four of the evidence stands on pixels that have nothing to do with the class; "
        "from 50 % on, most of it. A uniform map gives the share of the image that is neither the "
        "class nor its band."
    ),
    percent=True,
)

WEAK_EDGE = Criterion(
    symptom="boundary",
    measure="edge_ratio",
    title="strength along the edge, relative to the interior",
    worse="low",
    threshold=0.5,
    severe=0.25,
    uniform=1.0,
    reason=(
        "The mean of the map in the band just inside the class's edge, divided by its mean in the "
        "interior. A uniform map gives 1. Below 0.5 the edge carries less than half of what the "
        "interior carries, below 0.25 less than a quarter. Asked only where the class holds at "
        "least the share of the map that a uniform map would put there: elsewhere the map has "
        "missed the class altogether, which the other symptoms tell."
    ),
    percent=False,
)

AVOIDED_EDGE = Criterion(
    symptom="boundary",
    measure="thin_band_ratio",
    title="share of the map on the edge band, relative to the band's area",
    worse="low",
    threshold=1.0,
    severe=0.5,
    uniform=1.0,
    reason=(
        "Asked in place of the number above where a class has no interior because it is too thin, "
        "and fills less than half of the image. The band on both sides of the edge holds this many "
        "times the share of the map that a uniform map would put there; a map that fills the class "
        "evenly gives about 0.5 divided by the class's share of the image, so more than 1. Below 1 "
        "the map avoids the edge: evenly spread ink would cover it better."
    ),
    percent=False,
)

#: Which numbers are asked for a symptom, in this order; the first that raises it is reported.
CRITERIA: dict[Symptom, tuple[Criterion, ...]] = {
    "scattered": (SPREAD,),
    "background": (FAR_OUTSIDE,),
    "boundary": (WEAK_EDGE, AVOIDED_EDGE),
}

NAMES: dict[Symptom, str] = {
    "scattered": "Map scattered over the image",
    "background": "Activation on the background",
    "boundary": "Weak activation on the boundary",
}

QUESTIONS: dict[Symptom, str] = {
    "scattered": "Is the map gathered?",
    "background": "Does it stay near the class?",
    "boundary": "Does it reach the edge?",
}

#: What each number means when it is beyond its threshold, by the number; {name} is the class.
DIAGNOSES: dict[str, str] = {
    "spread": (
        "The map lies over the whole image instead of gathering on {name}: at this layer the "
        "evidence does not single the class out."
    ),
    "outside_far_share": (
        "A good part of what speaks for {name} lies on pixels that are neither {name} nor next to "
        "it."
    ),
    "edge_ratio": (
        "The map is strong in the middle of {name} and fades before it reaches the edge, where the "
        "outline is decided."
    ),
    "thin_band_ratio": "The map keeps away from the edge of {name}.",
}

#: What it means beyond the severe threshold, where that is another thing to say.
STRONG_DIAGNOSES: dict[str, str] = {
    "outside_far_share": (
        "Most of what speaks for {name} lies on pixels that are neither {name} nor next to it."
    ),
}

ADVICE: dict[Symptom, tuple[str, ...]] = {
    "scattered": (
        "Explain the same images with HiResCAM or LayerCAM. Grad-CAM averages each channel's "
        "gradient over the whole image; if the others give a gathered map, the spread comes from "
        "the method and not from the model.",
        "Explain the score over the predicted region instead of over the whole image: a mean over "
        "all pixels collects evidence from everywhere.",
        "Look at the class's IoU. A scattered map and a low IoU together usually mean that the "
        "class is not learned yet: more examples of it, a loss that weighs it higher, longer "
        "training.",
    ),
    "background": (
        "Explain the same images with HiResCAM or LayerCAM. Grad-CAM weighs a channel by its mean "
        "gradient over the whole image, which can put a map on the wrong place; if the others put "
        "it on the class, suspect the method before the model.",
        "Open the images listed here and see what lies under the hot spots: a marker, the edge of "
        "a scan, a shadow, a look-alike, or an object that nobody labelled.",
        "Paint over or crop away that spot and predict again. If the prediction changes, the model "
        "leans on it; if not, the map shows something that does not matter.",
        "If it matters: add training images that have the look-alike without the class, and "
        "augment so that position and surroundings no longer give the class away.",
    ),
    "boundary": (
        "Look at the predicted outline in the pictures. If it follows the true one, a weak map "
        "along the edge is no fault: the model may decide the edge in a finer layer.",
        "If the outline is off: train with a loss that looks at the edge (a boundary or surface "
        "loss beside Dice), or give the pixels near the edge more weight.",
        "Check the labels along the edge, and try a larger input size: where annotators disagree "
        "by a few pixels, a model learns to be unsure there.",
    ),
}
