"""Preprocessing does what its options say, can be written down, and can be undone."""

from __future__ import annotations

import math
import pickle
import re
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from unetcam.data import IGNORE, Preprocessing
from unetcam.errors import DataError

RNG = np.random.default_rng(4)
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

SIDES = st.integers(1, 70)
OPTIONS = st.builds(
    Preprocessing,
    channels=st.just(3),
    size=st.none() | st.tuples(SIDES, SIDES),
    mode=st.sampled_from(["pad", "resize"]),
    stride=st.sampled_from([1, 2, 8, 32]),
    mean=st.tuples(st.floats(-10, 10)) | st.tuples(*[st.floats(-10, 10)] * 3),
    std=st.tuples(st.floats(1e-3, 1e4)),
    max_value=st.none() | st.floats(1e-3, 1e6),
)


@given(OPTIONS)
@settings(max_examples=60, deadline=None)
def test_yaml_survives_the_round_trip(options: Preprocessing) -> None:
    assert Preprocessing.from_yaml(options.to_yaml()) == options


@given(OPTIONS, SIDES, SIDES)
@settings(max_examples=120, deadline=None)
def test_what_was_prepared_comes_back_in_size(
    options: Preprocessing, height: int, width: int
) -> None:
    image = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = RNG.integers(0, 4, (height, width))
    prepared = options(image, mask)
    assert prepared.mask is not None
    assert tuple(prepared.image.shape[1:]) == prepared.frame.padded == tuple(prepared.mask.shape)
    assert prepared.image.shape[1] % options.stride == 0
    assert prepared.image.shape[2] % options.stride == 0
    assert prepared.frame.restore(prepared.image).shape == (3, height, width)
    restored = prepared.frame.restore(prepared.mask, "nearest")
    assert restored.shape == (height, width)
    assert restored.min() >= 0  # no padding within the image's frame


@given(OPTIONS, SIDES, SIDES)
@settings(max_examples=120, deadline=None)
def test_the_frame_lies_where_the_pipeline_put_the_image(
    options: Preprocessing, height: int, width: int
) -> None:
    prepared = options(np.ones((height, width, 3), np.uint8), np.zeros((height, width), int))
    assert prepared.mask is not None
    rows, columns = torch.nonzero(prepared.mask != IGNORE, as_tuple=True)
    frame = prepared.frame
    assert (int(rows.min()), int(columns.min())) == frame.offset
    assert (int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1) == (
        frame.resized
    )


def test_padding_alone_is_undone_to_the_bit() -> None:
    image = RNG.random((20, 30, 3)).astype(np.float32)
    prepared = Preprocessing(stride=16)(image)
    assert torch.equal(
        prepared.frame.restore(prepared.image), torch.from_numpy(image).permute(2, 0, 1)
    )


def test_padding_is_zero_after_normalising_and_ignored_in_the_mask() -> None:
    prepared = Preprocessing(stride=16, **IMAGENET)(
        np.full((10, 16, 3), 200, np.uint8), np.ones((10, 16), int)
    )
    assert prepared.mask is not None
    outside = prepared.mask == IGNORE
    assert int(outside.sum()) == 6 * 16
    assert (prepared.image[:, outside] == 0).all()
    assert (prepared.image[:, ~outside] != 0).all()


@pytest.mark.parametrize(
    ("dtype", "largest"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1), (np.int16, 1)]
)
@pytest.mark.parametrize("max_value", [None, 4095.0])
def test_normalising_is_the_formula_of_the_docstring(
    dtype: type, largest: float, max_value: float | None
) -> None:
    image = RNG.integers(0, 120, (16, 16, 3)).astype(dtype)
    prepared = Preprocessing(stride=16, max_value=max_value, **IMAGENET)(image)
    mean, std = np.array(IMAGENET["mean"]), np.array(IMAGENET["std"])
    reference = (image / (max_value or largest) - mean) / std
    assert prepared.image.dtype == torch.float32
    np.testing.assert_allclose(
        prepared.image.permute(1, 2, 0).numpy(), reference, rtol=2e-5, atol=2e-5
    )


def test_resizing_is_what_a_training_pipeline_of_albumentations_does() -> None:
    image = RNG.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    training = A.Compose([A.Resize(64, 96), A.Normalize(**IMAGENET)])
    ours = Preprocessing(size=(64, 96), mode="resize", **IMAGENET)(image)
    reference = torch.from_numpy(training(image=image)["image"]).permute(2, 0, 1)
    torch.testing.assert_close(ours.image, reference, rtol=1e-5, atol=1e-5)


