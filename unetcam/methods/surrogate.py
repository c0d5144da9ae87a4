"""Methods that fit a linear model to what happens when superpixels are taken away.

They rest on captum and scikit-learn: ``pip install unetcam[perturb]``.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unetcam.engine import Collected, Observation, Request, observed
from unetcam.errors import UnetcamError
from unetcam.methods.registry import Method, register
from unetcam.resizing import averaged

#: Width of LIME's kernel, on cosine distances of which superpixels are there.
_KERNEL_WIDTH = 0.25


@dataclass(frozen=True)
class _Surrogate(Method):
    """A linear model of the score, with one coefficient for each superpixel.

    The map is the positive part of a superpixel's coefficient, at each of its pixels: how much the
    score rises when the superpixel is there. It belongs to the image; at a layer it is the mean
    over what a pixel of the layer covers. Superpixels are found on the CPU.

    Parameters
    ----------
    samples : int
        Images with superpixels taken away, one forward each, shared by all targets and layers. No
        fewer than superpixels, or the fit has no single solution.
    superpixels : int
        About how many superpixels (SLIC) the image is divided into.
    seed : int
        Seeds which superpixels are taken away.
    """

    samples: int = 256
    superpixels: int = 48
    seed: int = 0

    family = "perturbation"
    needs = ("captum", "sklearn")
    extra = "perturb"

    def __post_init__(self) -> None:
        if self.samples < 3 or self.superpixels < 1:
            raise ValueError("samples must be at least 3 and superpixels at least 1.")

    @abstractmethod
    def _attribution(self, forward: Callable[[Tensor], Tensor]) -> Any:
        """captum's attribution of a function from images (n, C, *spatial) to scores (n, T)."""

    def explain(self, request: Request) -> Collected:
        with observed(request) as seen:
            maps = torch.stack([self._map(seen, at) for at in range(len(seen.images))])
            return seen.collected(
                {name: averaged(maps, one.shape[2:]) for name, one in seen.activations.items()}
            )

    def _map(self, seen: Observation, position: int) -> Tensor:
        """(T, *spatial)."""
        image = seen.images[position]
        segments = superpixels(image, self.superpixels)
        if int(segments.max()) == 0:
            raise UnetcamError(
                f"{self.title} found a single superpixel in image {position}, and nothing to "
                "compare: ask for more superpixels, or give an image that is not of one value."
            )
        answers: list[Tensor] = []
        coefficients = []
        usual = torch.get_default_dtype()
        for target in range(seen.values.shape[1]):
            # The same seed draws the same images for each target: they run for the first alone.
            again = iter(list(answers))

            def forward(images: Tensor, again: Any = again) -> Tensor:
                known = next(again, None)
                if known is None:
                    with _defaults(usual):
                        answers.append(known := seen.responses_of(position, images))
                return known

            torch.manual_seed(self.seed)
            with warnings.catch_warnings(), _defaults(torch.float32), image.device:
                warnings.simplefilter("ignore")  # captum's, on its own future interfaces
                coefficients.append(
                    self._attribution(forward).attribute(
                        image[None],
                        target=target,
                        feature_mask=segments.expand(1, *image.shape),
                        n_samples=self.samples,
                        perturbations_per_eval=min(self.samples, seen.rows()),
                        return_input_shape=False,
                    )[0]
                )
        stacked = torch.stack(coefficients).to(seen.values)  # (T, superpixels)
        return stacked[:, segments].relu_()


@register
@dataclass(frozen=True)
class LIME(_Surrogate):
    """Fits a linear model to the scores of images that each lack half of the superpixels.

    An image counts the more, the more of the superpixels it has: as in the authors' code for
    images, by an exponential kernel of width 0.25 on the cosine distance. Least squares without
    a penalty: a penalty has a scale, and the mean of logits over an image has none to match.
    """

    name = "lime"
    title = "LIME"
    formula = "relu(w_j) on superpixel j,  w fitted to s(f(x without some superpixels)), near x"
    paper = "Ribeiro, Singh and Guestrin, Why Should I Trust You?, KDD 2016"
    when = "Whole pieces of the image instead of pixels, for people who don't read heat maps."

    def _attribution(self, forward: Callable[[Tensor], Tensor]) -> Any:
        from captum._utils.models.linear_model import SkLearnLinearRegression
        from captum.attr import Lime

        return Lime(forward, SkLearnLinearRegression(), similarity_func=_nearness)


@register
@dataclass(frozen=True)
class KernelSHAP(_Surrogate):
    """Fits the linear model whose coefficients are the superpixels' Shapley values.

    With as many samples as there are subsets the fit is exact; with fewer it estimates. The
    coefficients sum to what the whole image adds to the score of an empty one.
    """

    name = "kernelshap"
    title = "Kernel SHAP"
    formula = "relu(phi_j) on superpixel j,  phi the Shapley values of s(f(x without superpixels))"
    paper = "Lundberg and Lee, A Unified Approach to Interpreting Model Predictions, NeurIPS 2017"
    when = "Contributions of pieces of the image that add up to the score."

    def _attribution(self, forward: Callable[[Tensor], Tensor]) -> Any:
        from captum.attr import KernelShap

        return KernelShap(forward)


def superpixels(image: Tensor, count: int) -> Tensor:
    """Divide an image into about `count` superpixels by SLIC.

    Parameters
    ----------
    image : Tensor
        (C, *spatial), of any range.
    count : int

    Returns
    -------
    Tensor
        (*spatial) int64, numbered from zero, on the image's device.

    Examples
    --------
    >>> superpixels(torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]), 2)
    tensor([[0, 0, 1, 1]])
    """
    from skimage.segmentation import slic

    pixels = image.float()
    low, high = pixels.amin(), pixels.amax()
    pixels = (pixels - low) / torch.where(high > low, high - low, torch.ones_like(high))
    channels_last = np.ascontiguousarray(pixels.movedim(0, -1).cpu().numpy())
    segments = slic(
        channels_last, n_segments=count, start_label=0, convert2lab=False, channel_axis=-1
    )
    _, numbered = np.unique(segments, return_inverse=True)
    return torch.from_numpy(numbered.reshape(segments.shape)).long().to(image.device)


@contextmanager
def _defaults(dtype: torch.dtype) -> Iterator[None]:
    """Inside, tensors without a type of their own are of this one; what is drawn depends on it."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


def _nearness(original: Tensor, perturbed: Tensor, present: Tensor, **_: Any) -> Tensor:
    distance = 1 - present.float().mean().sqrt()  # the cosine distance from all present
    return torch.exp(-(distance**2) / _KERNEL_WIDTH**2)
