r"""Methods that change something and watch the score; no gradient is taken.

Throughout, :math:`A^k` is channel k of the layer's activation, :math:`s` the target's score, and
:math:`f` the network. The region of a score stays that of the unchanged image. What is taken away
becomes zero: after the usual normalisation, the mean of the training images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unetcam.engine import Collected, Observation, Request, observed
from unetcam.engine.memory import chunked
from unetcam.methods.gradient import weighted
from unetcam.methods.registry import Method, register
from unetcam.resizing import averaged, interpolated


@register
class ScoreCAM(Method):
    """Weighs each channel by the score of the image seen through it.

    The channel, enlarged to the image and scaled to [0, 1] by its exact extremes, is a mask. The
    weights are a softmax over the channels. The score of a baseline image, which the paper takes
    off first, is the same for all channels, and a softmax doesn't see it. A channel of one value
    lets nothing through.

    The softmax makes the weights depend on the score's scale: with mean logits they are nearly
    alike where the channels' scores differ by much less than one.
    """

    name = "scorecam"
    title = "Score-CAM"
    family = "perturbation"
    formula = "relu(sum_k w^k A^k),  w = softmax_k s(f(x * scaled(A^k)))"
    paper = "Wang et al., Score-CAM, CVPR Workshops 2020"
    when = (
        "A check of Grad-CAM that trusts no gradient; one forward for each channel of each layer."
    )

    def explain(self, request: Request) -> Collected:
        with observed(request) as seen:
            return seen.collected(
                {name: self._maps(seen, one) for name, one in seen.activations.items()}
            )

    def _maps(self, seen: Observation, activation: Tensor) -> Tensor:
        size = seen.images.shape[2:]

        def masked(channels: Tensor) -> Tensor:
            masks = interpolated(activation[:, channels], size).transpose(0, 1)  # (n, B, *spatial)
            low, high = masks.flatten(2).amin(dim=2), masks.flatten(2).amax(dim=2)
            low, span = (one.view(*one.shape, *[1] * len(size)) for one in (low, high - low))
            masks = (masks - low) / torch.where(span > 0, span, torch.ones_like(span))
            return seen.images * masks.unsqueeze(2)

        channels = torch.arange(activation.shape[1], device=activation.device)
        scores = seen.responses(channels, masked)  # (K, B, T)
        return weighted(activation, scores.softmax(dim=0).permute(1, 2, 0)).relu_()


@register
class AblationCAM(Method):
    """Weighs each channel by how much the score falls when the channel is set to zero.

    Only what is behind the layer runs again, with the channels side by side in a batch.

    The paper divides the fall by the score, to have its share. A share is a matter of scale where
    the score is positive; where it is negative, as the mean logit of a rare class is, the division
    would turn evidence for the class into evidence against it. So the fall itself is the weight.
    It is a small difference of two scores: in half precision few of its digits are left.

    Examples
    --------
    >>> import torch
    >>> from unetcam import UNetCAM
    >>> model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Conv2d(2, 1, 1, bias=False))
    >>> _ = torch.nn.init.constant_(model[1].weight, 3.0)
    >>> images = torch.tensor([[[[1.0, 3.0]], [[0.0, 2.0]]]])
    >>> result = UNetCAM(model, ["0"], "ablationcam")(images)
    >>> result["0"][0, 1]  # class 1: falls of 3 * 2 and 3 * 1, times the activation
    tensor([[ 6., 24.]])
    """

    name = "ablationcam"
    title = "Ablation-CAM"
    family = "perturbation"
    formula = "relu(sum_k w^k A^k),  w^k = s - s with A^k = 0"
    paper = "Desai and Ramaswamy, Ablation-CAM, WACV 2020, without its division by the score"
    when = "What a channel is really worth, where gradients saturate; a pass for each channel."

    def explain(self, request: Request) -> Collected:
        with observed(request) as seen:
            return seen.collected(
                {name: self._maps(seen, name, one) for name, one in seen.activations.items()}
            )

    def _maps(self, seen: Observation, name: str, activation: Tensor) -> Tensor:
        channels = torch.arange(activation.shape[1], device=activation.device)

        def ablated(given: Tensor, chunk: Tensor) -> Tensor:
            kept = chunk[:, None] != channels  # (n, K)
            return given * kept.view(len(chunk), 1, -1, *[1] * (given.ndim - 2))

        falls = seen.values - seen.replays(name, channels, ablated)  # (K, B, T)
        return weighted(activation, falls.permute(1, 2, 0).to(activation.dtype)).relu_()


@register
@dataclass(frozen=True)
class RISE(Method):
    r"""Averages random masks, each as much as the score of the image seen through it.

    The map is :math:`E[s \mid \text{pixel visible}] - E[s]` over the masks that were drawn: by
    how much the score is higher where the pixel is seen. The paper shows the first term alone, of
    a probability; a logit has no zero, and without its mean the map would tell how often a pixel
    was seen. The expectation is taken over the masks as drawn and not over what they should come
    to (:math:`1 / (N p)` in the paper).

    The map belongs to the image. At a layer it is the mean over what a pixel of the layer covers.

    Parameters
    ----------
    samples : int
        Masks, one forward each, shared by all targets and layers. The paper takes 4000 and more.
    cells : int
        A mask is drawn on a grid of so many cells a side, then enlarged bilinearly and shifted.
    visible : float
        Probability of a cell to be visible.
    seed : int
        Seeds the masks, which are the same for all images of a batch.
    """

    samples: int = 512
    cells: int = 7
    visible: float = 0.5
    seed: int = 0

    name = "rise"
    title = "RISE"
    family = "perturbation"
    formula = "relu(sum_i s_i M_i / sum_i M_i - mean_i s_i),  s_i = s(f(x * M_i)), M_i random masks"
    paper = "Petsiuk et al., RISE, BMVC 2018"
    when = "A check that needs no layer and no gradient; finds what matters anywhere in the image."

    def __post_init__(self) -> None:
        if self.samples < 1 or self.cells < 1:
            raise ValueError("samples and cells must be at least 1.")
        if not 0 < self.visible < 1:
            raise ValueError(f"visible={self.visible!r} must lie between 0 and 1.")

    def explain(self, request: Request) -> Collected:
        with observed(request) as seen:
            size = seen.images.shape[2:]
            grids, offsets = self._drawn(seen.images)
            total = seen.values.new_zeros(*seen.values.shape, *size)
            coverage = seen.values.new_zeros(size)

            def masked(chunk: Tensor) -> Tensor:
                masks = self._masks(grids[chunk], offsets[chunk], size)
                return seen.images * masks[:, None, None]

            indices = torch.arange(self.samples, device=seen.images.device)
            scores = seen.responses(indices, masked)  # (N, B, T)
            mean = scores.mean(dim=0)

            def add(chunk: Tensor) -> None:
                masks = self._masks(grids[chunk], offsets[chunk], size).to(total)
                weighed = torch.einsum("nbt,n...->bt...", scores[chunk] - mean, masks)
                seen_in_all = masks.sum(dim=0)
                total.add_(weighed)  # behind what may run out of memory, and then be done again
                coverage.add_(seen_in_all)

            chunked(add, indices, 4 * coverage.numel() * coverage.element_size(), seen.memory)
            maps = torch.where(coverage > 0, total / coverage, 0).relu_()
            return seen.collected(
                {name: averaged(maps, one.shape[2:]) for name, one in seen.activations.items()}
            )

    def _drawn(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The grids (N, *cells + 1) and their offsets (N, dims), in cells from 0 to 1."""
        generator = torch.Generator(images.device).manual_seed(self.seed)
        dims = images.ndim - 2
        kind: dict[str, Any] = {"device": images.device, "dtype": torch.float32}
        drawn = torch.rand(self.samples, *[self.cells + 1] * dims, generator=generator, **kind)
        offsets = torch.rand(self.samples, dims, generator=generator, **kind)
        return (drawn < self.visible).float(), offsets

    def _masks(self, grids: Tensor, offsets: Tensor, size: torch.Size) -> Tensor:
        """Masks (n, *size): the grids enlarged, with a border of up to one cell cut off."""
        axes = [
            (torch.arange(side, device=grids.device).float() + 0.5) * self.cells / side
            for side in size
        ]
        mesh = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)  # in cells
        positions = mesh + offsets.view(len(offsets), *[1] * len(size), -1)
        # grid_sample counts from -1 to 1, and its last coordinate is the first axis.
        scaled = (2 * positions / (self.cells + 1) - 1).flip(-1)
        return F.grid_sample(
            grids[:, None], scaled, padding_mode="border", align_corners=False
        ).squeeze(1)
