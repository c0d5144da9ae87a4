"""Many networks: the right layers, and maps that agree with plain autograd."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

from tests.engine.test_state import assert_same, state_of
from tests.models.zoo import ZOO, Entry
from tests.networks import seeded
from unetcam import UNetCAM, find_layers

SLOW = {
    "MONAI MedNeXt, deep, 3-D",
    "MONAI SwinUNETR, 3-D",
    "MONAI VNet, 3-D",
    "torchvision deeplabv3_resnet50",
    "torchvision fcn_resnet50",
}
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in sorted(ZOO)
]


@functools.lru_cache(maxsize=1)
def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = seeded(ZOO[name].build()).double()
    with torch.no_grad():
        model(images(ZOO[name], 1))  # transformers sets hooks of its own at the first call
    return model


def images(entry: Entry, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, *entry.image, generator=generator, dtype=torch.float64)


def leading(returned: object) -> Tensor:
    """The logits: what each library's own documentation says they are."""
    if isinstance(returned, list):
        return returned[-1] if returned[0].shape == returned[-1].shape else returned[0]
    if isinstance(returned, dict):
        return returned["out"] if "out" in returned else returned["logits"]
    assert isinstance(returned, Tensor)
    return returned


def reference(model: nn.Module, inputs: Tensor, entry: Entry) -> dict[str, dict[str, Tensor]]:
    """Grad-CAM and HiResCAM of each class at each layer, from torch's own tensor hooks.

    Beside them the sum of their terms' magnitudes, to which rounding is relative.
    """
    activations: dict[str, Tensor] = {}
    gradients: dict[str, Tensor] = {}

    def keep(layer: str, output: Tensor) -> None:
        activations[layer] = output.detach().clone()
        output.register_hook(lambda gradient: gradients.update({layer: gradient}))

    handles = [
        model.get_submodule(layer).register_forward_hook(
            lambda module, args, output, layer=layer: keep(layer, output)
        )
        for layer in entry.decoder
    ]
    inputs = inputs.clone().requires_grad_()
    logits = leading(model(inputs))
    for handle in handles:
        handle.remove()
    maps: dict[str, dict[str, list[Tensor]]] = {layer: {} for layer in entry.decoder}
    for index in range(logits.shape[1]):
        score = logits[:, index].flatten(1).mean(1).sum()
        torch.autograd.grad(score, inputs, retain_graph=True)
        for layer, stride in entry.decoder.items():
            size = [side // stride for side in entry.image[1:]]
            a, g = (as_map(kept[layer], size) for kept in (activations, gradients))
            weights = g.flatten(2).mean(2).view(*g.shape[:2], *[1] * (g.ndim - 2))
            maps[layer].setdefault("gradcam", []).append((weights * a).sum(1).relu())
            maps[layer].setdefault("hirescam", []).append((g * a).sum(1).relu())
            maps[layer].setdefault("terms", []).append((g * a).abs().sum(1))
    return {
        layer: {method: torch.stack(listed, 1) for method, listed in by_method.items()}
        for layer, by_method in maps.items()
    }


def as_map(tensor: Tensor, size: list[int]) -> Tensor:
    """(B, K, *spatial) of a map, or of tokens (B, N, K)."""
    return tensor if tensor.ndim > 3 else tensor.mT.unflatten(2, size)


@pytest.mark.parametrize("name", NAMES)
def test_finds_the_decoder(name: str) -> None:
    entry, model = ZOO[name], network(name)
    before = state_of(model)
    table = find_layers(model, images(entry, 1))
    assert_same(before, state_of(model))
    assert [(layer, table.strides[layer]) for layer in table.decoder] == list(entry.decoder.items())
    assert table[-1].stage == "head"


@pytest.mark.parametrize("name", NAMES)
def test_maps_agree_with_plain_autograd(name: str) -> None:
    entry, model = ZOO[name], network(name)
    inputs = images(entry, 2 if name.startswith(("A plain", "MONAI")) and "3-D" not in name else 1)
    expected = reference(model, inputs, entry)
    before = state_of(model)
    for method, shortcuts in (("gradcam", True), ("gradcam", False), ("hirescam", True)):
        result = UNetCAM(model, method=method, shortcuts=shortcuts)(inputs)
        assert_same(before, state_of(model))
        assert result.layers == tuple(entry.decoder)
        for layer in result.layers:
            largest = float(expected[layer]["terms"].max())
            assert largest > 0
            torch.testing.assert_close(
                result[layer], expected[layer][method], rtol=1e-8, atol=1e-9 * largest
            )
