"""Make a network's weights mean nothing, all of them or from the head down to some depth."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unetcam.engine.state import preserved
from unetcam.errors import ModelError
from unetcam.models.supported import unwrapped


@dataclass(frozen=True)
class WeightedModules:
    """The modules of a network that own weights, in the order in which a forward runs them.

    Attributes
    ----------
    names : tuple of str
        As in ``model.named_modules()``.
    decoder : tuple of str
        Those of them that run after the bottleneck; empty where no bottleneck was named.
    """

    names: tuple[str, ...]
    decoder: tuple[str, ...]

    def cascade(self, steps: int) -> tuple[tuple[str, ...], ...]:
        """From the head down, more and more modules: `steps` sets, the last of them all.

        >>> WeightedModules(("down", "up", "head"), ()).cascade(3)
        (('head',), ('up', 'head'), ('down', 'up', 'head'))
        """
        count = len(self.names)
        steps = min(steps, count)
        # The head alone first, and then parts of about one size.
        sizes = [1 + (count - 1) * k // max(1, steps - 1) for k in range(steps)]
        return tuple(self.names[count - size :] for size in sizes)


@torch.no_grad()
def weighted_modules(
    model: nn.Module, images: Tensor, bottleneck: str | None = None
) -> WeightedModules:
    """Run the network once and note when each module with weights of its own is first run.

    Parameters
    ----------
    model : nn.Module
        Left as found.
    images : Tensor
        (B, C, *spatial), on the model's device.
    bottleneck : str, optional
        The layer behind which the decoder begins, as :func:`~unetcam.find_layers` names it.

    Raises
    ------
    ModelError
        If no module with weights runs.
    """
    model = unwrapped(model)
    order: list[str] = []
    decoder_begins: list[int] = []
    hooks = []

    def note(name: str) -> None:
        if name not in order:
            order.append(name)

    for name, module in model.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: note(name)))
        if bottleneck is not None and name == bottleneck.partition("#")[0]:
            hooks.append(module.register_forward_hook(lambda *_: decoder_begins.append(len(order))))
    try:
        with preserved(model), torch.no_grad():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not order:
        raise ModelError(
            "No module with weights runs in the network: there is nothing to randomise."
        )
    decoder = tuple(order[decoder_begins[-1] :]) if decoder_begins else ()
    return WeightedModules(tuple(order), decoder)


def randomised(model: nn.Module, modules: Collection[str], seed: int = 0) -> nn.Module:
    """A copy of the network whose weights, in some modules, are shuffled.

    The values of each parameter and of each floating buffer (batch norm's statistics) change
    places within their tensor, so that activations keep their size while nothing learned is left;
    a tensor that is shared by two modules is shuffled once.

    Parameters
    ----------
    model : nn.Module
        Is not changed.
    modules : collection of str
        Names as in ``model.named_modules()``; what belongs to the modules inside them stays.
    seed : int
        Seeds the shuffles; torch's own random state is not touched.

    Returns
    -------
    nn.Module

    Raises
    ------
    ModelError
        If the network can't be copied.

    References
    ----------
    The cascading and independent randomisation of J. Adebayo et al., "Sanity Checks for Saliency
    Maps", NeurIPS 2018, with the trained values in another order in place of fresh ones.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    >>> other = randomised(model, ["0"])
    >>> torch.equal(other[0].weight.sort().values, model[0].weight.sort().values)
    False
    >>> bool((other[0].weight.sum() - model[0].weight.sum()).abs() < 1e-6)
    True
    >>> torch.equal(other[1].weight, model[1].weight)
    True
    """
    model = unwrapped(model)
    try:
        twin = copy.deepcopy(model)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise ModelError(
            f"{type(model).__name__} can't be copied ({type(error).__name__}), and its weights "
            "are only ever randomised in a copy: give a network that copy.deepcopy takes."
        ) from error
    generator = torch.Generator().manual_seed(seed)
    shuffled: set[int] = set()
    own = dict(twin.named_modules())
    with torch.no_grad():
        for name in modules:
            for tensor in _tensors_of(own[name]):
                if id(tensor) not in shuffled and tensor.numel() > 1:
                    shuffled.add(id(tensor))
                    places = torch.randperm(tensor.numel(), generator=generator)
                    values = tensor.detach().flatten()[places.to(tensor.device)]
                    tensor.copy_(values.view_as(tensor))
    return twin


def _tensors_of(module: nn.Module) -> Sequence[Tensor]:
    buffers = [one for one in module.buffers(recurse=False) if one.is_floating_point()]
    return [*module.parameters(recurse=False), *buffers]
