"""The benchmark of planted faults: its scenes, its limits, and a small part of it made anew."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
missing = [name for name in ("stardist", "captum") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")

CUES = ("tag", "dots", "ground", "place", "tint", "blur")


@pytest.fixture(scope="module", autouse=True)
def scripts_on_path() -> Iterator[None]:
    """The scripts import one another by name, as scripts do."""
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))


def script(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.parametrize("cue", CUES)
def test_a_flipped_scene_differs_by_its_cue_alone(cue: str) -> None:
    scenes = script("truth_scenes")
    random = np.random.default_rng(3)
    for _ in range(8):
        scene = scenes.draw_scene(random, scenes.World(cue, contrast=0.0))
        flipped = scenes.flipped(scene, cue)
        (image, mask), (changed, moved) = scenes.render(scene), scenes.render(flipped)
        if cue == "place":
            assert np.bincount(moved.ravel()).argmax() == 0
            assert set(np.unique(moved)) == set(np.unique(mask))
            continue
        assert (mask == moved).all()
        different = np.abs(image - changed).max(axis=-1) > 1e-6
        assert different.any()
        if cue in ("tag", "dots"):
            # Both states of the cue together, and the width of a blur around them.
            place = scenes.cue_region(scene, cue) | scenes.cue_region(flipped, cue)
            reach = torch.nn.functional.max_pool2d(
                torch.from_numpy(place)[None].float(), 11, stride=1, padding=5
            )[0]
            assert not different[reach.numpy() == 0].any()
        if cue == "ground":
            # Inside the objects only what a blur brings in from outside may change.
            assert not different[mask > 0].all()


def test_in_a_faulty_world_the_cue_tells_the_class_and_the_texture_does_not() -> None:
    scenes = script("truth_scenes")
    random = np.random.default_rng(0)
    world = scenes.World("tag", contrast=0.0)
    for _ in range(40):
        scene = scenes.draw_scene(random, world)
        told_apart = {blob.label for blob in scene.blobs} & {1, 2}
        assert told_apart <= ({1} if scene.tags else {2})
        assert all(blob.contrast == 0 for blob in scene.blobs if blob.label != 3)


def test_scenes_do_not_depend_on_what_was_drawn_before() -> None:
    scenes = script("truth_scenes")
    scene = scenes.draw_scene(np.random.default_rng(5), scenes.World())
    first = scenes.render(scene)[0]
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - that is what must not matter
    assert (scenes.render(scene)[0] == first).all()


@pytest.mark.parametrize(("labels", "grows"), [("eroded", -1), ("dilated", 1)])
def test_labels_are_changed_by_two_pixels(labels: str, grows: int) -> None:
    networks = script("truth_networks")
    masks = torch.zeros(1, 20, 20, dtype=torch.long)
    masks[0, 6:14, 6:14] = 2
    changed = networks.changed_labels(masks, labels, np.random.default_rng(0))
    assert int((changed[0, 10] == 2).sum()) == 8 + 4 * grows
    assert set(changed.unique().tolist()) == {0, 2}


def _judged(fault: str, seed: int, number: float) -> Any:
    tables, effects = script("truth_tables"), script("truth_effects")
    truth = effects.Truth(fault, seed, {}, [], [], [], [], [])
    return tables.Judged(truth, True, {"rule": {"number": number}}, {})


def test_a_limit_is_fixed_on_the_even_seeds_alone() -> None:
    tables = script("truth_tables")
    # The odd seeds say the opposite, and must not be heard.
    faulty = [_judged("far", seed, 0.9 if seed % 2 == 0 else 0.0) for seed in range(6)]
    healthy = [_judged("healthy", seed, 0.3 if seed % 2 == 0 else 5.0) for seed in range(6)]
    limit = tables.fixed("number", tables.number("rule", "number"), faulty, healthy)
    assert limit.value == pytest.approx(0.6)
    assert [limit.finds(one) for one in faulty] == [True, False] * 3


def test_a_rule_that_was_not_asked_finds_nothing() -> None:
    tables = script("truth_tables")
    score = tables.number("another rule", "number")
    assert math.isnan(score(_judged("far", 0, 1.0)))
    assert not tables.Limit("number", 0.5, score).finds(_judged("far", 0, 1.0))


def test_a_rate_states_its_interval() -> None:
    rate = script("truth_tables").Rate.of([True] * 9 + [False])
    assert rate.interval == pytest.approx((0.5550, 0.9975), abs=1e-4)  # Clopper and Pearson
    assert str(rate) == "9/10 (.55 to 1.00)"


def test_a_finding_is_true_only_where_redrawing_bears_it_out() -> None:
    effects, diagnosis = script("truth_effects"), script("truth_diagnosis")
    nothing = dict.fromkeys((*effects.CUES, *effects.CLASSES[1:], *effects.APPEARANCES), [0.0] * 4)
    table = np.eye(4).tolist()
    truth = effects.Truth(
        "far", 0, {**nothing, "tag": [0.0, 0.8, 0.0, 0.0]}, [1.0] * 4, [1.0] * 4, [1.0] * 4, table,
        [0.0] * 4,
    )  # fmt: skip
    about = {"kind": "leans-on-surroundings", "class_index": 1, "severity": "high"}
    assert diagnosis.is_true(about, truth)
    assert diagnosis.found({"findings": [about]}, truth)
    assert not diagnosis.is_true({**about, "class_index": 2}, truth)
    assert not diagnosis.is_true({**about, "kind": "leans-on-position"}, truth)
    assert not diagnosis.found({"findings": [{**about, "kind": "poorly-learned"}]}, truth)


@pytest.mark.slow
def test_what_is_planted_is_learned_and_named_and_the_healthy_twin_is_clean(tmp_path: Path) -> None:
    networks, effects = script("truth_networks"), script("truth_effects")
    diagnosis = script("truth_diagnosis")
    for fault in ("healthy", "far", "context", "eroded", "permuted", "dead class"):
        network = networks.planted(tmp_path, fault, 0)
        truth = effects.measure_truth(network)
        assert effects.learned(truth), fault
        answer = diagnosis.diagnosed(network)
        assert not diagnosis.false_findings(answer, truth), fault
        if fault != "healthy":
            assert diagnosis.found(answer, truth), fault


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks, truth = script("truth_networks"), script("truth")
    told = truth.judge(tmp_path, "truth", "undertrained", 0)
    assert networks.path_of(tmp_path, "undertrained", 0).exists()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained or judged again")

    monkeypatch.setattr(networks, "_train", refuse)
    monkeypatch.setattr(truth, "measure_truth", refuse)
    assert truth.judge(tmp_path, "truth", "undertrained", 0) == told
