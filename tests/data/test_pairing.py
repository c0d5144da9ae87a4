"""Images find their masks, and what can't be paired is told by name."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unetcam.data import IGNORE, ClassTable, Sample, Skipped, find_samples, require_any
from unetcam.errors import DataError

CLASSES = ClassTable(("background", "grey matter", "white"))


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def pairs(samples: list[Sample], root: Path) -> dict[str, str | None]:
    return {
        sample.id: None
        if sample.mask is None
        else " ".join(path.relative_to(root).as_posix() for path in sample.files[1:])
        for sample in samples
    }


def find(root: Path, classes: ClassTable | None = None) -> tuple[list[Sample], list[Skipped]]:
    return find_samples(root / "images", root / "masks", classes=classes)


def test_images_pair_by_their_path_below_the_folder_in_any_format(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/x/a.JPG", "images/b.TIFF")
    touch(tmp_path, "masks/a.tif", "masks/x/a.png", "masks/b.npy", "masks/unused.png")
    samples, skipped = find(tmp_path)
    assert pairs(samples, tmp_path) == {
        "a": "masks/a.tif",
        "b": "masks/b.npy",
        "x/a": "masks/x/a.png",
    }
    assert skipped == []


@pytest.mark.parametrize("ending", ["_mask", "_masks", "_label", "_labels", "_seg", "_gt"])
def test_usual_endings_of_masks_are_understood(tmp_path: Path, ending: str) -> None:
    touch(tmp_path, "images/a.jpg", f"masks/a{ending}.png")
    samples, _ = find(tmp_path)
    assert pairs(samples, tmp_path) == {"a": f"masks/a{ending}.png"}


def test_a_mask_in_another_subfolder_is_taken_if_its_name_is_the_only_one(tmp_path: Path) -> None:
    touch(tmp_path, "images/x/a.png", "images/x/b.png", "images/y/b.png")
    touch(tmp_path, "masks/a.png", "masks/b.png")
    samples, skipped = find(tmp_path)
    assert pairs(samples, tmp_path) == {"x/a": "masks/a.png"}
    assert [entry.id for entry in skipped] == ["x/b", "y/b"]


def test_ambiguity_is_reported_with_the_candidates(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/a.jpg", "images/b.png")
    touch(tmp_path, "masks/a.png", "masks/b.png", "masks/b.tif")
    samples, skipped = find(tmp_path)
    assert samples == []
    reasons = {entry.id: entry.reason for entry in skipped}
    assert "'a.jpg', 'a.png' share the name" in reasons["a.jpg"]
    assert reasons["a.jpg"] == reasons["a.png"]
    assert reasons["b"].startswith("The image 'b.png' has 2 masks ('b.png', 'b.tif')")


def test_an_image_without_a_mask_is_reported(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "masks/b.png")
    _, skipped = find(tmp_path)
    assert skipped == [
        Skipped(
            "a",
            str(tmp_path / "images/a.png"),
            "the image 'a.png' has no mask called 'a' in 'masks', which holds 'b.png'; add or "
            "rename it, say how masks are called with mask_suffix= or pair=, or name both in a "
            "table with manifest=",
        )
    ]


def test_hidden_and_foreign_files_are_passed_over_and_other_images_named(tmp_path: Path) -> None:
    touch(tmp_path, "images/.DS_Store", "images/._a.png", "images/.hidden/b.png", "images/a.png")
    touch(tmp_path, "images/__MACOSX/c.png", "images/Thumbs.db", "images/notes.txt")
    touch(tmp_path, "images/d.heic")
    samples, skipped = find_samples(tmp_path / "images")
    assert [sample.id for sample in samples] == ["a"]
    assert [(entry.id, "'d.heic' is of a kind" in entry.reason) for entry in skipped] == [
        ("d", True)
    ]


def test_without_masks_images_of_one_stem_keep_their_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/a.tif", "images/b.png")
    samples, _ = find_samples(tmp_path / "images")
    assert [sample.id for sample in samples] == ["a.png", "a.tif", "b"]


def test_odd_names_pair_and_give_printable_ids(tmp_path: Path) -> None:
    name = "<script>alert(1)<"
    touch(tmp_path, f"images/{name}.png", f"masks/{name}.PNG", "images/a\nb.png", "masks/a\nb.png")
    composed = unicodedata.normalize("NFC", "größe")
    apart = unicodedata.normalize("NFD", "größe")
    touch(tmp_path, f"images/{apart}.png", f"masks/{composed}.png")
    bad = os.fsencode(tmp_path / "images") + b"/\xff.png"
    Path(os.fsdecode(bad)).write_bytes(b"x")
    samples, skipped = find(tmp_path)
    assert [sample.id for sample in samples] == [name, "a\\nb", composed]
    assert len(skipped) == 1
    for text in (skipped[0].id, skipped[0].file, skipped[0].reason):
        text.encode("utf-8")


def test_links_are_followed_and_a_loop_ends(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/b.png", "images/a.png")
    (tmp_path / "images/more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere/loop").symlink_to(tmp_path / "images", target_is_directory=True)
    samples, _ = find_samples(tmp_path / "images")
    assert [sample.id for sample in samples] == ["a", "more/b"]


@pytest.mark.parametrize(
    "layout",
    ["{name}/x/a", "x/a_{name}", "x/a-{name}", "x/a/{name}"],
    ids=["folder", "underscore", "hyphen", "own folder"],
)
def test_one_file_per_class_is_found_in_each_layout(tmp_path: Path, layout: str) -> None:
    touch(tmp_path, "images/x/a.png")
    touch(tmp_path / "masks", layout.format(name="grey_matter") + ".png")
    touch(tmp_path / "masks", layout.format(name="white") + ".png")
    samples, skipped = find(tmp_path, CLASSES)
    assert skipped == []
    assert samples[0].mask_classes == (1, 2)
    assert "white" in str(samples[0].files[2])
    assert samples[0].unlabelled == 0


def test_unlabelled_pixels_are_ignored_once_the_background_has_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/b.png", "masks/background/a.png")
    touch(tmp_path, "masks/white/a.png", "masks/white/b.png")
    samples, _ = find(tmp_path, CLASSES)
    assert [sample.unlabelled for sample in samples] == [IGNORE, IGNORE]


def test_a_file_called_like_another_image_is_not_a_class_file(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/a_white.png", "masks/a.png", "masks/a_white.png")
    samples, _ = find(tmp_path, CLASSES)
    assert pairs(samples, tmp_path) == {"a": "masks/a.png", "a_white": "masks/a_white.png"}


def test_a_mask_and_class_files_together_are_ambiguous(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png", "masks/white/a.png")
    touch(tmp_path, "images/b.png", "masks/white/b.png", "masks/b_white.png")
    samples, skipped = find(tmp_path, CLASSES)
    assert samples == []
    assert "has a mask of its own, 'a.png', and files per class" in skipped[0].reason
    assert "has 2 masks for one class" in skipped[1].reason


def test_images_and_masks_may_share_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a_mask.png", "b.png", "b_mask.png")
    samples, skipped = find_samples(tmp_path, tmp_path)
    assert pairs(samples, tmp_path) == {"a": "a_mask.png", "b": "b_mask.png"}
    assert skipped == []


def test_masks_may_lie_below_the_images_and_the_other_way_round(tmp_path: Path) -> None:
    touch(tmp_path / "one", "a.png", "masks/a.png")
    samples, skipped = find_samples(tmp_path / "one", tmp_path / "one/masks")
    assert (pairs(samples, tmp_path / "one"), skipped) == ({"a": "masks/a.png"}, [])
    touch(tmp_path / "two", "a.png", "images/a.png")
    samples, skipped = find_samples(tmp_path / "two/images", tmp_path / "two")
    assert (pairs(samples, tmp_path / "two"), skipped) == ({"a": "a.png"}, [])


def test_a_single_image_takes_a_mask_file_or_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "other.png", "masks/a.png")
    samples, _ = find_samples(tmp_path / "a.png", tmp_path / "other.png")
    assert pairs(samples, tmp_path) == {"a": "other.png"}
    samples, _ = find_samples(tmp_path / "a.png", tmp_path / "masks")
    assert pairs(samples, tmp_path) == {"a": "masks/a.png"}


def test_csv_and_json_manifests_say_the_same(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "truth/1.png", "images/b.png", "truth/2.png")
    sets = tmp_path / "sets"
    sets.mkdir()
    (sets / "m.csv").write_text(
        "Image,Mask,split\n../images/a.png,../truth/1.png,x\n../images/b.png,../truth/2.png,y\n"
    )
    (sets / "n.csv").write_text("image;mask\n../images/a.png;../truth/1.png\n../images/b.png;\n")
    rows = [
        {"image": "../images/a.png", "mask": "../truth/1.png"},
        {"image": "../images/b.png", "mask": "../truth/2.png"},
    ]
    (sets / "m.json").write_text(json.dumps(rows))
    by_csv = find_samples(manifest=sets / "m.csv")
    assert by_csv == find_samples(manifest=sets / "m.json")
    assert [sample.id for sample in by_csv[0]] == ["images/a", "images/b"]
    assert all(path.exists() for sample in by_csv[0] for path in sample.files)
    samples, skipped = find_samples(manifest=sets / "n.csv")
    assert [sample.id for sample in samples] == ["images/a"]
    assert "'b.png' has no mask" in skipped[0].reason


def test_manifest_without_masks_with_ids_and_with_masks_per_class(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("id,image\nfirst,a.png\nsecond,a.png\n")
    samples, _ = find_samples(manifest=tmp_path / "m.csv")
    assert [(sample.id, sample.mask) for sample in samples] == [("first", None), ("second", None)]
    mask = {"white": "w.png", "grey matter": "g.png"}
    (tmp_path / "m.json").write_text(json.dumps([{"image": "a.png", "mask": mask}]))
    samples, _ = find_samples(manifest=tmp_path / "m.json", classes=CLASSES)
    assert samples[0].mask_classes == (1, 2)
    assert [path.name for path in samples[0].files] == ["a.png", "g.png", "w.png"]
    mask["black"] = "b.png"
    (tmp_path / "m.json").write_text(json.dumps([{"image": "a.png", "mask": mask}]))
    assert "'black'" in find_samples(manifest=tmp_path / "m.json", classes=CLASSES)[1][0].reason


def test_manifest_entries_with_faults_are_skipped_by_name(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image,mask\na.png,m.png\na.png,n.png\n,m.png\nb.png,m.png\n")
    samples, skipped = find_samples(manifest=tmp_path / "m.csv")
    assert [sample.id for sample in samples] == ["b"]
    assert sum("stands 2 times" in entry.reason for entry in skipped) == 2
    assert sum("has no image" in entry.reason for entry in skipped) == 1
    assert len({entry.id for entry in skipped}) == 3


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.csv", "picture,mask\na,b\n", "has no column 'image'"),
        ("m.csv", "image,mask\n", "lists no image"),
        ("m.json", "{", "can't be read; save it as JSON"),
        ("m.json", '{"image": "a.png"}', "is no list of entries"),
        ("m.xlsx", "x", "is neither .csv nor .json"),
    ],
)
def test_manifests_that_are_none_are_refused(
    tmp_path: Path, name: str, content: str, reason: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=re.escape(reason)):
        find_samples(manifest=tmp_path / name)


def test_what_was_asked_for_has_to_make_sense(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "m.csv", "a.heic")
    for arguments, reason in [
        ((tmp_path / "gone",), "There is no file or folder 'gone'"),
        ((tmp_path / "images", tmp_path / "gone"), "There is no file or folder 'gone'"),
        ((tmp_path / "images", tmp_path / "m.csv"), "give a folder of masks"),
        ((tmp_path / "a.heic",), "of a kind that isn't read"),
        ((), "No images were given"),
    ]:
        with pytest.raises(DataError, match=reason):
            find_samples(*arguments)
    with pytest.raises(DataError, match="give it alone"):
        find_samples(tmp_path / "images", manifest=tmp_path / "m.csv")


def test_nothing_left_is_an_error_that_shows_the_first_reasons() -> None:
    skipped = [Skipped(f"{n}", f"{n}.png", f"'{n}.png' is empty") for n in range(5)]
    with pytest.raises(DataError) as error:
        require_any([], skipped)
    assert str(error.value) == (
        "No image is left to work on: 5 were skipped ('0.png' is empty; '1.png' is empty; "
        "'2.png' is empty; and 2 more)."
    )
    require_any([Sample("a", Path("a.png"))], skipped)
    with pytest.raises(DataError, match="No image was found"):
        require_any([], [])


def test_a_found_pair_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "images/a.PNG", "PNG")
    samples, _ = find_samples(tmp_path / "images")
    assert samples[0].files[0].read_bytes().startswith(b"\x89PNG")
