"""NIfTI volumes give axial slices in anatomical directions, whatever the order of their voxels."""

from __future__ import annotations

import builtins
import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from unetcam.data import ClassTable, find_samples, read_image, read_mask
from unetcam.errors import DataError

RNG = np.random.default_rng(3)
AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])
SHAPE = (5, 7, 4)  # left to right, back to front, feet to head
VOLUME = RNG.integers(-500, 500, SHAPE).astype(np.int16)


def save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def axial(volume: np.ndarray, plane: int) -> np.ndarray:
    """Front of the body up, its left at the left, written out pixel by pixel."""
    return np.array(
        [[volume[x, y, plane] for x in range(SHAPE[0])] for y in reversed(range(SHAPE[1]))]
    )


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_slices_have_the_front_up_and_left_at_the_left(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"v.{suffix}", VOLUME)
    for plane in range(SHAPE[2]):
        image = read_image(path, plane=plane)
        assert image.dtype == np.int16
        np.testing.assert_array_equal(image[..., 0], axial(VOLUME, plane))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, 1)])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_the_order_of_the_voxels_does_not_matter(
    tmp_path: Path, order: tuple[int, ...], signs: tuple[int, ...], suffix: str
) -> None:
    orientation = np.array([[axis, sign] for axis, sign in zip(order, signs, strict=True)])
    canonical = nib.Nifti1Image(VOLUME, AFFINE)
    change = nib.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], orientation)
    turned = canonical.as_reoriented(change)
    path = tmp_path / f"v.{suffix}"
    nib.save(turned, path)
    for plane in (0, 3):
        np.testing.assert_array_equal(read_image(path, plane=plane)[..., 0], axial(VOLUME, plane))


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_scaled_volumes_give_their_real_values(tmp_path: Path, suffix: str) -> None:
    image = nib.Nifti1Image(VOLUME, AFFINE)
    image.header.set_slope_inter(0.5, 10.0)
    nib.save(image, tmp_path / f"v.{suffix}")
    read = read_image(tmp_path / f"v.{suffix}", plane=2)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read[..., 0], axial(VOLUME * 0.5 + 10.0, 2), rtol=1e-6)


def test_a_fourth_axis_holds_bands(tmp_path: Path) -> None:
    data = RNG.random((*SHAPE, 3)).astype(np.float32)
    path = save(tmp_path / "v.nii.gz", data)
    np.testing.assert_array_equal(
        read_image(path, plane=1), np.stack([axial(data[..., n], 1) for n in range(3)], axis=-1)
    )
    single = save(tmp_path / "w.nii", VOLUME[..., None])
    np.testing.assert_array_equal(read_image(single, plane=1)[..., 0], axial(VOLUME, 1))


def test_a_volume_of_one_slice_needs_no_number(tmp_path: Path) -> None:
    for name, data in (("a.nii", VOLUME[..., :1]), ("b.nii", VOLUME[..., 0])):
        read = read_image(save(tmp_path / name, data))
        np.testing.assert_array_equal(read[..., 0], axial(VOLUME, 0))


def test_volumes_become_one_sample_per_slice(tmp_path: Path) -> None:
    labels = (VOLUME > 0).astype(np.uint8)
    save(tmp_path / "images/sub/v.nii.gz", VOLUME)
    save(tmp_path / "masks/sub/v.nii", labels[::-1], AFFINE @ flip_x())
    samples, skipped = find_samples(tmp_path / "images", tmp_path / "masks")
    assert skipped == []
    assert [sample.id for sample in samples] == [f"sub/v#z{n:03d}" for n in range(4)]
    for sample in samples:
        mask = read_mask(sample, ClassTable(("background", "tissue")))
        np.testing.assert_array_equal(mask, axial(labels, sample.plane or 0))


def flip_x() -> np.ndarray:
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = SHAPE[0] - 1
    return flip


