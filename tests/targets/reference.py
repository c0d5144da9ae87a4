"""What targets should be, worked out image by image with NumPy and SciPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.special import expit, log_expit, log_softmax, softmax
from torch import Tensor

from unetcam.targets import Target

SIZES = {2: (9, 11), 3: (4, 6, 5)}


@dataclass(frozen=True)
class Case:
    """A batch of logits and truths of which every class, error and ignored pixel occurs."""

    logits: Tensor
    truth: Tensor

    @property
    def classes(self) -> int:
        return max(2, self.logits.shape[1])

    @property
    def batch(self) -> int:
        return len(self.logits)

    def scores(self, image: int, on: str = "logits", head: str = "softmax") -> np.ndarray:
        z = self.logits[image].double().numpy()
        if len(z) == 1:
            z, head = np.concatenate([-z, z]), "sigmoid"
        made = {
            ("probability", "softmax"): lambda: softmax(z, axis=0),
            ("log_probability", "softmax"): lambda: log_softmax(z, axis=0),
            ("probability", "sigmoid"): lambda: expit(z),
            ("log_probability", "sigmoid"): lambda: log_expit(z),
        }
        return z if on == "logits" else made[on, head]()

    def predicted(self, image: int, c: int) -> np.ndarray:
        return self.scores(image).argmax(0) == c

    def true(self, image: int, c: int) -> np.ndarray:
        return self.truth[image].numpy() == c

    def known(self, image: int) -> np.ndarray:
        return self.truth[image].numpy() >= 0

    def false_positives(self, image: int, c: int) -> np.ndarray:
        return self.predicted(image, c) & ~self.true(image, c) & self.known(image)

    def false_negatives(self, image: int, c: int) -> np.ndarray:
        return self.true(image, c) & ~self.predicted(image, c)


def case(
    dims: int = 2, channels: int = 3, dtype: torch.dtype = torch.float64, seed: int = 0
) -> Case:
    generator = torch.Generator().manual_seed(seed)
    size = SIZES[dims]
    logits = torch.randn(3, channels, *size, generator=generator, dtype=torch.float64).to(dtype)
    truth = torch.randint(-1, max(2, channels), (3, *size), generator=generator)
    return Case(logits, truth)


def components(mask: np.ndarray) -> list[np.ndarray]:
    """In raster order of their first pixels."""
    labels, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    found = [labels == label + 1 for label in range(count)]
    return sorted(found, key=lambda component: np.flatnonzero(component)[0])


def band(inside: np.ndarray, outside: np.ndarray, width: float, side: str = "both") -> np.ndarray:
    def near(these: np.ndarray, those: np.ndarray) -> np.ndarray:
        if not those.any():
            return np.zeros_like(these)
        return these & (ndimage.distance_transform_edt(~those) <= width)

    sides = {"inner": near(inside, outside), "outer": near(outside, inside)}
    return sides["inner"] | sides["outer"] if side == "both" else sides[side]


def seed_of(target: Target, logits: Tensor) -> Tensor:
    """What flows back from a target's scores into the logits."""
    leaf = logits.clone().requires_grad_()
    (seed,) = torch.autograd.grad(target.score(leaf).value.sum(), leaf)
    return seed


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    """Means of a few dozen values of magnitude 1."""
    return (
        {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-13}
    )


def assert_mean_over(
    target: Target, found: Case, regions: list[np.ndarray], values: list[np.ndarray]
) -> None:
    """The score is the mean of the values over each image's region, and undefined without one."""
    score = target.score(found.logits)
    assert score.defined.tolist() == [bool(region.any()) for region in regions]
    assert score.value.dtype == found.logits.dtype
    for image, (region, value) in enumerate(zip(regions, values, strict=True)):
        expected = value[region].mean() if region.any() else 0.0
        torch.testing.assert_close(
            score.value[image].double(),
            torch.tensor(expected, dtype=torch.float64),
            **tolerance(found.logits.dtype),
        )


def seed_over(found: Case, regions: list[np.ndarray], c: int) -> Tensor:
    """The gradient of the mean logit of a class over each image's region, written by hand."""
    seed = torch.zeros_like(found.logits)
    single = found.logits.shape[1] == 1
    for image, region in enumerate(regions):
        if region.any():
            weight = torch.from_numpy(region).to(seed.dtype) / region.sum()
            seed[image, 0 if single else c] = -weight if single and c == 0 else weight
    return seed
