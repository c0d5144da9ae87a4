"""Names that belong together by what other tools and data sets call them."""

from __future__ import annotations

from pathlib import Path

import pytest

from unetcam.data import ClassTable, Sample, Skipped, find_samples
from unetcam.errors import DataError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def pairs(samples: list[Sample]) -> dict[str, list[str]]:
    return {sample.id: [path.name for path in sample.mask_files] for sample in samples}


COMMON = {
    "nnU-Net": ("case_01_0000.png", "case_01.png"),
    "Cityscapes": ("a_000_leftImg8bit.png", "a_000_gtFine_labelIds.png"),
    "ISIC": ("ISIC_0000000.jpg", "ISIC_0000000_Segmentation.png"),
    "ISIC lower": ("ISIC_0000001.jpg", "ISIC_0000001_segmentation.png"),
    "Carvana": ("0cdf5b_01.jpg", "0cdf5b_01_mask.gif"),
    "numbers": ("image_0001.png", "mask_0001.png"),
    "numbers without a line": ("img12.png", "label12.png"),
    "a bare number": ("0001.png", "mask_0001.png"),
    "two suffixes": ("x.jpg", "x.jpg.png"),
    "DeepGlobe": ("1004_sat.jpg", "1004_mask.png"),
    "CamVid": ("0001TP_006690.png", "0001TP_006690_L.png"),
    "GlaS": ("train_1.bmp", "train_1_anno.bmp"),
    "DRIVE": ("21_training.tif", "21_manual1.gif"),
    "CHASE": ("Image_01L.jpg", "Image_01L_1stHO.png"),
    "BraTS": ("BraTS_001_flair.png", "BraTS_001_seg.png"),
    "capitals": ("IMG_7.PNG", "Mask_7.PNG"),
}


@pytest.mark.parametrize("kind", COMMON)
def test_common_names_pair_by_themselves(tmp_path: Path, kind: str) -> None:
    image, mask = COMMON[kind]
    touch(tmp_path, f"images/{image}", f"masks/{mask}", "images/other_9.png", "masks/other_9.png")
    samples, skipped = find_samples(tmp_path / "images", tmp_path / "masks")
    assert skipped == []
    assert [mask] in pairs(samples).values()
    assert ["other_9.png"] in pairs(samples).values()


@pytest.mark.parametrize("kind", COMMON)
def test_common_names_pair_within_one_folder(tmp_path: Path, kind: str) -> None:
    image, mask = COMMON[kind]
    if kind in ("nnU-Net", "DRIVE", "two suffixes", "a bare number"):
        pytest.skip("nothing in the mask's name says that it is one")
    touch(tmp_path, image, mask)
    samples, skipped = find_samples(tmp_path, tmp_path)
    assert skipped == []
    assert list(pairs(samples).values()) == [[mask]]


def test_a_mask_told_by_common_words_belongs_to_one_image_only(tmp_path: Path) -> None:
    touch(tmp_path, "images/c_0000.png", "images/c_t2.png", "masks/c.png")
    touch(tmp_path, "images/d_0000.png", "images/d.png", "masks/d.png")
    samples, skipped = find_samples(tmp_path / "images", tmp_path / "masks")
    assert pairs(samples) == {"d": ["d.png"]}
    assert [one.id for one in skipped] == ["c_0000", "c_t2", "d_0000"]
    assert all("stack the channels" in one.reason for one in skipped)
    assert skipped[0].options == ("manifest",)


def test_a_persons_pattern_rules(tmp_path: Path) -> None:
    touch(tmp_path, "images/a_rgb.png", "images/b.png", "masks/a_cls.png", "masks/a_rgb.png")
    folders = tmp_path / "images", tmp_path / "masks"
    samples, skipped = find_samples(*folders, pair="{stem}_rgb:{stem}_cls")
    assert pairs(samples) == {"a_rgb": ["a_cls.png"]}
    assert "is not called like the image of the pattern" in skipped[0].reason
    samples, _ = find_samples(*folders, pair="{stem}_cls")
    assert pairs(samples) == {"a_rgb": ["a_cls.png"]}
    touch(tmp_path, "masks/b_x.y.png")
    samples, _ = find_samples(*folders, mask_suffix="_x.y")
    assert pairs(samples) == {"b": ["b_x.y.png"]}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pair": "gtFine"}, "write the mask's name with {stem} once"),
        ({"pair": "{stem}{stem}"}, "write the mask's name with {stem} once"),
        ({"pair": "{stem}/a"}, "write the mask's name with {stem} once"),
        ({"pair": "{stem}_a", "mask_suffix": "_a"}, "give one of them"),
    ],
)
def test_a_pattern_that_makes_no_sense_is_told(
    tmp_path: Path, options: dict[str, str], words: str
) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png")
    with pytest.raises(DataError, match=words.replace("{", r"\{")) as error:
        find_samples(tmp_path / "images", tmp_path / "masks", **options)  # type: ignore[arg-type]
    assert set(options) <= set(error.value.options)


SHARED = {
    "names that end like a class": (
        ("img_0", "img_1", "t_cell", "b_border"),
        ClassTable(("0", "cell", "border")),
    ),
    "a class in the middle": (("cell_1", "cell_2"), ClassTable(("background", "cell"))),
}


@pytest.mark.parametrize("kind", SHARED)
def test_images_called_like_a_class_are_images_where_they_have_masks(
    tmp_path: Path, kind: str
) -> None:
    names, classes = SHARED[kind]
    touch(tmp_path, *(f"{n}.png" for n in names), *(f"{n}_mask.png" for n in names))
    samples, skipped = find_samples(tmp_path, tmp_path, classes=classes)
    assert skipped == []
    assert pairs(samples) == {name: [f"{name}_mask.png"] for name in sorted(names)}


def test_class_files_in_one_folder_are_masks_of_the_image_beside_them(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a_cell.png", "a_border.png", "b_cell.png", "b_cell_mask.png")
    classes = ClassTable(("background", "cell", "border"))
    samples, skipped = find_samples(tmp_path, tmp_path, classes=classes)
    assert skipped == []
    assert pairs(samples) == {"a": ["a_cell.png", "a_border.png"], "b_cell": ["b_cell_mask.png"]}


def test_every_image_of_a_shared_folder_is_a_sample_or_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a_mask.png", "b_mask.png", "c.png")
    samples, skipped = find_samples(tmp_path, tmp_path)
    assert pairs(samples) == {"a": ["a_mask.png"]}
    reasons = {one.id: one.reason for one in skipped}
    assert "is called like the mask of an image that isn't there" in reasons["b_mask"]
    assert "has no mask called 'c'" in reasons["c"]


def test_an_unpaired_image_is_told_what_the_folder_holds_and_every_way_out(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "masks/quite_other.png", "masks/more.png")
    _, skipped = find_samples(tmp_path / "images", tmp_path / "masks")
    (one,) = skipped
    assert isinstance(one, Skipped)
    assert "which holds '" in one.reason
    assert one.options == ("mask_suffix", "pair", "manifest")
    touch(tmp_path, "images/b.png")
    (tmp_path / "empty").mkdir()
    _, skipped = find_samples(tmp_path / "images", tmp_path / "empty")
    assert all("holds no masks at all" in one.reason for one in skipped)
