"""The region field: the Grad-CAM of any region and class without a backward."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unetcam.engine.memory import chunked, memory_bytes
from unetcam.engine.score_gradients import scored_leaf
from unetcam.errors import DataError, ModelError, TargetError, UnetcamError
from unetcam.models.io import Inputs, check_images, image_of
from unetcam.models.tapped_model import TappedModel
from unetcam.resizing import nearest
from unetcam.targets import Target, check_existing, check_targets

_SCHEMA = 1


@dataclass(frozen=True, eq=False, repr=False)
class RegionField:
    r"""How every logit of one image answers to every channel of one layer.

    For a layer with K channels :math:`A^k` of N pixels each, the field is
    :math:`D^k_c(x) = \partial z_c(x) / \partial \epsilon_k`, the derivative of the logit of class
    c at pixel x with respect to a uniform shift :math:`A^k + \epsilon_k`. The sum of a gradient
    over a channel is the derivative with respect to such a shift, so the weights of Grad-CAM for
    any score s of the logits are

    .. math:: w_k = \frac{1}{N} \sum_{c, x} \frac{\partial s}{\partial z_c(x)} \, D^k_c(x),

    a sum over the region, and the map is one weighted sum of the activation.

    Attributes
    ----------
    activation : Tensor
        (K, *layer_spatial), as the layer gave it.
    logits : Tensor
        (C, *spatial).
    derivative : Tensor
        (K, C, *grid): summed over the pixels of each cell of the grid. The grid is the logits'
        own pixels until :meth:`pool` makes it coarser.
    layer : str
        The layer's name.
    """

    activation: Tensor
    logits: Tensor
    derivative: Tensor
    layer: str

    def __repr__(self) -> str:
        """What there is, in a line; not the numbers."""
        return (
            f"RegionField({self.layer}: {self.channels} channels, {self.logits.shape[0]} logits, "
            f"grid {self.grid})"
        )

    @property
    def channels(self) -> int:
        """K, the layer's channels."""
        return self.activation.shape[0]

    @property
    def grid(self) -> tuple[int, ...]:
        """The grid on which regions may be drawn."""
        return tuple(self.derivative.shape[2:])

    @overload
    def weights(self, targets: Target) -> Tensor: ...
    @overload
    def weights(self, targets: Sequence[Target]) -> Tensor: ...
    def weights(self, targets: Target | Sequence[Target]) -> Tensor:
        """The Grad-CAM weights of a target, (K,), or of several, (T, K).

        Raises
        ------
        TargetError
            For a target that does not fit the logits, or, on a pooled field, whose score does not
            treat the pixels of a cell alike.
        """
        if isinstance(targets, Target):
            return self.weights([targets])[0]
        logits = self.logits[None]
        check_targets(targets, logits)

        def weigh(part: Sequence[Target]) -> tuple[Tensor, Tensor]:
            scored = scored_leaf(lambda leaf, _=None: [one.score(leaf) for one in part], logits)
            gradients = torch.stack([gradient[0] for gradient in scored.gradients()])
            defined = torch.stack([score.defined for score in scored.scores], dim=1)
            return self._weigh(self._on_grid(gradients, part)), defined

        room = memory_bytes(None, logits.device)
        parts = chunked(weigh, targets, 4 * logits.numel() * logits.element_size(), room)
        rows, defined = zip(*parts, strict=True)
        present = torch.cat(defined, dim=1)
        check_existing(targets, present)
        weights = torch.cat(rows)
        return weights.masked_fill(~present[0, :, None], torch.nan)

    @overload
    def map(self, targets: Target) -> Tensor: ...
    @overload
    def map(self, targets: Sequence[Target]) -> Tensor: ...
    def map(self, targets: Target | Sequence[Target]) -> Tensor:
        """The raw Grad-CAM maps, (*layer_spatial) of a target or (T, *layer_spatial) of several.

        The same as ``UNetCAM(model, [layer])(image, targets)``, up to rounding, without a
        backward. NaN where the region does not exist.

        Examples
        --------
        >>> from unetcam import UNetCAM
        >>> from unetcam.targets import ClassScore
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 3, 1))
        >>> image, cam = torch.rand(1, 1, 8, 8), UNetCAM(model, ["0"])
        >>> field = cam.field(image)
        >>> direct = cam(image, [ClassScore(2)])["0"][0, 0]
        >>> torch.allclose(field.map(ClassScore(2)), direct, rtol=1e-5, atol=1e-8)
        True
        """
        if isinstance(targets, Target):
            return self.map([targets])[0]
        return self._maps(self.weights(targets))

    def region_maps(self, masks: Tensor, classes: Tensor | Sequence[int]) -> Tensor:
        """The maps of many regions at once, as two matrix products.

        Parameters
        ----------
        masks : Tensor
            (R, *spatial) of the logits' size, or (R, *grid) of the field's; a pixel or cell
            belongs to the region where it is not zero.
        classes : Tensor or sequence of int
            (R,), the class of each region; the mean of its logit over the region is explained.

        Returns
        -------
        Tensor
            (R, *layer_spatial), raw; NaN for a region without a pixel.

        Raises
        ------
        TargetError
            For masks of another shape, for a class out of range, and for masks that are no unions
            of cells on a pooled field.
        """
        return self._maps(self.region_weights(masks, classes))

    def region_weights(self, masks: Tensor, classes: Tensor | Sequence[int]) -> Tensor:
        """The Grad-CAM weights of many regions at once, (R, K).

        Regions that a network recognises by the same features have weights of one direction.

        Parameters
        ----------
        masks, classes
            As for :meth:`region_maps`.
        """
        classes = torch.as_tensor(classes, device=self.logits.device)
        count = max(2, self.logits.shape[0])
        if tuple(masks.shape[1:]) not in (tuple(self.logits.shape[1:]), self.grid):
            raise TargetError(
                f"The masks have the shape {tuple(masks.shape[1:])}, but this field takes "
                f"{tuple(self.logits.shape[1:])} or {self.grid}: resize them with nearest "
                "neighbour."
            )
        if classes.shape != masks.shape[:1] or ((classes < 0) | (classes >= count)).any():
            raise TargetError(
                f"{len(masks)} masks need as many classes, each from 0 to {count - 1}."
            )
        inside = masks.to(self.logits.device) != 0
        cells = self._cell_sizes().flatten()
        if tuple(masks.shape[1:]) != self.grid:
            inside = self._whole_cells(inside)
        share = inside.flatten(1).to(self.derivative.dtype)
        derivative = self.derivative.flatten(2)
        weights = torch.zeros(len(masks), self.channels, dtype=share.dtype, device=share.device)
        for index in sorted(set(classes.tolist())):
            chosen = classes == index
            sign, channel = self._channel(index)
            weights[chosen] = sign * share[chosen] @ derivative[:, channel].T
        pixels = (share @ cells.to(share.dtype))[:, None]
        return weights / (pixels * self._layer_pixels())

    def pool(self, cells: Sequence[int]) -> RegionField:
        """The same field on a coarser grid: exact for every union of cells.

        Parameters
        ----------
        cells : sequence of int
            How many cells along each axis; each must divide the logits' size.

        Raises
        ------
        ValueError
            For a grid that does not divide the field's.
        """
        if len(cells) != len(self.grid) or any(
            n < 1 or size % n for n, size in zip(cells, self.grid, strict=True)
        ):
            raise ValueError(
                f"A grid of {tuple(cells)} cells does not divide the field's {self.grid}: choose "
                "divisors."
            )
        return replace(self, derivative=_cell_sums(self.derivative, cells))

    def save(self, path: str | Path) -> None:
        """Write the field and its activation as safetensors, in half precision.

        Each channel is divided by its own largest value first, so that half precision keeps three
        significant digits at any magnitude.
        """
        tensors, scales = {}, {}
        for name in ("activation", "derivative", "logits"):
            tensor = getattr(self, name).detach().float()
            peak = tensor.flatten(1).abs().amax(dim=1)
            peak = torch.where(peak > 0, peak, torch.ones_like(peak))
            tensors[name] = (tensor / peak.view(-1, *[1] * (tensor.ndim - 1))).half().cpu()
            scales[f"{name}_scale"] = peak.cpu()
        metadata = {"unetcam_field": json.dumps({"schema": _SCHEMA, "layer": self.layer})}
        contiguous = {k: v.contiguous() for k, v in {**tensors, **scales}.items()}
        save_file(contiguous, str(path), metadata=metadata)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> RegionField:
        """Read a field that :meth:`save` wrote, in single precision.

        Raises
        ------
        DataError
            For a file that is none.
        """
        try:
            with safe_open(str(path), framework="pt", device=str(device)) as file:
                about = json.loads((file.metadata() or {})["unetcam_field"])
                tensors = {
                    name: file.get_tensor(name).float()
                    * _like(file.get_tensor(f"{name}_scale"), file.get_tensor(name))
                    for name in ("activation", "derivative", "logits")
                }
        except (OSError, KeyError, SafetensorError, json.JSONDecodeError) as error:
            raise DataError(f"{path} is no field that unetcam wrote: {error}.") from error
        if about.get("schema") != _SCHEMA:
            raise DataError(
                f"{path} is a field of schema {about.get('schema')}, and this version reads "
                f"{_SCHEMA}: make it anew."
            )
        return cls(layer=about["layer"], **tensors)

    # -- inside ------------------------------------------------------------------------------

    def _layer_pixels(self) -> int:
        return math.prod(self.activation.shape[1:])

    def _channel(self, class_index: int) -> tuple[int, int]:
        """The sign and the logit channel of a class; one channel stands for two classes."""
        if self.logits.shape[0] == 1:
            return (1 if class_index == 1 else -1), 0
        return 1, class_index

    def _weigh(self, gradients: Tensor) -> Tensor:
        products = gradients.flatten(1).to(self.derivative.dtype) @ self.derivative.flatten(1).T
        return products / self._layer_pixels()

    def _maps(self, weights: Tensor) -> Tensor:
        sums = weights.to(self.activation.dtype) @ self.activation.flatten(1)
        return sums.relu_().view(len(weights), *self.activation.shape[1:])

    def _is_pooled(self) -> bool:
        return self.grid != tuple(self.logits.shape[1:])

    def _cell_sizes(self) -> Tensor:
        """How many pixels each cell holds, (*grid)."""
        size = math.prod(self.logits.shape[1:]) // math.prod(self.grid)
        return torch.full(self.grid, size, device=self.logits.device)

    def _on_grid(self, gradients: Tensor, targets: Sequence[Target]) -> Tensor:
        """The gradients (T, C, *spatial) at the cells, where each cell's pixels have the same."""
        if not self._is_pooled():
            return gradients
        corners = _cell_corners(gradients, self.grid)
        uneven = (nearest(corners, self.logits.shape[1:]) != gradients).flatten(1).any(dim=1)
        for target, torn in zip(targets, uneven.tolist(), strict=True):
            if torn:
                raise TargetError(
                    f"Target '{target.name}' is not constant on the cells of a field pooled to "
                    f"{self.grid}: use regions that are unions of cells, on logits, or the field "
                    "before pooling."
                )
        return corners

    def _whole_cells(self, inside: Tensor) -> Tensor:
        corners = _cell_corners(inside, self.grid)
        if (nearest(corners, self.logits.shape[1:]) != inside).any():
            raise TargetError(
                f"A mask cuts through cells of a field pooled to {self.grid}: draw it on that "
                "grid, or use the field before pooling."
            )
        return corners


