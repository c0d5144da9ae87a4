"""Whole volumes in any orientation, and maps that lie where the volume lies."""

from __future__ import annotations

import builtins
import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pytest

from unetcam.data import ClassTable, find_samples, read_image, read_mask
from unetcam.data.volumes import Volume
from unetcam.data.whole_volumes import check_orientation, read_whole
from unetcam.errors import DataError

RNG = np.random.default_rng(5)
SHAPE = (5, 7, 4)  # left to right, back to front, feet to head
VOLUME = RNG.integers(-500, 500, SHAPE).astype(np.int16)
#: 2 x 3 x 4 mm, a little oblique, not at the origin.
AFFINE = np.array([[2.0, 0.1, 0, -30], [-0.1, 3.0, 0.2, 12.5], [0, -0.2, 4.0, 7], [0, 0, 0, 1]])
CANONICAL = np.array([[0, 1], [1, 1], [2, 1]])
TURNS = [
    np.array([[axis, sign] for axis, sign in zip(order, signs, strict=True)])
    for order in itertools.permutations(range(3))
    for signs in ((1, 1, 1), (-1, 1, -1), (-1, -1, 1))
]


def turned(orientation: np.ndarray) -> nib.Nifti1Image:
    """The same volume, its voxels stored along other axes."""
    change = nib.orientations.ornt_transform(CANONICAL, orientation)
    return nib.Nifti1Image(VOLUME, AFFINE).as_reoriented(change)


def save_nifti(path: Path, image: nib.Nifti1Image) -> Path:
    nib.save(image, path)
    return path


def save_nrrd(path: Path, image: nib.Nifti1Image, space: str = "left-posterior-superior") -> Path:
    signs = {"left-posterior-superior": [-1, -1, 1], "RAS": [1, 1, 1], "LAS": [-1, 1, 1]}[space]
    affine = np.diag([*signs, 1]) @ image.affine
    header = {
        "space": space,
        "space directions": affine[:3, :3].T,
        "space origin": affine[:3, 3],
        "kinds": ["domain"] * 3,
    }
    nrrd.write(str(path), np.asarray(image.dataobj), header)
    return path


def place(path: Path, values: np.ndarray, value: float) -> np.ndarray:
    """Where in the body, in millimetres right, front and up, a file has a value."""
    (voxel,) = np.argwhere(values == value)
    if path.suffix != ".nrrd":
        return nib.load(path).affine @ [*voxel, 1]
    header = nrrd.read_header(str(path))
    at = voxel @ header["space directions"] + header["space origin"]
    signs = {"left-posterior-superior": [-1, -1, 1], "RAS": [1, 1, 1], "LAS": [-1, 1, 1]}
    return np.array([*(at * signs[header["space"]]), 1])


def loaded(path: Path) -> np.ndarray:
    return nrrd.read(str(path))[0] if path.suffix == ".nrrd" else np.asarray(nib.load(path).dataobj)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["nii", "nii.gz", "nrrd"])
def test_the_order_of_the_voxels_does_not_matter(
    tmp_path: Path, kind: str, orientation: np.ndarray
) -> None:
    save = save_nrrd if kind == "nrrd" else save_nifti
    path = save(tmp_path / f"v.{kind}", turned(orientation))
    whole = read_whole(path)
    assert whole.values.dtype == np.int16
    np.testing.assert_array_equal(whole.values[..., 0], VOLUME)
    up_back_left = read_whole(path, "SPL").values[..., 0]
    np.testing.assert_array_equal(up_back_left, VOLUME.transpose(2, 1, 0)[:, ::-1, ::-1])
    np.testing.assert_array_equal(read_whole(path, "file").values[..., 0], loaded(path))


@pytest.mark.parametrize("asked", ["RAS", "SPL", "ILA", "file"])
@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["nii", "nii.gz", "nrrd"])
def test_a_map_lies_where_the_volume_lies(
    tmp_path: Path, kind: str, orientation: np.ndarray, asked: str
) -> None:
    """A voxel of the map has the millimetres of the same voxel of the volume."""
    save = save_nrrd if kind == "nrrd" else save_nifti
    path = save(tmp_path / f"v.{kind}", turned(orientation))
    whole = read_whole(path, asked)
    numbers = np.arange(whole.values.size, dtype=np.float32).reshape(whole.values.shape[:3])
    out = tmp_path / f"map{whole.suffix}"
    out.write_bytes(whole.encoded(numbers))
    back = loaded(out)
    assert back.dtype == np.float32
    assert back.shape == loaded(path).shape
    # The network's voxel (1, 2, 3) is one voxel of the file; both say where it is.
    in_file = loaded(path).astype(np.float32)
    (voxel,) = np.argwhere(back == numbers[1, 2, 3])
    assert in_file[tuple(voxel)] == whole.values[1, 2, 3, 0]
    unique = np.zeros_like(in_file)
    unique[tuple(voxel)] = 1
    np.testing.assert_allclose(
        place(out, back, numbers[1, 2, 3]), place(path, unique, 1), rtol=1e-6, atol=1e-5
    )
    read_again = read_whole(out, asked).values[..., 0]
    np.testing.assert_array_equal(read_again, numbers)


@pytest.mark.parametrize("space", ["RAS", "LAS", "left-posterior-superior"])
def test_spaces_of_nrrd_files_are_understood(tmp_path: Path, space: str) -> None:
    path = save_nrrd(tmp_path / "v.nrrd", turned(TURNS[4]), space)
    np.testing.assert_array_equal(read_whole(path).values[..., 0], VOLUME)
    np.testing.assert_allclose(Volume(path).affine, AFFINE, atol=1e-9)


