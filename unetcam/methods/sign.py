"""Evidence for a target, against it, or both on one map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Tensor

from unetcam.engine import Collected, Request
from unetcam.engine.request import Score, Scoring
from unetcam.errors import UnetcamError
from unetcam.methods import Method

Sign = Literal["positive", "negative", "signed"]


def check_sign(sign: str, method: Method) -> None:
    """Raise :class:`~unetcam.errors.UnetcamError` for no sign, or one the method has no maps of."""
    if sign not in get_args(Sign):
        raise UnetcamError(f"sign='{sign}' is none: use {', '.join(get_args(Sign))}.")
    if sign != "positive" and not method.asks_why:
        raise UnetcamError(
            f"The method '{method.name}' does not ask what speaks for a target, so that nothing "
            "speaks against it: use sign='positive', or another method."
        )


@dataclass(frozen=True)
class Signed:
    """A method whose maps show evidence of one sign, or of both."""

    method: Method
    sign: Sign

    def explain(self, request: Request) -> Collected:
        """The raw maps of all layers and targets of a request."""
        scored = replace(request, score=signed_scoring(request.score, self.sign))
        return signed_maps(self.method.explain(scored), self.sign)


def signed_scoring(score: Scoring, sign: Sign) -> Scoring:
    """The scores that a method is given: as they are, negated, or both one after the other."""
    if sign == "positive":
        return score

    def scored(logits: Tensor, reference: Tensor | None = None) -> Sequence[Score]:
        scores = list(score(logits, reference))
        against = [one.negated() for one in scores]
        return against if sign == "negative" else [*scores, *against]

    return scored


def signed_maps(collected: Collected, sign: Sign) -> Collected:
    """What was collected for such scores; signed maps are evidence for less that against."""
    if sign != "signed":
        return collected
    count = collected.defined.shape[1] // 2
    maps = {name: one[:, :count] - one[:, count:] for name, one in collected.maps.items()}
    emptied = {name: one[:, :count] & one[:, count:] for name, one in collected.emptied.items()}
    return replace(
        collected,
        maps=maps,
        defined=collected.defined[:, :count],
        targets=collected.targets[:count],
        emptied=emptied,
    )
