"""Whatever is done to a map, its pixels are found again, or known to be out of order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unetcam.engine.layout import Layout, is_clearly_map
from unetcam.models.tracing import Node, trace


class Applied(nn.Module):
    def __init__(self, steps: list[Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = x
        for step in self.steps:
            y = step(y)
        return {"out": x, "last": y}


def last_node(steps: list[Callable[[Tensor], Tensor]], image: Tensor) -> Node:
    return trace(Applied(steps), image, find_outputs=lambda *_: []).nodes[-1]


SIDES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
AS_TOKENS: list[Callable[[Tensor], Tensor]] = [
    lambda x: x,
    lambda x: x.flatten(2).transpose(1, 2),
    lambda x: x.flatten(2),
    lambda x: x.permute(0, 2, 3, 1),
    lambda x: x.movedim(1, -1).reshape(1, -1, x.shape[1]),
]


@settings(max_examples=60, deadline=None)
@given(SIDES, st.sampled_from(AS_TOKENS))
def test_a_layout_read_off_gives_the_map_back(
    sides: tuple[int, int, int], rearrange: Callable[[Tensor], Tensor]
) -> None:
    image = torch.rand(1, *sides)
    node = last_node([rearrange, lambda x: x * 1], image)
    assert node.layout is not None
    assert node.layout.grid == node.grid == sides[1:]
    assert torch.equal(node.layout.to_map(rearrange(image)), image)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.sampled_from([2, 4]))
def test_windows_are_out_of_order_until_they_are_put_together(
    rows: int, columns: int, channels: int, side: int
) -> None:
    image = torch.rand(1, channels, rows * side, columns * side)

    def cut(x: Tensor) -> Tensor:
        x = x.view(1, channels, rows, side, columns, side).permute(0, 2, 4, 3, 5, 1)
        return x.reshape(rows * columns, side * side, channels)

    def joined(x: Tensor) -> Tensor:
        x = x.view(1, rows, columns, side, side, channels).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(1, channels, rows * side, columns * side)

    def attended(x: Tensor) -> Tensor:
        weights = (x @ x.transpose(1, 2)).softmax(-1)
        return weights @ x

    inside = last_node([cut, attended], image)
    if rows * columns > 1:
        assert inside.layout is None
    assert inside.grid == image.shape[2:]
    whole = last_node([cut, attended, joined], image)
    assert whole.layout == Layout(tuple(image.shape[2:]))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(2, 5), st.integers(1, 4), st.integers(2, 3))
def test_space_to_depth_and_back_change_the_grid(
    height: int, width: int, channels: int, factor: int
) -> None:
    image = torch.rand(1, channels, height * factor, width * factor)

    def fold(x: Tensor) -> Tensor:
        x = x.view(1, channels, height, factor, width, factor).permute(0, 1, 3, 5, 2, 4)
        return x.reshape(1, channels * factor**2, height, width)

    def unfold(x: Tensor) -> Tensor:
        x = x.view(1, channels, factor, factor, height, width).permute(0, 1, 4, 2, 5, 3)
        return x.reshape(image.shape)

    def sliced(x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        parts = [x[:, i::factor, j::factor] for i in range(factor) for j in range(factor)]
        return torch.cat(parts, dim=-1)

    assert last_node([fold], image).layout == Layout((height, width))
    assert last_node([sliced], image).layout == Layout((height, width), axis=-1)
    restored = last_node([fold, lambda x: x * 1, unfold], image)
    assert restored.layout == Layout(tuple(image.shape[2:]))


def test_tokens_that_are_no_pixels_are_left_out() -> None:
    image = torch.rand(1, 8, 3, 5)
    registers = torch.zeros(1, 2, 8)
    node = last_node(
        [
            lambda x: x.flatten(2).transpose(1, 2),
            lambda x: torch.cat([registers[:, :1], x, registers], dim=1),
            lambda x: F.linear(x, torch.ones(4, 8)),
        ],
        image,
    )
    assert node.layout == Layout((3, 5), axis=-1, flat=True, start=1)
    assert node.channels == 4


def test_flipped_and_rolled_maps_are_out_of_order_until_they_are_turned_back() -> None:
    image = torch.rand(1, 3, 4, 6)
    for turn, back in (
        (lambda x: x.flip(-1), lambda x: x.flip(-1)),
        (lambda x: x.roll((1, 2), (2, 3)), lambda x: x.roll((-1, -2), (2, 3))),
        (lambda x: x.transpose(2, 3), lambda x: x.mT),
    ):
        assert last_node([turn, lambda x: x + 1], image).layout is None
        assert last_node([turn, lambda x: x + 1, back], image).layout == Layout((4, 6))


@pytest.mark.parametrize(
    ("shape", "clear"),
    [
        ((2, 64, 16, 16), True),
        ((2, 8, 128, 128), True),
        ((2, 16, 16, 64), False),
        ((2, 128, 128, 3), False),
        ((2, 64, 64, 64), False),
        ((2, 256, 8), False),
    ],
)
def test_what_may_be_channels_last_is_looked_at(shape: tuple[int, ...], clear: bool) -> None:
    assert is_clearly_map(shape, (128, 128)) == clear
