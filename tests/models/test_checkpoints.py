from __future__ import annotations

import argparse
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
    with pytest.raises(ModelError, match=r"several sets .*\(teacher, student\); .*--key"):
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


class TestRefusals:
    def test_missing_keys_are_shown_and_counted(self, weights: State, path: Path) -> None:
        with pytest.raises(ModelError) as caught:
            load({n: v for n, v in weights.items() if not n.startswith("body")}, path)
        assert "missing keys: 7 (body.0.weight, body.0.bias, body.1.weight, ...)" in str(
            caught.value
        )
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
        with pytest.raises(ModelError, match=r"missing keys: 9 \(.*unexpected keys: 2 \("):
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
    @pytest.mark.parametrize(
        "content", [b"", b"hello there", b"PK\x03\x04 not a zip", b"\x80\x02."]
    )
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


class Trap:
    """Unpickling this calls a function: what a hostile checkpoint would do."""

    sprung = False

    def __reduce__(self) -> tuple[Any, ...]:
        return spring, ()


def spring() -> int:
    Trap.sprung = True
    return 1


class TestPickles:
    def test_code_is_never_run_unless_allowed(self, weights: State, path: Path) -> None:
        Trap.sprung = False
        with pytest.raises(ModelError, match=r"holds more than tensors .*spring.*--allow-pickle"):
            load({"state_dict": weights, "extra": Trap()}, path)
        assert not Trap.sprung
        assert_holds(
            load({"state_dict": weights, "extra": Trap()}, path, allow_pickle=True), weights
        )
        assert Trap.sprung

    def test_arguments_beside_the_weights_load_when_allowed(
        self, weights: State, path: Path
    ) -> None:
        content = {"state_dict": weights, "args": argparse.Namespace(rate=0.1)}
        with pytest.raises(ModelError, match=r"argparse\.Namespace"):
            load(content, path)
        assert_holds(load(content, path, allow_pickle=True), weights)

    def test_whole_network_serves_as_checkpoint_when_allowed(self, path: Path) -> None:
        saved = Net()
        with pytest.raises(ModelError, match="--allow-pickle"):
            load(saved, path)
        assert_holds(load(saved, path, allow_pickle=True), saved.state_dict())
        assert_holds(load({"model": saved}, path, allow_pickle=True), saved.state_dict())

    def test_whole_network_serves_as_model_when_allowed(self, path: Path) -> None:
        saved = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
        torch.save(saved, path)
        assert_holds(load_model(str(path), allow_pickle=True), saved.state_dict())
        with pytest.raises(ModelError, match="--allow-pickle"):
            load_model(str(path))
        with pytest.raises(ModelError, match="leave out --model-args"):
            load_model(str(path), allow_pickle=True, model_args={"classes": 3})

    def test_network_of_code_that_is_gone(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torch.save(Net(), path)
        monkeypatch.delitem(globals(), "Net")
        with pytest.raises(ModelError, match=r"can't be found here .*Net"):
            load_checkpoint(nn.Conv2d(1, 1, 1), path, allow_pickle=True)