def test_volumes_per_class_are_read_slice_by_slice(tmp_path: Path) -> None:
    labels = RNG.integers(0, 3, SHAPE).astype(np.uint8)
    save(tmp_path / "images/v.nii", VOLUME)
    save(tmp_path / "masks/v_grey.nii.gz", (labels == 1).astype(np.uint8))
    save(tmp_path / "masks/v_white.nii.gz", (labels == 2).astype(np.uint8))
    classes = ClassTable(("background", "grey", "white"))
    samples, _ = find_samples(tmp_path / "images", tmp_path / "masks", classes=classes)
    assert len(samples) == 4
    np.testing.assert_array_equal(read_mask(samples[2], classes), axial(labels, 2))


def test_masks_that_do_not_fit_are_skipped_by_name(tmp_path: Path) -> None:
    shifted = AFFINE.copy()
    shifted[0, 3] = 6.0
    for name in "abcd":
        save(tmp_path / f"images/{name}.nii", VOLUME)
    save(tmp_path / "masks/a.nii", VOLUME[..., :3])
    save(tmp_path / "masks/b.nii", VOLUME, shifted)
    np.save(tmp_path / "masks/c.npy", np.zeros((7, 5), np.uint8))
    (tmp_path / "masks/d.nii").write_bytes(b"no volume at all")
    samples, skipped = find_samples(tmp_path / "images", tmp_path / "masks")
    assert samples == []
    reasons = {entry.id: entry.reason for entry in skipped}
    assert "has (5, 7, 3) voxels and its image 'a.nii' (5, 7, 4)" in reasons["a"]
    assert "lies up to 6.0 mm away from its image" in reasons["b"]
    assert "its mask 'c.npy' is not; give the mask as NIfTI" in reasons["c"]
    assert "'d.nii' can't be read as a NIfTI volume" in reasons["d"]


def test_a_slice_that_does_not_exist_is_told(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii", VOLUME)
    with pytest.raises(DataError, match=r"'v.nii' can't be read: it has no slice 4"):
        read_image(path, plane=4)
    with pytest.raises(DataError, match="it is a volume of 4 slices; say which"):
        read_image(path)


def test_a_volume_cut_short_is_told(tmp_path: Path) -> None:
    for name in ("v.nii", "v.nii.gz"):
        path = save(tmp_path / name, np.tile(VOLUME, (4, 4, 4)))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(DataError, match="can't be read"):
            read_image(path, plane=15)


def test_a_changed_volume_is_read_again(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii.gz", VOLUME)
    read_image(path, plane=0)
    save(path, np.tile(VOLUME + 1, (1, 1, 2)))
    np.testing.assert_array_equal(read_image(path, plane=0)[..., 0], axial(VOLUME + 1, 0))


def test_a_header_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii", VOLUME)
    content = bytearray(path.read_bytes())
    content[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    path.write_bytes(content)
    with pytest.raises(DataError, match="at most 67,108,864 pixels"):
        read_image(path, plane=0)


def test_without_nibabel_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "images/v.nii", VOLUME)
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "nibabel":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"'v.nii' .* pip install \"unetcam\[nifti\]\""):
        read_image(path, plane=0)
    _, skipped = find_samples(tmp_path / "images")
    assert 'pip install "unetcam[nifti]"' in skipped[0].reason


def test_colour_voxels_are_three_bands(tmp_path: Path) -> None:
    colours = RNG.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    packed = colours.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    read = read_image(save(tmp_path / "v.nii.gz", packed), plane=1)
    np.testing.assert_array_equal(
        read, np.stack([axial(colours[..., n], 1) for n in range(3)], axis=-1)
    )


def test_headers_without_directions_or_with_too_many_axes_are_told(tmp_path: Path) -> None:
    flat = save(tmp_path / "v.nii", VOLUME)
    content = bytearray(flat.read_bytes())
    content[280:328] = bytes(48)  # srow_x, srow_y, srow_z of the NIfTI-1 header
    flat.write_bytes(content)
    deep = save(tmp_path / "w.nii", np.zeros((2, 3, 4, 2, 2), np.uint8))
    for path, reason in [(flat, "does not say which way is up"), (deep, "give three axes")]:
        with pytest.raises(DataError, match=reason):
            read_image(path, plane=0)
