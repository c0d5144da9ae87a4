"""Run a network on changed images, and read its prediction class by class."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from unetcam.engine.memory import chunked, memory_bytes
from unetcam.engine.tensors import at_least_single
from unetcam.errors import DataError, ModelError, NumericalError
from unetcam.models.loaded_model import LoadedModel
from unetcam.resizing import interpolated

#: Images (B, C, *spatial) in, logits (B, classes, *spatial) out.
Predict: TypeAlias = Callable[[Tensor], Tensor]
Head = Literal["softmax", "sigmoid"]

#: Channels that a forward is taken to hold at full size, for the size of a chunk.
_TYPICAL_WIDTH = 64
#: Images in one forward at most: on a CPU more at once only leave its cache.
_MOST_ON_CPU = 16


@dataclass(frozen=True)
class Prediction:
    """What a network says of a batch of images, class by class.

    Attributes
    ----------
    masks : Tensor
        (B, classes, *spatial) bool, where each class is predicted.
    margins : Tensor
        (B, classes, *spatial), in logits: by how much the class is ahead of the best other one
        (``head="softmax"``), or its own logit (``head="sigmoid"``); above zero where predicted.
    """

    masks: Tensor
    margins: Tensor


@dataclass(eq=False)
class Predictor:
    """A network as interventions use it: forwards only, in chunks, counted.

    Parameters
    ----------
    predict : callable
        Images (B, C, *spatial) to logits (B, classes, *spatial), as ``LoadedModel.logits``; one
        channel of logits is class 1 against class 0.
    head : {"softmax", "sigmoid"}
        Whether the classes exclude one another.
    memory_budget : int or float, optional
        Bytes, or a share of what is free; see :class:`~unetcam.UNetCAM`.
    told : callable, optional
        Is told `forwards` after every chunk.

    Attributes
    ----------
    forwards : int
        How many images went through the network.

    Examples
    --------
    >>> import torch
    >>> predictor = Predictor(lambda images: images - 0.5)
    >>> predictor(torch.tensor([[[[0.2, 0.7]]]])).masks[0, 1]
    tensor([[False,  True]])
    >>> predictor.forwards
    1
    """

    predict: Predict
    head: Head = "softmax"
    memory_budget: int | float | None = None
    told: Callable[[int], None] | None = field(default=None, repr=False)
    forwards: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.head not in get_args(Head):
            raise ModelError(f"head={self.head!r} is no head: use 'softmax' or 'sigmoid'.")
        memory_bytes(self.memory_budget, torch.device("cpu"))

    def __call__(self, images: Tensor) -> Prediction:
        """Where each class is predicted, and by what margin, for images (B, C, *spatial)."""
        return read_classes(torch.cat(self.in_chunks(self.logits, images, images)), self.head)

    def in_chunks(
        self, function: Callable[[Tensor], Any], rows: Tensor, images: Tensor
    ) -> list[Any]:
        """Apply `function` to chunks of `rows`, each of which stands for one image to predict.

        Parameters
        ----------
        function : callable
        rows : Tensor
            (N, ...), on any device.
        images : Tensor
            (B, C, *spatial), by whose size and device a chunk's is chosen.
        """
        most = _MOST_ON_CPU if images.device.type == "cpu" else None
        each = 16 * _TYPICAL_WIDTH * math.prod(images.shape[2:])
        memory = memory_bytes(self.memory_budget, images.device)
        return chunked(function, rows, each, memory, most=most)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """The logits of one chunk of images, (B, classes, *spatial) at the images' size.

        Raises
        ------
        ModelError
            For what is no map of logits.
        NumericalError
            For NaN or infinity.
        """
        logits = at_least_single(self.predict(images).detach())
        if logits.ndim != images.ndim or len(logits) != len(images):
            raise ModelError(
                f"The network gave {tuple(logits.shape)} for images of shape "
                f"{tuple(images.shape)}, which is no map of logits (B, classes, *spatial): pass "
                "output=callable to pick the logits from what it returns."
            )
        if not torch.isfinite(logits).all():
            raise NumericalError(
                "NaN or infinity in the logits of a changed image: check the network, or run "
                "without half precision."
            )
        self.forwards += len(images)
        if self.told is not None:
            self.told(self.forwards)
        return interpolated(logits, images.shape[2:])


def predictor_of(
    model: Any, *, head: Head = "softmax", memory_budget: int | float | None = None
) -> Predictor:
    """A predictor made of a model, of a loaded one, or of a callable that gives logits.

    Parameters
    ----------
    model : nn.Module, LoadedModel, callable or Predictor
        A predictor is handed back as it is.
    head, memory_budget
        See :class:`Predictor`.

    Raises
    ------
    ModelError
        For what is no network.
    """
    if isinstance(model, Predictor):
        return model
    if isinstance(model, nn.Module):
        model = LoadedModel.of(model)
    predict = getattr(model, "logits", model)
    if not callable(predict):
        raise ModelError(
            f"A {type(model).__name__} is no network: give an nn.Module, what unetcam.load gives, "
            "or a callable from images to logits."
        )
    return Predictor(predict, head, memory_budget)


def read_classes(logits: Tensor, head: Head = "softmax") -> Prediction:
    """Where each class is predicted, and by what margin.

    Parameters
    ----------
    logits : Tensor
        (B, classes, *spatial); a single channel is class 1, and its negation class 0.
    head : {"softmax", "sigmoid"}

    Examples
    --------
    >>> import torch
    >>> read_classes(torch.tensor([[[[3.0, 1.0]], [[1.0, 2.0]]]])).margins[0, :, 0]
    tensor([[ 2., -1.],
            [-2.,  1.]])
    """
    if logits.shape[1] == 1:
        # At a logit of zero neither is ahead; a pixel belongs to one class, here as in argmax.
        foreground = logits[:, 0] > 0
        masks = torch.stack((~foreground, foreground), dim=1)
        return Prediction(masks, 2 * torch.cat((-logits, logits), dim=1))
    if head == "sigmoid":
        return Prediction(logits > 0, logits)
    # The same as argmax, also for ties and NaN, and ten times faster over channels on a CPU.
    best, index = logits.max(dim=1, keepdim=True)
    masks = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, index, True)
    second = torch.where(masks, -torch.inf, logits).amax(dim=1, keepdim=True)
    return Prediction(masks, logits - torch.where(masks, second, best))


def class_masks(truth: Tensor, count: int, head: Head = "softmax") -> tuple[Tensor, Tensor]:
    """The ground truth class by class, and where it is known.

    Parameters
    ----------
    truth : Tensor
        (B, *spatial) class indices, -1 where a pixel is ignored; with ``head="sigmoid"`` also
        (B, classes, *spatial) of 1 and 0, -1 where ignored.
    count : int
        The number of classes.
    head : {"softmax", "sigmoid"}

    Returns
    -------
    masks : Tensor
        (B, classes, *spatial) bool.
    known : Tensor
        (B, classes or 1, *spatial) bool.

    Raises
    ------
    DataError
        For a class that the network does not have.

    Examples
    --------
    >>> import torch
    >>> masks, known = class_masks(torch.tensor([[[0, 1, -1]]]), 2)
    >>> masks[0, 1], known[0, 0]
    (tensor([[False,  True, False]]), tensor([[ True,  True, False]]))
    """
    if head == "sigmoid" and truth.ndim > 3 and truth.shape[1] == count and int(truth.max()) <= 1:
        return truth == 1, truth >= 0
    largest = int(truth.max()) if truth.numel() else -1
    if largest >= count:
        raise DataError(
            f"The ground truth holds class {largest}, but the network has {count} classes (0 to "
            f"{count - 1}): check the class table."
        )
    indices = torch.arange(count, device=truth.device).view(-1, *[1] * (truth.ndim - 1))
    return truth.unsqueeze(1) == indices, truth.unsqueeze(1) >= 0