def test_fitting_keeps_the_aspect_and_resizing_does_not() -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    fitted = Preprocessing(size=(64, 64), mode="pad", stride=32)(image).frame
    assert (fitted.resized, fitted.offset, fitted.padded) == ((32, 64), (16, 0), (64, 64))
    stretched = Preprocessing(size=(64, 64), mode="resize", stride=32)(image).frame
    assert (stretched.resized, stretched.padded) == ((64, 64), (64, 64))


def test_without_a_size_resizing_goes_up_to_the_next_multiple() -> None:
    image = RNG.random((33, 64, 1)).astype(np.float32)
    prepared = Preprocessing(channels=1, mode="resize", stride=32)(image)
    reference = cv2.resize(image[..., 0], (64, 64), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(prepared.image[0].numpy(), reference, atol=1e-6)
    torch.testing.assert_close(
        prepared.image[None],
        F.interpolate(torch.from_numpy(image)[None, ..., 0][None], (64, 64), mode="bilinear"),
        atol=1e-5,
        rtol=0,
    )


def test_masks_are_resized_by_pixel_centres_and_never_mixed() -> None:
    mask = RNG.integers(0, 5, (20, 30))
    prepared = Preprocessing(channels=1, size=(32, 64), mode="resize")(
        np.zeros((20, 30, 1), np.uint8), mask
    )
    reference = F.interpolate(
        torch.from_numpy(mask)[None, None].double(), (32, 64), mode="nearest-exact"
    )
    assert prepared.mask is not None
    assert prepared.mask.dtype == torch.int64
    assert torch.equal(prepared.mask, reference[0, 0].long())


@pytest.mark.parametrize("channels", [1, 2, 5, 9])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_any_number_of_bands_of_any_type_goes_through(channels: int, dtype: type) -> None:
    image = RNG.integers(0, 200, (20, 30, channels)).astype(dtype)
    for mode in ("pad", "resize"):
        for size in (None, (24, 24)):
            prepared = Preprocessing(channels=channels, mode=mode, size=size, stride=8)(image)
            assert prepared.image.shape[0] == channels
            assert prepared.image.isfinite().all()


def test_statistics_of_every_channel_are_its_own() -> None:
    image = np.ones((8, 8, 2), np.float32)
    prepared = Preprocessing(channels=2, stride=8, mean=(0.0, 1.0), std=(0.5, 1.0))(image)
    assert prepared.image[0].unique().tolist() == [2.0]
    assert prepared.image[1].unique().tolist() == [0.0]


def test_the_callers_arrays_and_the_random_state_are_left_alone() -> None:
    image = RNG.random((9, 9, 3)).astype(np.float32)
    mask = RNG.integers(0, 3, (9, 9))
    before = image.copy(), mask.copy()
    np.random.seed(0)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    seeded = torch.get_rng_state()
    prepared = Preprocessing(stride=1)(image, mask)
    prepared.image.mul_(0)
    assert prepared.mask is not None
    prepared.mask.zero_()
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), seeded)


def test_options_are_hashable_and_picklable_after_use() -> None:
    options = Preprocessing(stride=8, **IMAGENET)
    image = RNG.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    first = options(image)
    again = pickle.loads(pickle.dumps(options))
    assert again == options
    assert hash(again) == hash(options)
    assert torch.equal(again(image).image, first.image)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mode": "crop"}, "The mode 'crop' is unknown; choose pad or resize"),
        ({"stride": 0}, "stride=0 is no whole number"),
        ({"channels": 1.5}, "channels=1.5 is no whole number"),
        ({"size": (0, 4)}, "size=0 is no whole number"),
        ({"size": (4,)}, "is no (height, width)"),
        ({"mean": (0.1, 0.2)}, "the network takes 3 channels"),
        ({"mean": (math.nan,)}, "finite"),
        ({"std": (0.0,)}, "not positive"),
        ({"max_value": -1.0}, "give a positive number"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=re.escape(reason)):
        Preprocessing(**options)


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="has 2 bands and the network takes 3"):
        Preprocessing()(np.zeros((8, 8, 2), np.uint8))
    with pytest.raises(DataError, match="The mask has the shape"):
        Preprocessing()(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9), int))


