"""Values brought to what a network was trained on, against NumPy's own arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unetcam.data import Item, Preprocessing, open_source
from unetcam.data.normalisation import PRESETS, normalised, parse_normalisation
from unetcam.errors import DataError

VALUES = np.random.default_rng(0).normal(300, 200, (20, 30, 2)).astype(np.float32)
VALUES[:5] = 0


def run(text: str) -> np.ndarray:
    return normalised(VALUES, parse_normalisation(text))


def test_each_step_is_what_its_name_says() -> None:
    mean, deviation = VALUES.mean((0, 1)), VALUES.std((0, 1))
    np.testing.assert_allclose(run("zscore"), (VALUES - mean) / deviation, atol=1e-5)
    low, high = VALUES.min((0, 1)), VALUES.max((0, 1))
    np.testing.assert_allclose(run("minmax"), (VALUES - low) / (high - low), atol=1e-6)
    window = np.clip(VALUES, -160, 240)
    np.testing.assert_allclose(run("window:-160:240"), (window + 160) / 400, atol=1e-6)
    np.testing.assert_allclose(run("clip:-160:240"), window)
    low, high = np.percentile(VALUES, (2, 90), axis=(0, 1))
    expected = (np.clip(VALUES, low, high) - low) / (high - low)
    np.testing.assert_allclose(run("percentile:2:90"), expected, atol=1e-5)
    chained = (window - window.mean((0, 1))) / window.std((0, 1))
    np.testing.assert_allclose(run("clip:-160:240, zscore"), chained, atol=1e-5)


def test_zeros_stay_zero_where_only_the_others_count() -> None:
    result = run("zscore:nonzero")
    inside = VALUES != 0
    assert not result[~inside].any()
    for channel in range(2):
        part = VALUES[..., channel][inside[..., channel]]
        expected = (part - part.mean()) / part.std()
        np.testing.assert_allclose(result[..., channel][inside[..., channel]], expected, atol=1e-5)


@pytest.mark.parametrize("text", ["zscore", "minmax", "percentile:1:99", "zscore:nonzero"])
def test_one_value_only_becomes_zero_and_never_nan(text: str) -> None:
    for value in (0.0, 7.0):
        result = normalised(np.full((4, 4, 1), value), parse_normalisation(text))
        assert not result.any()


@pytest.mark.parametrize(
    "text",
    [
        *("zscor", "zscore:1", "window:5", "window:5:1", "percentile:-1:99", "percentile:1:101"),
        *("minmax:nonzero", "clip:a:b", "window:nan:1", "zscore,,minmax", "zscore:slice:slice"),
        *("", ","),
    ],
)
def test_a_step_that_is_none_is_told(text: str) -> None:
    with pytest.raises(DataError, match="normalise=") as error:
        parse_normalisation(text)
    assert error.value.options == ("normalise",)


def test_presets_stand_for_their_mean_and_deviation() -> None:
    for name, (mean, std) in PRESETS.items():
        named = Preprocessing(normalise=name, stride=1)
        plain = Preprocessing(mean=mean, std=std, stride=1)
        pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        assert named(pixels).image.equal(plain(pixels).image)
        assert Preprocessing.from_yaml(named.to_yaml()) == named
    with pytest.raises(DataError, match="for 3 channels and the network takes 1"):
        Preprocessing(normalise="imagenet", channels=1)
    with pytest.raises(DataError, match="leave out mean= and std="):
        Preprocessing(normalise="imagenet", mean=(0.5,))
    with pytest.raises(DataError, match="leave out one of the two"):
        Preprocessing(normalise="zscore", max_value=255.0)


def test_steps_take_the_values_as_they_are_before_resizing() -> None:
    prepare = Preprocessing(channels=2, stride=32, normalise="window:0:1000")
    prepared = prepare(VALUES)
    assert prepared.image.shape == (2, 32, 32)
    restored = prepared.frame.restore(prepared.image).numpy()
    expected = np.clip(VALUES, 0, 1000) / 1000
    np.testing.assert_allclose(np.moveaxis(restored, 0, -1), expected, atol=1e-6)


def test_a_slice_has_the_statistics_of_its_volume_unless_told(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    volume = np.random.default_rng(0).normal(50, 9, (8, 8, 3)).astype(np.float32)
    volume[..., 1] += 100
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "v.nii.gz")
    for text, own in (("zscore", False), ("zscore:slice", True)):
        prepare = Preprocessing(channels=1, stride=1, normalise=text)
        source = open_source(tmp_path)
        dataset = source.dataset(source.settled(prepare))
        for number in range(3):
            item = dataset[number]
            assert isinstance(item, Item)
            part = volume[..., number] if own else volume
            expected = (volume[..., number].mean() - part.mean()) / part.std()
            assert float(item.prepared.image.mean()) == pytest.approx(expected, abs=1e-4)
