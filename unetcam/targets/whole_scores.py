"""Scores of an image that is seen tile by tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unetcam.engine.request import Score, Scoring
from unetcam.engine.score_gradients import scored_leaf

if TYPE_CHECKING:
    from unetcam.data.tiles import Window


@dataclass(frozen=True, eq=False)
class WholeScore:
    """A score of a whole image, as its tiles see it: by its gradient at the logits, held small.

    Attributes
    ----------
    values : Tensor
        (C', *spatial), for one channel or all; bool where there is one value beside zero.
    scale : Tensor, optional
        That one value.
    channel : int, optional
        The one channel that the score depends on.
    """

    values: Tensor
    scale: Tensor | None
    channel: int | None

    @classmethod
    def of(cls, gradient: Tensor, channel: int | None) -> WholeScore:
        """Hold a gradient (C, *spatial); that of a region's mean is one value in the region.

        Examples
        --------
        >>> score = WholeScore.of(torch.tensor([[0.0, 0.5, 0.5], [0.0, 0.0, 0.0]]), channel=0)
        >>> score.values, score.scale
        (tensor([[False,  True,  True]]), tensor(0.5000))
        """
        values = gradient if channel is None else gradient[channel : channel + 1]
        high = values.amax()
        scale = torch.where(high > 0, high, values.amin())
        inside = values != 0
        if bool(((values == scale) | ~inside).all()):
            return cls(inside, scale, channel)
        return cls(values.clone(), None, channel)

    def at(self, window: Window) -> Tensor:
        """The gradient inside a window, (C', *tile)."""
        part = self.values[(slice(None), *window)]
        return part if self.scale is None else part * self.scale

    def score(self, logits: Tensor, parts: Tensor) -> Score:
        """The score of tiles' logits (b, C, *tile) whose gradient is `parts`, (b, C', *tile)."""
        seen = logits if self.channel is None else logits[:, self.channel : self.channel + 1]
        present = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
        return Score((seen * parts).flatten(1).sum(dim=1), present, self.channel)


def whole_scores(logits: Tensor, scoring: Scoring) -> tuple[list[WholeScore], Sequence[Score]]:
    """Each target's score of a whole image, as its tiles see it and as it is.

    Parameters
    ----------
    logits : Tensor
        (1, C, *spatial).
    scoring : callable
    """
    scored = scored_leaf(scoring, logits)
    held = [
        WholeScore.of(gradient[0], score.channel)
        for score, gradient in zip(scored.scores, scored.gradients(), strict=True)
    ]
    return held, scored.scores
