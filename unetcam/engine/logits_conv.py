"""The convolution that makes the logits, and what a backward may leave out there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from unetcam.engine.conv_backward import Plan
from unetcam.engine.score_gradients import GradOutputs, ScoreGradients


class Head:
    """The last convolution of a forward, as far as it is known.

    Parameters
    ----------
    plan : Plan, optional
        Its plan; None where something else makes the logits, and every backward is whole.
    """

    def __init__(self, plan: Plan | None) -> None:
        self._plan = plan

    @property
    def is_known(self) -> bool:
        """Whether a backward reads no more of a gradient than the channels it is restricted to."""
        return self._plan is not None

    def restrict(self, channels: slice) -> None:
        """The next backward touches these channels of the logits only."""
        if self._plan is not None:
            self._plan.classes = channels

    @property
    def mixing(self) -> Tensor | None:
        """How a head that works on each pixel alone mixes its K inputs: (C, K), else None."""
        plan = self._plan
        if plan is None or set(plan.weight.shape[2:]) != {1} or set(plan.padding) != {0}:
            return None
        whole = (
            len(plan.branches) == 1
            and plan.branches[0].factor is None
            and plan.branches[0].shape[1] == plan.weight.shape[1]
        )
        return plan.weight.flatten(1) if whole and set(plan.stride) == {1} else None

    @contextmanager
    def laid_open(self) -> Iterator[None]:
        """Inside, the logits' first K channels are the head's inputs, going backward."""
        plan = self._plan
        assert plan is not None
        kept = plan.weight
        outputs, inputs = kept.shape[:2]
        unmixed = torch.eye(outputs, inputs, dtype=kept.dtype, device=kept.device)
        plan.change(unmixed.view(kept.shape))
        try:
            yield
        finally:
            plan.change(kept)


class UnitGradients:
    """The mean of each of a laid open head's K inputs over all pixels, as targets."""

    def __init__(self, scores: ScoreGradients, inputs: int) -> None:
        self._scores, self._inputs = scores, inputs

    def __len__(self) -> int:
        return self._inputs

    def of(self, targets: Sequence[int], *, outside_matters: bool = True) -> GradOutputs:
        """The gradients of some of them by their numbers."""
        return self._scores.of_means(targets)


def statistics_by_span(
    head: Head, scores: ScoreGradients, go_back: Callable[[UnitGradients], dict[str, Tensor]]
) -> dict[str, Tensor] | None:
    """The gradients' spatial means of many classes from few backwards, else None.

    The gradients of means over all pixels, behind a head that mixes K channels in each pixel,
    span no more than K directions: with more classes than that, K backwards give them all.

    Parameters
    ----------
    head : Head
    scores : ScoreGradients
    go_back : callable
        Gives the statistics of scores, (B, K, ...) by layer.

    Returns
    -------
    dict of str to Tensor, or None
        By layer, (B, T, ...).
    """
    mixing, channels = head.mixing, scores.means_of
    if mixing is None or channels is None or len(set(channels)) <= mixing.shape[1]:
        return None
    with head.laid_open():
        by_input = go_back(UnitGradients(scores, mixing.shape[1]))
    share = mixing[torch.tensor(channels, device=mixing.device)]
    return {name: share.to(rows.dtype) @ rows for name, rows in by_input.items()}
