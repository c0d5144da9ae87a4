"""Why one class and not another: differences of two classes' scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from unetcam.errors import TargetError
from unetcam.targets.base import RegionScore, as_mask, both
from unetcam.targets.channels import all_scores, class_count
from unetcam.targets.truth import check_values

_RUNNER_UP = "runner_up"


@dataclass(frozen=True, eq=False)
class Contrast(RegionScore):
    """The mean of a class's score less that of another: what speaks for the one and not the other.

    Over all pixels, and over any region with ``within=``: the pixels of a mask, or of another
    target, as in ``Contrast(2, truth, within=FalsePositives(2, truth))``: why class 2 was made up
    in place of what is there.

    Against the truth, pixels that truly are of the class, or are ignored, have nothing to
    contrast and are left out. An image in which no pixel is left has no map: NaN.

    Parameters
    ----------
    class_index : int
    against : int, "runner_up" or array_like
        Another class; the strongest of the other classes at each pixel; or a class for each pixel
        as a ground truth gives it, (*spatial) or (B, *spatial), -1 where it is ignored.
    on, head, within
        See :class:`RegionScore`. On logits and log-probabilities of a softmax head the contrast
        is the same: the logarithm of the ratio of the probabilities.

    Raises
    ------
    TargetError
        For a class against itself.

    Examples
    --------
    >>> logits = torch.tensor([[[[1.0, 3.0]], [[0.0, 8.0]], [[4.0, 5.0]]]])
    >>> Contrast(1, against=0).score(logits).value  # (0 - 1 + 8 - 3) / 2
    tensor([2.])
    >>> Contrast(1).score(logits).value  # (0 - 4 + 8 - 5) / 2
    tensor([-0.5000])
    >>> Contrast(1, against=[[2, 1]]).score(logits).value  # 0 - 4
    tensor([-4.])
    """

    against: int | Literal["runner_up"] | Tensor | ArrayLike = _RUNNER_UP

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.against
        if isinstance(given, str) and given != _RUNNER_UP:
            raise TargetError(
                f"against='{given}' is nothing to contrast with: give a class, 'runner_up', or "
                "the ground truth as an array of classes."
            )
        if isinstance(given, (int, np.integer)):
            if given == self.class_index:
                raise TargetError(
                    f"Class {given} can't be contrasted with itself: give another class as "
                    "against=."
                )
        elif not isinstance(given, str):
            self._set("against", as_mask(cast(ArrayLike, given)))

    @property
    def title(self) -> str:
        if isinstance(self.against, Tensor):
            other = "the truth"
        else:
            other = "the runner-up" if self.against == _RUNNER_UP else f"class {self.against}"
        return f"class {self.class_index} against {other}"

    def check(self, logits: Tensor) -> None:
        super().check(logits)
        if isinstance(self.against, Tensor):
            self._check_size(self.against, logits)
            highest = class_count(logits) - 1
            check_values(self.against, highest, self.name, f"classes 0 to {highest}")
        elif self.against != _RUNNER_UP:
            self._check_class(self.against, logits)

    def counted(self, logits: Tensor) -> Tensor | None:
        known = self._truth(logits) >= 0 if isinstance(self.against, Tensor) else None
        return both(known, super().counted(logits))

    def region(self, logits: Tensor) -> Tensor | None:
        if not isinstance(self.against, Tensor):
            return None
        truth = self._truth(logits)
        return (truth >= 0) & (truth != self.class_index)

    def values(self, logits: Tensor) -> Tensor:
        scores = all_scores(logits, self.on, self.reading)
        own = scores[:, self.class_index]
        if isinstance(self.against, Tensor):
            other = self._truth(logits).clamp(min=0).expand_as(own).unsqueeze(1)
        elif self.against == _RUNNER_UP:
            others = scores.detach().clone()
            others[:, self.class_index] = -torch.inf
            other = others.argmax(dim=1, keepdim=True)
        else:
            return own - scores[:, cast(int, self.against)]
        return own - scores.gather(1, other)[:, 0]

    def channel(self, logits: Tensor) -> int | None:
        return None

    def _truth(self, logits: Tensor) -> Tensor:
        return cast(Tensor, self.against).to(logits.device).long()
