"""Whether effects on some images are a finding: large enough, and above their controls."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unetcam.interventions.effects import bootstrap_interval


@dataclass(frozen=True)
class Verdict:
    """What a test came to.

    Attributes
    ----------
    effect, control : float
        Means over images.
    interval : tuple of float
        The effect's 95 % interval.
    smallest : float
        The effect from which on so many images would have made a finding.
    confirmed : bool
    tested : int
        Images with an effect that could be measured.
    """

    effect: float
    control: float
    interval: tuple[float, float]
    smallest: float
    confirmed: bool
    tested: int


def judge(effects: Tensor, controls: Tensor, limit: float, margin: float, seed: int = 0) -> Verdict:
    """Whether effects are a finding: large enough, and above their controls for certain.

    Parameters
    ----------
    effects, controls : Tensor
        (n,) one per image; NaN where not measured. A control that could not be measured in an
        image is taken to be the mean of the others', and 0 without any.
    limit : float
        The least mean effect.
    margin : float
        By how much the lower end of the 95 % interval of effect less control must exceed zero.
    seed : int

    Returns
    -------
    Verdict

    Examples
    --------
    >>> import torch
    >>> effects, controls = torch.tensor([0.5, 0.6, 0.4]), torch.tensor([0.0, 0.1, 0.0])
    >>> verdict = judge(effects, controls, limit=0.2, margin=0.05)
    >>> verdict.confirmed, round(verdict.effect, 2)
    (True, 0.5)
    """
    kept = ~torch.isnan(effects)
    values, against = effects[kept].double(), controls[kept].double()
    count = len(values)
    if not count:
        return Verdict(math.nan, math.nan, (math.nan, math.nan), math.nan, False, 0)
    measured = against[~torch.isnan(against)]
    control = float(measured.mean()) if len(measured) else math.nan
    usual = control if len(measured) else 0.0
    difference = values - torch.nan_to_num(against, nan=usual)
    low, _ = bootstrap_interval(difference, seed)
    effect = float(values.mean())
    spread = float(difference.std(correction=1)) if count > 1 else 0.0
    least = usual + margin + 1.96 * spread / math.sqrt(count)
    return Verdict(
        effect,
        control,
        bootstrap_interval(values, seed),
        max(limit, least),
        effect >= limit and low >= margin,
        count,
    )


def unconfirmed(verdict: Verdict, limit: float) -> str:
    """Why a verdict is no finding, in one sentence."""
    if not verdict.tested:
        return "The suspicion could not be tested on any image."
    if verdict.effect < limit:
        return (
            f"The effect of {verdict.effect:.2g} on {verdict.tested} images is below "
            f"{limit:.2g}, from which on it is called a finding."
        )
    return (
        f"The effect of {verdict.effect:.2g} on {verdict.tested} images is not above its control "
        f"of {verdict.control:.2g} for certain."
    )
