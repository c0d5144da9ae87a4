from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file, save_model
from torch import nn

from unetcam.errors import ModelError
from unetcam.models import load_model
from unetcam.models.checkpoints import load_checkpoint

State = dict[str, torch.Tensor]


class Net(nn.Module):
    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images))


class Wrapper(nn.Module):
    """A network whose own names begin like a wrapper's prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Net()
        self.net = nn.Conv2d(2, 2, 1)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight


class WithExtraState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.classes: list[str] = []

    def get_extra_state(self) -> list[str]:
        return self.classes

    def set_extra_state(self, state: list[str]) -> None:
        self.classes = state


def numbers(model: nn.Module, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(value.shape, generator=generator).mul(9).to(value.dtype)
        for name, value in model.state_dict().items()
    }


def assert_holds(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    state = model.state_dict()
    assert state.keys() == weights.keys()
    for name, value in weights.items():
        assert torch.equal(state[name], value), name


def prefixed(prefix: str, weights: State) -> State:
    return {prefix + name: value for name, value in weights.items()}


@pytest.fixture
def weights() -> State:
    return numbers(Net())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "best.pt"


def load(content: Any, path: Path, *, model: nn.Module | None = None, **options: Any) -> nn.Module:
    torch.save(content, path)
    model = Net() if model is None else model
    load_checkpoint(model, path, **options)
    return model


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".pth.tar"])
def test_reads_what_torch_saved(suffix: str, weights: State, tmp_path: Path) -> None:
    assert_holds(load(weights, tmp_path / f"best{suffix}"), weights)


def test_reads_safetensors(weights: State, tmp_path: Path) -> None:
    save_file(weights, tmp_path / "best.safetensors")
    model = Net()
    load_checkpoint(model, tmp_path / "best.safetensors")
    assert_holds(model, weights)


def test_reads_half_precision_into_the_networks_own(weights: State, path: Path) -> None:
    model = load({name: value.half() for name, value in weights.items()}, path)
    assert model.head.weight.dtype == torch.float32
    assert torch.equal(model.head.weight, weights["head.weight"].half().float())


@pytest.mark.parametrize(
    "key", ["state_dict", "model_state_dict", "model", "net", "network", "weights", "anything"]
)
def test_finds_nested_weights(key: str, weights: State, path: Path) -> None:
    optimiser = torch.optim.Adam(Net().parameters()).state_dict()
    nested = {"epoch": 3, "optimizer": optimiser, "loss": torch.tensor(0.5), key: weights}
    assert_holds(load(nested, path), weights)


def test_finds_weights_nested_twice(weights: State, path: Path) -> None:
    assert_holds(load({"run": {"model": OrderedDict(weights)}}, path), weights)


def test_leaves_out_what_a_script_stored_beside_the_tensors(weights: State, path: Path) -> None:
    assert_holds(load({**weights, "mask_values": [0, 255], "epoch": 4}, path), weights)


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "model.",
        "net.",
        "_orig_mod.",
        "module.model.",
        "model.model.",
        "model._orig_mod.",
    ],
)
def test_takes_prefixes_off(prefix: str, weights: State, path: Path) -> None:
    assert_holds(load({"state_dict": prefixed(prefix, weights)}, path), weights)


@settings(max_examples=40, deadline=None)
@given(
    prefixes=st.lists(st.sampled_from(["module.", "model.", "net.", "_orig_mod."]), max_size=3),
    keys=st.lists(st.sampled_from(["state_dict", "model", "net", "x"]), max_size=2),
)
def test_any_nesting_and_prefix_gives_the_same_weights(
    prefixes: list[str], keys: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    weights = numbers(Net())
    content: Any = prefixed("".join(prefixes), weights)
    for key in keys:
        content = {key: content, "epoch": 1}
    assert_holds(load(content, tmp_path_factory.getbasetemp() / "any.pt"), weights)


def test_takes_compiled_parts_names_off_in_the_middle(weights: State, path: Path) -> None:
    compiled = {name.replace("body.", "body._orig_mod."): v for name, v in weights.items()}
    assert_holds(load(compiled, path), weights)


def test_leaves_the_training_modules_other_weights_out(weights: State, path: Path) -> None:
    lightning = {
        **prefixed("model.", weights),
        "criterion.weight": torch.ones(2),
        "ema.head.bias": torch.zeros(2),
    }
    assert_holds(load({"state_dict": lightning, "epoch": 1}, path), weights)


def test_understands_a_prefix_on_some_names_only(weights: State, path: Path) -> None:
    mixed = {f"module.{n}" if n.startswith("body") else n: v for n, v in weights.items()}
    assert_holds(load(mixed, path), weights)


def test_keeps_a_prefix_that_is_the_networks_own(path: Path) -> None:
    weights = numbers(Wrapper())
    assert_holds(load(weights, path, model=Wrapper()), weights)
    assert_holds(load(prefixed("model.", weights), path, model=Wrapper()), weights)


def test_takes_the_nested_weights_that_fit(weights: State, path: Path) -> None:
    gan = {"discriminator": numbers(nn.Conv2d(1, 1, 1)), "generator": weights}
    assert_holds(load(gan, path), weights)


def test_takes_the_customary_key_of_several_that_fit(weights: State, path: Path) -> None:
    averaged = numbers(Net(), seed=1)
    assert_holds(load({"ema": averaged, "state_dict": weights}, path), weights)


def test_several_that_fit_without_a_customary_key_are_named(weights: State, path: Path) -> None:
    with pytest.raises(ModelError, match=r"several sets .*\(teacher, student\): .*key='teacher'"):
        load({"teacher": weights, "student": numbers(Net(), seed=1)}, path)


@pytest.mark.parametrize("key", ["ema", "run.ema", "a.b"])
def test_key_says_which_to_take(key: str, weights: State, path: Path) -> None:
    averaged = numbers(Net(), seed=1)
    content = {"model": weights, "ema": averaged, "run": {"ema": averaged}, "a.b": averaged}
    assert_holds(load(content, path, key=key), averaged)


def test_unknown_key_names_those_there_are(weights: State, path: Path) -> None:
    with pytest.raises(ModelError, match=r"no key 'emma'; it holds model, ema"):
        load({"model": weights, "ema": weights}, path, key="emma")


def test_key_without_weights_is_refused(weights: State, path: Path) -> None:
    with pytest.raises(ModelError, match="holds no weights"):
        load({"model": weights, "epoch": 3}, path, key="epoch")


def test_tied_weights_that_safetensors_stores_once(tmp_path: Path) -> None:
    saved, model = Tied(), Tied()
    save_model(saved, str(tmp_path / "tied.safetensors"))
    load_checkpoint(model, tmp_path / "tied.safetensors")
    assert_holds(model, saved.state_dict())
    assert model.second.weight is model.first.weight


def test_extra_state_is_kept(path: Path) -> None:
    saved = WithExtraState()
    saved.classes = ["a", "b"]
    assert load(saved.state_dict(), path, model=WithExtraState()).classes == ["a", "b"]


def test_older_networks_without_batch_counts_load(weights: State, path: Path) -> None:
    older = {n: v for n, v in weights.items() if not n.endswith("num_batches_tracked")}
    model = load(older, path)
    assert torch.equal(model.body[1].running_var, weights["body.1.running_var"])


def test_smp_names_of_older_timm_encoders_load(path: Path) -> None:
    arguments = {"encoder_name": "tu-regnetx_002"}
    model = load_model("smp:Unet", model_args=arguments)
    weights = numbers(model)
    older = {
        name.replace("encoder.model.", "encoder."): value.clone() for name, value in weights.items()
    }
    assert older.keys() != weights.keys()
    torch.save(older, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        deprecated = {"encoder_name": "timm-regnetx_002"}
        loaded = load_model("smp:Unet", model_args=deprecated, checkpoint=path)
    assert_holds(loaded, weights)


@pytest.mark.parametrize(
    "prefix", ["unet.", "ema_model.", "student.", "segmentor.", "_forward_module.", "a.b.c."]
)
def test_takes_any_common_prefix_off(prefix: str, weights: State, path: Path) -> None:
    assert_holds(load({"state_dict": prefixed(prefix, weights)}, path), weights)


def test_finds_a_file_without_the_prefix_that_the_network_has(path: Path) -> None:
    weights = numbers(Net())
    model = load(weights, path, model=nn.Sequential(OrderedDict(unet=Net())))
    assert_holds(model, prefixed("unet.", weights))


def test_takes_one_prefix_for_another(path: Path) -> None:
    weights = numbers(Net())
    model = load(prefixed("net.", weights), path, model=nn.Sequential(OrderedDict(unet=Net())))
    assert_holds(model, prefixed("unet.", weights))


@pytest.mark.parametrize(
    "wrapper", ["module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"]
)
def test_takes_a_wrapped_parts_name_off_in_the_middle(
    wrapper: str, weights: State, path: Path
) -> None:
    inner = {name.replace("body.", f"body.{wrapper}."): v for name, v in weights.items()}
    assert_holds(load(inner, path), weights)


class TestChoice:
    """What is taken of a file that holds more than the network."""

    def said(self, content: Any, path: Path, **options: Any) -> tuple[Net, str]:
        torch.save(content, path)
        model = Net()
        return model, " ".join(load_checkpoint(model, path, **options))

    def test_the_part_that_was_taken_is_named(self, weights: State, path: Path) -> None:
        beside = {"loss.weight": torch.ones(2), "teacher.head.weight": torch.ones(3, 4, 1, 1)}
        model, said = self.said({**prefixed("student.", weights), **beside}, path)
        assert_holds(model, weights)
        assert "under 'student' were taken, and 2 others left out (those of loss, teacher)" in said

    def test_nothing_is_said_where_there_is_nothing_else(self, weights: State, path: Path) -> None:
        assert self.said({"state_dict": prefixed("unet.", weights), "epoch": 3}, path)[1] == ""

    def test_two_parts_that_fit_are_asked_about(self, weights: State, path: Path) -> None:
        ema = numbers(Net(), seed=1)
        content = {**prefixed("student.", weights), **prefixed("ema.", ema)}
        with pytest.raises(ModelError, match=r"several sets .*\(ema, student\): .*key='ema'"):
            load(content, path)
        assert_holds(load(content, path, key="ema"), ema)
        assert_holds(load({"state_dict": content}, path, key="student"), weights)
        assert_holds(load({"state_dict": content}, path, key="state_dict.ema"), ema)

    def test_two_parts_that_are_alike_are_one(self, weights: State, path: Path) -> None:
        assert_holds(load({**prefixed("a.", weights), **prefixed("b.", weights)}, path), weights)

    def test_a_customary_part_is_taken_and_the_other_named(
        self, weights: State, path: Path
    ) -> None:
        ema = numbers(Net(), seed=1)
        content = {**prefixed("ema.", ema), **prefixed("model.", weights)}
        model, said = self.said(content, path)
        assert_holds(model, weights)
        assert "under 'model' were taken; key= names another (ema)" in said

    def test_a_teacher_beside_plain_names_is_left_out(self, weights: State, path: Path) -> None:
        content = {**weights, **prefixed("teacher.", numbers(Net(), seed=1))}
        assert_holds(load(content, path), weights)

    def test_shapes_tell_parts_apart(self, weights: State, path: Path) -> None:
        larger = numbers(Net(classes=5), seed=1)
        content = {**prefixed("a.", larger), **prefixed("b.", weights)}
        assert_holds(load(content, path), weights)

    def test_counters_are_left_out_with_a_word(self, weights: State, path: Path) -> None:
        counts = {
            f"{at}total_{what}": torch.zeros(1, dtype=torch.float64)
            for at in ("", "body.", "body.0.", "head.")
            for what in ("ops", "params")
        }
        model, said = self.said({**weights, **counts}, path)
        assert_holds(model, weights)
        assert "8 counters" in said
        assert "thop" in said


ODD = {
    "whole numbers": lambda tensor: tensor.to(torch.int8),
    "complex numbers": lambda tensor: tensor.to(torch.complex64),
    "sparse": lambda tensor: tensor.to_sparse(),
    "placeholders": lambda tensor: tensor.to("meta"),
}


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("kind", ODD)
def test_values_that_would_be_changed_in_silence_are_refused(
    kind: str, partial: bool, weights: State, path: Path
) -> None:
    weights["head.weight"] = ODD[kind](weights["head.weight"])
    with pytest.raises(ModelError, match=rf"1 of the weights .* are {kind}.*\(head.weight\)"):
        load(weights, path, partial=partial)


def test_an_averaged_network_loads(weights: State, path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(Net())
    averaged.module.load_state_dict(weights)
    assert_holds(load(averaged.state_dict(), path), weights)


class TestPartial:
    def test_what_is_missing_is_named_by_weight(self, weights: State, path: Path) -> None:
        some = {n: v for n, v in weights.items() if n.startswith("body.1")}
        del some["body.1.num_batches_tracked"]
        with pytest.raises(ModelError, match=r"missing keys: 4 .*partial=True"):
            load(some, path)
        torch.save({**some, "other.weight": torch.ones(3)}, path)
        model = Net()
        model.register_buffer("position_index", torch.arange(99))
        before = model.body[0].weight.clone()
        said = " ".join(load_checkpoint(model, path, partial=True))
        assert torch.equal(model.body[1].running_var, weights["body.1.running_var"])
        assert torch.equal(model.body[0].weight, before)
        order = [
            said.index(one) for one in ("body.0.weight with 21.7 %", "head.weight", "head.bias")
        ]
        assert order == sorted(order)
        assert "1 counters or positions (position_index)" in said
        assert "1 weights of best.pt are none of the network's" in said
        assert "other.weight" in said

    def test_another_shape_stays_as_it_was(self, weights: State, path: Path) -> None:
        model = Net(classes=5)
        torch.save(weights, path)
        said = " ".join(load_checkpoint(model, path, partial=True))
        assert torch.equal(model.body[0].weight, weights["body.0.weight"])
        assert "2 of the network's weights" in said
        assert "head.weight" in said

    def test_nothing_that_fits_is_refused(self, path: Path) -> None:
        with pytest.raises(ModelError, match=r"Nothing in .* fits"):
            load(numbers(nn.Conv2d(1, 1, 1)), path, partial=True)


class TestRefusals:
    def test_missing_keys_are_shown_and_counted(self, weights: State, path: Path) -> None:
        with pytest.raises(ModelError) as caught:
            load({n: v for n, v in weights.items() if not n.startswith("body")}, path)
        # 36 of the 67 values of the network: its batch normalisation's counter harms nobody
        assert "missing keys: 6 (body.0.weight with 53.7 % of all values" in str(caught.value)
        assert "1 counters or positions (num_batches_tracked)" in str(caught.value)
        assert "unexpected" not in str(caught.value)

    def test_unexpected_keys_are_shown_and_counted(self, weights: State, path: Path) -> None:
        more = {f"extra.{i}": torch.zeros(1) for i in range(5)}
        with pytest.raises(
            ModelError, match=r"unexpected keys: 5 \(extra\.0, extra\.1, extra\.2, \.\.\.\)"
        ):
            load({**weights, **more}, path)

    def test_shapes_are_shown_for_both_sides(self, path: Path) -> None:
        with pytest.raises(
            ModelError,
            match=r"keys of another shape: 2 \(head\.weight \(3, 4, 1, 1\) in the file, "
            r"\(2, 4, 1, 1\) in the network",
        ):
            load(numbers(Net(classes=3)), path)

    def test_another_network_is_shown_both_ways(self, path: Path) -> None:
        with pytest.raises(ModelError, match=r"missing keys: 8 \(.*unexpected keys: 2 \("):
            load({"state_dict": numbers(nn.Conv2d(1, 1, 1))}, path)

    def test_a_prefix_does_not_hide_unexpected_keys_inside(
        self, weights: State, path: Path
    ) -> None:
        more = prefixed("module.", {**weights, "extra": torch.zeros(1)})
        with pytest.raises(ModelError, match=r"unexpected keys: 1 \(extra\)"):
            load(more, path)

    def test_absent_file(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"no checkpoint file .*absent\.pt"):
            load_checkpoint(Net(), tmp_path / "absent.pt")

    @pytest.mark.parametrize("name", ["best.pt", "best.safetensors"])
    @pytest.mark.parametrize("content", [b"hello there", b"PK\x03\x04 not a zip", b"\x80\x02."])
    def test_damaged_file(self, name: str, content: bytes, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=f"{name} can't be read as a checkpoint"):
            load_checkpoint(Net(), tmp_path / name, allow_pickle=True)

    def test_truncated_file(self, weights: State, path: Path) -> None:
        torch.save(weights, path)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(ModelError, match="can't be read as a checkpoint"):
            load_checkpoint(Net(), path)

    @pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], 7, {"model": {}}])
    def test_file_without_weights(self, content: Any, path: Path) -> None:
        with pytest.raises(ModelError, match="holds no weights"):
            load(content, path)

    def test_torchscript(self, path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.trace(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 4, 4)), path)
        with pytest.raises(ModelError, match="TorchScript"):
            load_checkpoint(nn.Conv2d(1, 1, 1), path, allow_pickle=True)
