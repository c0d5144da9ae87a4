"""What reaches a network's first batch norm, against what it saw in training: without any mask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unetcam.engine.hooks import on_this_thread
from unetcam.interventions.prediction import Predictor

#: Running statistics keep their starting value to a share of (1 - momentum) ** batches.
_SETTLED = 0.02


@dataclass(frozen=True, eq=False)
class InputStatistics:
    """The variance at a network's first normalisation layer, image by image.

    Attributes
    ----------
    layer : str
        The layer's name.
    log_ratios : Tensor
        (N, K) float64: the logarithm of each image's mean squared distance from the mean of all N
        over the layer's running variance, by channel. Its exponential is 1 on average over images
        such as the layer was trained on.
    """

    layer: str
    log_ratios: Tensor

    @property
    def off(self) -> Tensor:
        """By image, (N,), the mean over channels of the logarithm's absolute value.

        About .4 for images such as the network was trained on; 2 and more in another range.
        """
        return self.log_ratios.abs().mean(dim=1)


def _with_statistics(module: nn.Module) -> dict[str, nn.Module]:
    """The layers with running statistics, by name, in no order of running.

    Statistics that are still those that the layer began with say nothing about any images.
    """
    return {name: one for name, one in module.named_modules() if _has_statistics(one)}


def _has_statistics(module: nn.Module) -> bool:
    variance = getattr(module, "running_var", None)
    count = getattr(module, "num_batches_tracked", None)
    if not isinstance(variance, Tensor):
        return False
    momentum = getattr(module, "momentum", None)
    if not isinstance(count, Tensor) or momentum is None:
        return True
    return bool((1 - float(momentum)) ** float(count) <= _SETTLED)


def input_statistics(
    module: nn.Module, predictor: Predictor, images: Tensor
) -> InputStatistics | None:
    """Compare what reaches the first normalisation layer with its running statistics.

    Parameters
    ----------
    module : nn.Module
        The network that `predictor` predicts with.
    predictor : Predictor
    images : Tensor
        (N, C, *spatial).

    Returns
    -------
    InputStatistics or None
        None where no layer that is run keeps statistics of its training, as in networks with
        group, instance or layer norm, or none at all; and where they have not settled, because it
        saw too few batches.

    Examples
    --------
    >>> norm = nn.BatchNorm2d(1)
    >>> norm.running_var.fill_(4.0), norm.num_batches_tracked.fill_(1000)
    (tensor([4.]), tensor(1000))
    >>> network = nn.Sequential(norm, nn.Conv2d(1, 2, 1))
    >>> images = 2 * torch.tensor([[[[-1.0, 1.0]]], [[[1.0, -1.0]]]])
    >>> predictor = Predictor(network.eval())
    >>> input_statistics(network, predictor, images).off
    tensor([0., 0.], dtype=torch.float64)
    >>> input_statistics(network, predictor, images / 2).off.exp()  # a quarter of the variance
    tensor([4., 4.], dtype=torch.float64)
    """
    layers = _with_statistics(module)
    if not layers:
        return None
    moments: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for chunk in predictor.in_chunks(lambda rows: rows, images, images):
        with _recorded(layers, moments):
            predictor.logits(chunk)
    if not moments:
        return None
    name = next(iter(moments))
    mean, square = (torch.cat(parts) for parts in zip(*moments[name], strict=True))
    if len(mean) != len(images):
        return None
    centre = mean.mean(dim=0)
    variance = square - 2 * centre * mean + centre.square()
    running: Any = layers[name].running_var
    ratio = variance / running.double().to(variance.device)
    tiny = torch.finfo(torch.float32).tiny
    return InputStatistics(name, ratio.clamp(tiny, 1 / tiny).log().cpu())


@contextmanager
def _recorded(
    layers: dict[str, nn.Module], moments: dict[str, list[tuple[Tensor, Tensor]]]
) -> Iterator[None]:
    """Inside, the mean and mean square of what the first of the layers is given are kept."""
    seen: list[str] = []

    def record(name: str, given: Any) -> None:
        if seen or not given or not isinstance(given[0], Tensor):
            return
        seen.append(name)
        values = given[0].detach().flatten(2).double()
        moments.setdefault(name, []).append((values.mean(dim=2), values.square().mean(dim=2)))

    with ExitStack() as stack:
        for name, layer in layers.items():
            hook = on_this_thread(lambda _, given, name=name: record(name, given))
            stack.callback(layer.register_forward_pre_hook(hook).remove)
        yield
