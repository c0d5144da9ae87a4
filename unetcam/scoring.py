"""What targets ask of logits: their scores, and of a large image's these scores' derivative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unetcam.engine.run import Scored, Scoring
from unetcam.targets import Choice, Score, Target, TargetLike, check_targets, chosen

if TYPE_CHECKING:
    from unetcam.data.tiling import Window


def scoring_of(
    targets: TargetLike | Sequence[TargetLike] | Choice | None,
) -> tuple[list[Target], Scoring]:
    """How logits are scored, and the list of targets, which is filled when the first were."""
    explained: list[Target] = []

    def score(logits: Tensor, reference: Tensor | None = None) -> list[Score]:
        explained[:] = chosen(targets, logits if reference is None else reference)
        check_targets(explained, logits)
        held = () if reference is None else (reference,)
        return [target.score(logits, *held) for target in explained]

    return explained, score


@dataclass(frozen=True, eq=False)
class Seed:
    """The derivative of a score with respect to the logits of the whole image, held small.

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
    def of(cls, derivative: Tensor, channel: int | None) -> Seed:
        """Hold a derivative (C, *spatial); that of a region's mean is one value in the region.

        Examples
        --------
        >>> seed = Seed.of(torch.tensor([[0.0, 0.5, 0.5], [0.0, 0.0, 0.0]]), channel=0)
        >>> seed.values, seed.scale
        (tensor([[False,  True,  True]]), tensor(0.5000))
        """
        values = derivative if channel is None else derivative[channel : channel + 1]
        high = values.amax()
        scale = torch.where(high > 0, high, values.amin())
        inside = values != 0
        if bool(((values == scale) | ~inside).all()):
            return cls(inside, scale, channel)
        return cls(values.clone(), None, channel)

    def at(self, window: Window) -> Tensor:
        """The derivative inside a window, (C', *tile)."""
        part = self.values[(slice(None), *window)]
        return part if self.scale is None else part * self.scale

    def score(self, logits: Tensor, parts: Tensor) -> Score:
        """The score of tiles' logits (b, C, *tile) whose derivative is `parts`, (b, C', *tile)."""
        seen = logits if self.channel is None else logits[:, self.channel : self.channel + 1]
        present = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
        return Score((seen * parts).flatten(1).sum(dim=1), present, self.channel)


def seeds_of(logits: Tensor, score: Scoring) -> tuple[list[Seed], Tensor]:
    """Each target's seed, and whether the target exists, (1, T).

    Parameters
    ----------
    logits : Tensor
        (1, C, *spatial).
    score : callable
    """
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        scores = score(leaf)
        seeds = [_seed(one, leaf) for one in scores]
    return seeds, torch.stack([one.defined for one in scores], dim=1)


def _seed(score: Scored, leaf: Tensor) -> Seed:
    (derivative,) = torch.autograd.grad(
        score.value.sum(), leaf, retain_graph=True, materialize_grads=True
    )
    return Seed.of(derivative[0], score.channel)
