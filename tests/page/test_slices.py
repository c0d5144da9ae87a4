"""Slices of volumes, as a person looks at them."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from unetcam.data import read_image
from unetcam.data.whole_volumes import read_whole
from unetcam.page.slices import Slice, choose_slice

SHAPE = (5, 7, 4)  # left to right, back to front, feet to head
VOLUME = np.random.default_rng(1).integers(0, 255, SHAPE).astype(np.uint8)
ORIENTATIONS = [
    "".join(letters[axis] for axis in order)
    for order in itertools.permutations(range(3))
    for letters in itertools.product("LR", "PA", "IS")
]


def test_there_are_as_many_orientations_as_a_cube_has_with_its_mirror_images() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_axial_slices_are_those_of_a_network_of_images(tmp_path: Path, orientation: str) -> None:
    path = tmp_path / "v.nii"
    nib.save(nib.Nifti1Image(VOLUME, np.eye(4)), path)
    values = read_whole(path, orientation).values
    for number in range(SHAPE[2]):
        shown = Slice(orientation, 2, number, SHAPE[2]).of(values)
        np.testing.assert_array_equal(shown, read_image(path, plane=number))


@pytest.mark.parametrize("orientation", ["RAS", "SPL", "AIR"])
def test_the_head_is_up_and_the_left_at_the_left(tmp_path: Path, orientation: str) -> None:
    path = tmp_path / "v.nii"
    nib.save(nib.Nifti1Image(VOLUME, np.eye(4)), path)
    values = read_whole(path, orientation).values[..., 0]
    coronal, sagittal = Slice(orientation, 1, 3, 7), Slice(orientation, 0, 2, 5)
    np.testing.assert_array_equal(coronal.of(values), VOLUME[:, 3, ::-1].T)
    np.testing.assert_array_equal(sagittal.of(values), VOLUME[2, :, ::-1].T)
    assert coronal.title == "coronal slice 4 of 7"
    assert sagittal.title == "sagittal slice 3 of 5"


@pytest.mark.parametrize(
    ("spacing", "title"),
    [
        ((1, 1, 1), "axial slice 2 of 4"),
        ((1, 1, 1.0001), "axial slice 2 of 4"),
        ((0.9, 0.9, 3), "axial slice 2 of 4"),
        ((1, 3, 1), "coronal slice 6 of 7"),
        ((3, 1, 1), "sagittal slice 5 of 5"),
    ],
)
def test_the_slice_with_most_voxels_of_the_finest_plane_is_chosen(
    spacing: tuple[float, ...], title: str
) -> None:
    truth, prediction = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    truth[0, 0, 0] = truth[4, 5, 1] = True
    prediction[4, 5, 1] = True
    assert choose_slice([truth, prediction], "RAS", spacing).title == title
    # The same volume with other axes.
    turned = [one.transpose(2, 0, 1)[::-1, :, ::-1] for one in (truth, prediction)]
    assert choose_slice(turned, "IRP", spacing).title == title


def test_of_equal_slices_the_one_nearest_to_the_middle_is_chosen() -> None:
    mask = np.zeros(SHAPE, bool)
    assert choose_slice([mask], "RAS", (1, 1, 1)).number == 2
    mask[1, :, [0, 3]] = True
    assert choose_slice([mask], "RAS", (1, 1, 1)).number == 3