def test_a_yaml_that_says_two_things_is_refused() -> None:
    content = yaml.safe_load(Preprocessing(size=(64, 64), mode="resize").to_yaml())
    content["pipeline"]["transform"]["transforms"][0]["height"] = 96
    with pytest.raises(DataError, match="is not the one that its options give"):
        Preprocessing.from_yaml(yaml.safe_dump(content))
    del content["pipeline"]
    assert Preprocessing.from_yaml(yaml.safe_dump(content)).size == (64, 64)


@pytest.mark.filterwarnings("ignore:Argument")  # albumentations writes an argument it won't read
def test_the_pipeline_in_the_yaml_is_one_that_albumentations_reads() -> None:
    for options in (
        Preprocessing(size=(64, 64), mode="resize", **IMAGENET),
        Preprocessing(size=(64, 48), stride=16, **IMAGENET),
        Preprocessing(mode="resize", stride=16, max_value=300.0),
    ):
        image = RNG.integers(0, 256, (30, 50, 3), dtype=np.uint8)
        pipeline = A.from_dict(yaml.safe_load(options.to_yaml())["pipeline"])
        reference = torch.from_numpy(pipeline(image=image)["image"]).permute(2, 0, 1)
        assert torch.equal(options(image).image, reference)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "is no YAML"),
        ("3", "has no options"),
        ("{schema: 1, options: {strides: 3}}", "no option 'strides'"),
        ("{schema: 9, options: {}}", "has the schema 9"),
        ("{schema: 1, options: {stride: many}}", "wrong type"),
        ("{schema: 1, options: {mean: 3}}", "wrong type"),
        ("{schema: 1, options: {}, pipeline: 3}", "is not the one"),
        ("{schema: 1, options: {}, pipeline: {transform: {transforms: [1, 2, 3]}}}", "is not"),
        ("!!python/object/apply:os.system ['true']", "is no YAML"),
    ],
)
def test_a_yaml_with_faults_is_refused(text: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        Preprocessing.from_yaml(text)


@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.sampled_from([1, 3]),
    st.sampled_from([1, 2, 4, 5]),
    st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]),
    st.none() | st.floats(0.5, 2000),
)
@settings(max_examples=60, deadline=None)
def test_volumes_are_normalised_and_padded_in_the_middle_with_zeros(
    sides: tuple[int, ...], channels: int, stride: int, dtype: type, largest: float | None
) -> None:
    volume = RNG.integers(0, 250, (*sides, channels)).astype(dtype)
    mask = RNG.integers(-1, 3, sides)
    mean, std = (0.4, 0.3, 0.2)[:channels], (0.5, 0.25, 0.1)[:channels]
    prepare = Preprocessing(
        channels=channels, stride=stride, mean=mean, std=std, max_value=largest, dims=3
    )
    prepared = prepare(volume, mask)
    unit = largest or {np.uint8: 255, np.uint16: 65535}.get(dtype, 1)
    expected = (volume.astype(np.float64) / unit - mean) / std
    gaps = [-side % stride for side in sides]
    around = [(gap // 2, gap - gap // 2) for gap in gaps]
    filled = np.pad(expected.transpose(3, 0, 1, 2), [(0, 0), *around])
    assert prepared.image.dtype == torch.float32
    scale = np.abs(filled).max() + 1 / min(std)
    np.testing.assert_allclose(prepared.image.numpy(), filled, rtol=1e-5, atol=1e-6 * scale)
    assert prepared.mask is not None
    np.testing.assert_array_equal(prepared.mask, np.pad(mask, around, constant_values=IGNORE))
    assert torch.equal(prepared.frame.restore(prepared.mask, "nearest"), torch.from_numpy(mask))
    assert Preprocessing.from_yaml(prepare.to_yaml()) == prepare


def test_the_preprocessing_of_images_reads_as_before_there_were_volumes() -> None:
    assert "dims" not in Preprocessing().to_yaml()
    assert "dims: 3" in Preprocessing(dims=3).to_yaml()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dims": 1}, "There are 1 dimensions"),
        ({"dims": 3, "mode": "resize"}, "Volumes keep their size"),
        ({"dims": 3, "size": (8, 8)}, "Volumes keep their size"),
    ],
)
def test_volumes_are_not_resized(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        Preprocessing(**options)


def test_an_image_is_no_volume() -> None:
    with pytest.raises(DataError, match="has 2 spatial dimensions and the network 3"):
        Preprocessing(dims=3)(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match="has 3 spatial dimensions and the network 2"):
        Preprocessing()(np.zeros((4, 4, 4, 3), np.uint8))