def field_of(
    tapped: TappedModel,
    image: Inputs,
    layer: str | None,
    method: str,
    *,
    memory_budget: int | float | None,
) -> RegionField:
    """The field of one image at one layer, the last, finest one by default.

    See :meth:`unetcam.UNetCAM.field`.
    """
    if method != "gradcam":
        raise UnetcamError(
            f"A field gives Grad-CAM maps, and this UNetCAM is set to '{method}': use "
            "method='gradcam', or cam(...)."
        )
    images = image[None] if isinstance(image, Tensor) and image.ndim == 3 else image_of(image)
    check_images(tapped.loaded.module, images)
    if len(images) != 1:
        raise ModelError(
            f"A field belongs to one image, and {len(images)} were given: call it for each."
        )
    name, derivatives = tapped.channel_derivatives(images, layer, memory_budget)
    return RegionField(
        derivatives.activation[0], derivatives.logits[0], derivatives.derivative[0], name
    )


def _like(scale: Tensor, tensor: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (tensor.ndim - 1))


def _cell_sums(values: Tensor, cells: Sequence[int]) -> Tensor:
    """Sums over the cells of a grid, of the last axes."""
    lead = values.ndim - len(cells)
    shape = [*values.shape[:lead]]
    for count, size in zip(cells, values.shape[lead:], strict=True):
        shape += [count, size // count]
    return values.reshape(shape).sum(dim=tuple(lead + 1 + 2 * i for i in range(len(cells))))


def _cell_corners(values: Tensor, grid: Sequence[int]) -> Tensor:
    """The first pixel of every cell, of the last axes."""
    lead = values.ndim - len(grid)
    for axis, count in enumerate(grid, start=lead):
        step = values.shape[axis] // count
        values = values.index_select(axis, torch.arange(count, device=values.device) * step)
    return values
