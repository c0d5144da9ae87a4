"""Maps come back to the image's own size and frame."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import resize
from torch.nn import functional as F

from unetcam.data import Frame
from unetcam.errors import DataError


def test_identity_gives_the_same_bits() -> None:
    maps = torch.randn(2, 3, 8, 9)
    assert torch.equal(Frame.identity((8, 9)).restore(maps), maps)


def test_padding_is_cropped_back_exactly() -> None:
    inner = torch.randn(2, 3, 5, 7)
    frame = Frame((5, 7), (5, 7), (2, 1), (8, 16))
    padded = F.pad(inner, (1, 8, 2, 1), value=9.0)
    assert torch.equal(frame.restore(padded), inner)
    assert torch.equal(frame.restore(padded, "nearest"), inner)


@pytest.mark.parametrize("original", [(5, 9), (33, 17), (16, 16)])
def test_resizing_is_undone_as_interpolate_does(original: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, 16, 16)
    restored = Frame(original, (16, 16), (0, 0), (16, 16)).restore(maps)
    reference = F.interpolate(maps, original, mode="bilinear", align_corners=False)
    assert torch.equal(restored, reference)


@pytest.mark.parametrize("lead", [(), (2, 3)])
def test_volumes_come_back_along_three_axes(lead: tuple[int, ...]) -> None:
    inner = torch.randn(*lead, 4, 5, 6)
    padded = F.pad(inner, (3, 1, 0, 2, 1, 0), value=9.0)
    frame = Frame((4, 5, 6), (4, 5, 6), (1, 0, 3), (5, 7, 10))
    assert torch.equal(frame.restore(padded), inner)
    larger = Frame((8, 10, 12), (4, 5, 6), (1, 0, 3), (5, 7, 10))
    reference = F.interpolate(inner.reshape(1, -1, 4, 5, 6), (8, 10, 12), mode="trilinear")
    assert torch.equal(larger.restore(padded), reference.reshape(*lead, 8, 10, 12))
    doubled = inner.repeat_interleave(2, -1).repeat_interleave(2, -2).repeat_interleave(2, -3)
    assert torch.equal(larger.restore(padded, "nearest"), doubled)


def test_enlarging_agrees_with_scikit_image() -> None:
    maps = torch.rand(16, 16, dtype=torch.float64)
    restored = Frame((40, 56), (16, 16), (0, 0), (16, 16)).restore(maps)
    reference = resize(maps.numpy(), (40, 56), order=1, mode="edge", anti_aliasing=False)
    torch.testing.assert_close(restored, torch.from_numpy(reference), rtol=0, atol=1e-12)


def test_padding_never_leaks_into_the_resized_map() -> None:
    padded = torch.full((32, 32), 1e6)
    padded[4:28, :] = 1.0
    restored = Frame((48, 64), (24, 32), (4, 0), (32, 32)).restore(padded)
    assert torch.equal(restored, torch.ones(48, 64))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.float32])
def test_labels_of_any_type_take_the_nearest_pixel(dtype: torch.dtype) -> None:
    labels = torch.randint(0, 2, (2, 7, 11)).to(dtype)
    restored = Frame((20, 5), (7, 11), (0, 0), (7, 11)).restore(labels, "nearest")
    reference = F.interpolate(labels[None].double(), (20, 5), mode="nearest-exact")[0].to(dtype)
    assert restored.dtype == dtype
    assert torch.equal(restored, reference)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
@settings(deadline=None)
def test_any_size_comes_back(h: int, w: int, height: int, width: int) -> None:
    frame = Frame((height, width), (h, w), (1, 2), (h + 3, w + 2))
    maps = torch.rand(2, h + 3, w + 2)
    for mode in ("bilinear", "nearest"):
        restored = frame.restore(maps, mode)
        assert restored.shape == (2, height, width)
        inner = maps[:, 1 : 1 + h, 2 : 2 + w]
        assert restored.min() >= inner.min() - 1e-6
        assert restored.max() <= inner.max() + 1e-6


def test_nan_stays_nan_and_half_precision_stays_half() -> None:
    frame = Frame((9, 9), (4, 4), (0, 0), (4, 4))
    assert frame.restore(torch.full((4, 4), torch.nan)).isnan().all()
    assert frame.restore(torch.ones(4, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_gradients_flow_back() -> None:
    maps = torch.rand(4, 4, requires_grad=True)
    Frame((9, 9), (4, 4), (0, 0), (4, 4)).restore(maps).sum().backward()
    assert maps.grad is not None
    torch.testing.assert_close(maps.grad.sum(), torch.tensor(81.0))


def test_faults_are_told() -> None:
    frame = Frame((9, 9), (4, 4), (0, 0), (4, 4))
    with pytest.raises(DataError, match="resize them to the input first"):
        frame.restore(torch.zeros(5, 5))
    with pytest.raises(DataError, match="can't be averaged; use mode='nearest'"):
        frame.restore(torch.zeros(4, 4, dtype=torch.int64))
    with pytest.raises(DataError, match="choose bilinear or nearest"):
        frame.restore(torch.zeros(4, 4), "cubic")  # type: ignore[arg-type]


@pytest.mark.gpu
def test_restoring_stays_on_the_device() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    frame = Frame((9, 9), (4, 4), (0, 0), (4, 4))
    maps = torch.rand(4, 4, device="cuda")
    for mode in ("bilinear", "nearest"):
        restored = frame.restore(maps, mode)
        assert restored.device == maps.device
        torch.testing.assert_close(restored.cpu(), frame.restore(maps.cpu(), mode))