def test_slices_of_nrrd_files_are_those_of_nifti_files(tmp_path: Path) -> None:
    image = turned(TURNS[7])
    (tmp_path / "images").mkdir()
    one = save_nrrd(tmp_path / "images" / "v.nrrd", image)
    other = save_nifti(tmp_path / "v.nii.gz", image)
    for plane in range(SHAPE[2]):
        np.testing.assert_array_equal(read_image(one, plane=plane), read_image(other, plane=plane))
    samples, skipped = find_samples(tmp_path / "images")
    assert [sample.id for sample in samples] == [f"v#z{plane:03d}" for plane in range(SHAPE[2])]
    assert skipped == []


def test_masks_of_either_kind_belong_to_volumes_of_either_kind(tmp_path: Path) -> None:
    labels = nib.Nifti1Image((VOLUME > 0).astype(np.uint8), AFFINE)
    change = nib.orientations.ornt_transform(CANONICAL, TURNS[5])
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    save_nifti(tmp_path / "images" / "a.nii.gz", turned(TURNS[2]))
    save_nrrd(tmp_path / "masks" / "a.nrrd", labels.as_reoriented(change))
    save_nrrd(tmp_path / "images" / "b.nrrd", turned(TURNS[9]))
    save_nifti(tmp_path / "masks" / "b.nii", labels)
    save_nrrd(tmp_path / "images" / "c.nrrd", turned(TURNS[9]))
    save_nrrd(tmp_path / "masks" / "c.nrrd", nib.Nifti1Image(labels.dataobj, np.eye(4)))
    samples, skipped = find_samples(tmp_path / "images", tmp_path / "masks")
    assert len(samples) == 2 * SHAPE[2]
    (apart,) = skipped
    assert "'c.nrrd' lies up to" in apart.reason
    for sample in samples:
        truth = read_mask(sample, ClassTable(("air", "tissue")))
        image = read_image(sample.image, plane=sample.plane)[..., 0]
        np.testing.assert_array_equal(truth, image > 0)


def test_bands_lie_along_any_axis_of_a_nrrd_file(tmp_path: Path) -> None:
    bands = RNG.random((2, *SHAPE)).astype(np.float32)
    for name, header in {
        "directions": {
            "space": "RAS",
            "space directions": np.vstack([np.full(3, np.nan), np.eye(3)]),
            "kinds": ["vector", "domain", "domain", "domain"],
        },
        "kinds": {"kinds": ["list", "space", "space", "space"], "spacings": [np.nan, 1, 2, 3]},
    }.items():
        path = tmp_path / f"{name}.nrrd"
        nrrd.write(str(path), bands, header)
        whole = read_whole(path)
        np.testing.assert_array_equal(whole.values, np.moveaxis(bands, 0, -1))
        (tmp_path / "out.nrrd").write_bytes(whole.encoded(bands[0]))
        values, written = nrrd.read(str(tmp_path / "out.nrrd"))
        np.testing.assert_array_equal(values, bands[0])
        assert list(written["sizes"]) == list(SHAPE)
        if name == "kinds":
            assert list(written["spacings"]) == [1, 2, 3]


def test_a_nrrd_file_without_a_space_is_taken_as_it_is(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "v.nrrd"), VOLUME)
    whole = read_whole(tmp_path / "v.nrrd")
    np.testing.assert_array_equal(whole.values[..., 0], VOLUME)


def test_what_tells_how_to_show_the_volume_is_not_kept_for_a_map(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOLUME, AFFINE)
    image.header["cal_max"], image.header["cal_min"] = 300, -200
    image.header.set_slope_inter(0.5, 10)
    image.set_sform(AFFINE, code="mni")
    path = save_nifti(tmp_path / "v.nii", image)
    whole = read_whole(path)
    np.testing.assert_allclose(whole.values[..., 0], VOLUME * 0.5 + 10, rtol=1e-6)
    tiny = np.full(SHAPE, 1e-9, np.float32)
    tiny[0, 0, 0] = np.nan
    (tmp_path / "m.nii.gz").write_bytes(whole.encoded(tiny))
    made = nib.load(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(np.asarray(made.dataobj), tiny)
    assert made.header["cal_max"] == made.header["cal_min"] == 0
    assert made.header["sform_code"] == 4
    np.testing.assert_allclose(made.affine, AFFINE, rtol=1e-6)
    assert made.header.get_zooms() == pytest.approx(np.linalg.norm(AFFINE[:3, :3], axis=0))


@pytest.mark.parametrize("wrong", ["RAL", "RA", "RASI", "", "XYZ", "files"])
def test_an_orientation_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(DataError, match="is no orientation"):
        check_orientation(wrong)


def test_nrrd_files_that_cannot_be_read_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.nrrd").write_bytes(b"NRRD0005\nrubbish")
    with pytest.raises(DataError, match=r"'bad.nrrd' can't be read as an NRRD volume"):
        read_whole(tmp_path / "bad.nrrd")
    nrrd.write(str(tmp_path / "flat.nrrd"), VOLUME[0])
    with pytest.raises(DataError, match=r"'flat.nrrd' can't be read: it has the sizes \(7, 4\)"):
        read_whole(tmp_path / "flat.nrrd")
    nrrd.write(str(tmp_path / "apart.nhdr"), VOLUME)
    (tmp_path / "apart.nhdr").rename(tmp_path / "apart.nrrd")
    with pytest.raises(DataError, match="its voxels lie in another file"):
        read_whole(tmp_path / "apart.nrrd")
    plain = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "nrrd":
            raise ImportError(name)
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"needs the package pynrrd; pip install \"unetcam\[nrrd\]"):
        read_whole(tmp_path / "flat.nrrd")
