"""Any method, averaged over noisy copies of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from unetcam.engine import Collected, Request, observed
from unetcam.engine.request import Score
from unetcam.methods.registry import Family, Method, Wrapper, register_wrapper


@register_wrapper
@dataclass(frozen=True)
class Smooth(Wrapper):
    """Averages another method's raw maps over copies of the image with Gaussian noise.

    Regions that depend on the prediction are those of the image without noise, and so are the
    logits of the result. All images of a batch get the same noise, each in proportion to its own
    range, so that an image's map does not depend on its batch.

    Parameters
    ----------
    method : Method
        What is averaged.
    samples : int
        The number of noisy copies, one run of the method each. The paper takes 50.
    noise : float
        Standard deviation of the noise, as a share of the image's range (largest value less
        smallest).
    seed : int
        Seeds the noise.

    Examples
    --------
    >>> from unetcam.methods import get
    >>> Smooth(get("hirescam"), samples=4).name
    'smooth-hirescam'
    """

    method: Method
    samples: int = 16
    noise: float = 0.15
    seed: int = 0
    name: str = field(init=False)
    title: str = field(init=False, default="SmoothGrad of another method")
    family: Family = field(init=False, default="gradient")

    prefix = "smooth-"
    formula = (
        "mean of the method's maps of x + n_i,  n_i of a standard deviation of 15 % of x's range"
    )
    paper = "Smilkov et al., SmoothGrad, ICML Workshop 2017; Omeiza et al., Smooth Grad-CAM++, 2019"
    when = "Maps that flicker with the slightest change of the image; costs a run per noisy copy."

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples={self.samples!r} must be at least 1.")
        if self.noise < 0:
            raise ValueError(f"noise={self.noise!r} must not be negative.")
        object.__setattr__(self, "name", self.prefix + self.method.name)
        object.__setattr__(self, "title", f"{self.method.title}, smoothed")
        object.__setattr__(self, "family", self.method.family)
        object.__setattr__(self, "asks_why", self.method.asks_why)

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "method": self.method.settings}

    def check(self) -> None:
        self.method.check()

    def suitable(self, layers: tuple[str, ...]) -> tuple[str, ...]:
        return self.method.suitable(layers)

    def explain(self, request: Request) -> Collected:
        with observed(replace(request, layers={})) as plain:
            images, clean = plain.images, plain.logits

            def held(logits: Tensor, reference: Tensor | None = None) -> Sequence[Score]:
                return request.score(logits, clean)

            range_ = images.flatten(1).amax(dim=1) - images.flatten(1).amin(dim=1)
            deviation = self.noise * range_.view(-1, *[1] * (images.ndim - 1))
            generator = torch.Generator(images.device).manual_seed(self.seed)
            sums: dict[str, Tensor] = {}
            for _ in range(self.samples):
                noise = torch.randn(
                    images.shape[1:], generator=generator, device=images.device, dtype=images.dtype
                )
                noisy = replace(request, images=images + deviation * noise, score=held)
                for name, maps in self.method.explain(noisy).maps.items():
                    sums[name] = sums[name] + maps if name in sums else maps
        return plain.collected({name: total / self.samples for name, total in sums.items()})
