from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unetcam.errors import ModelError
from unetcam.models import load_model, parse_model_args

CODE = """
from __future__ import annotations

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, classes: int = 2, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, images):
        return self.head(self.body(images))


def build(classes: int = 2, width: int = 4) -> Net:
    return Net(classes, width)


def trained() -> Net:
    torch.nn.init.constant_((net := Net()).head.bias, 7.0)
    return net


def nothing() -> None:
    return None


def broken(size: int = 3) -> Net:
    raise ValueError("no such size")


built = Net()
number = 3
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "mine" / "networks.py"
    path.parent.mkdir()
    path.write_text(CODE)
    return path


@pytest.fixture
def spec(code: Path) -> str:
    return f"{code}:Net"


@pytest.fixture
def weights(spec: str) -> dict[str, torch.Tensor]:
    """The state of a network whose every number differs from a fresh one's."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(value.shape, generator=generator).to(value.dtype)
        for name, value in load_model(spec).state_dict().items()
    }


def assert_holds(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    state = model.state_dict()
    assert state.keys() == weights.keys()
    for name, value in weights.items():
        assert torch.equal(state[name], value), name


class TestModelArguments:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("4", 4),
            ("1e-3", 1e-3),
            ("None", None),
            ("null", None),
            ("True", True),
            ("false", False),
            ("resnet18", "resnet18"),
            ("'4'", "4"),
            ("[64, 32]", [64, 32]),
            ("[a, b]", ["a", "b"]),
            ("(64, 32)", (64, 32)),
            ("{type: batchnorm}", {"type": "batchnorm"}),
            ("a=b", "a=b"),
            ("", None),
        ],
    )
    def test_values_are_python_literals_or_yaml(self, text: str, value: Any) -> None:
        parsed = parse_model_args([f"x={text}"])["x"]
        assert parsed == value
        assert type(parsed) is type(value)

    @pytest.mark.parametrize("argument", ["classes", "=4", "two words=4", "1x=4", ""])
    def test_what_is_not_name_and_value_is_refused(self, argument: str) -> None:
        with pytest.raises(ModelError, match="is not name=value"):
            parse_model_args([argument])

    def test_a_name_given_twice_is_refused(self) -> None:
        with pytest.raises(ModelError, match="'classes' is given twice"):
            parse_model_args(["classes=1", "classes=2"])

    def test_an_unreadable_value_is_named(self) -> None:
        with pytest.raises(ModelError, match=r"'\[64, 32'.*'channels'"):
            parse_model_args(["channels=[64, 32"])


class TestFromCode:
    def test_file_and_class(self, spec: str) -> None:
        model = load_model(spec, model_args={"classes": 5})
        assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 5, 8, 8)

    def test_is_in_eval_mode_on_the_cpu(self, code: Path) -> None:
        model = load_model(f"{code}:build")
        assert not any(module.training for module in model.modules())
        assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}

    def test_trained_network_needs_no_checkpoint(self, code: Path) -> None:
        assert load_model(f"{code}:trained").head.bias.tolist() == [7.0, 7.0]

    def test_network_that_is_already_built(self, code: Path) -> None:
        assert type(load_model(f"{code}:built")).__name__ == "Net"

    def test_module_beside_the_current_folder(
        self, code: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(code.parent.parent)
        monkeypatch.setattr(sys, "modules", dict(sys.modules))
        assert type(load_model("mine.networks:Net")).__name__ == "Net"

    def test_file_sees_its_neighbours(self, code: Path) -> None:
        code.with_name("neighbour_of_networks.py").write_text("WIDTH = 6\n")
        code.write_text(CODE + "\nfrom neighbour_of_networks import WIDTH\nwide = Net(2, WIDTH)\n")
        assert load_model(f"{code}:wide").head.in_channels == 6

    def test_file_named_like_an_installed_module_hides_nothing(self, code: Path) -> None:
        namesake = code.rename(code.with_name("yaml.py"))
        before = sys.modules["yaml"]
        load_model(f"{namesake}:Net")
        assert sys.modules["yaml"] is before

    def test_import_path_is_left_as_found(self, spec: str) -> None:
        before = list(sys.path)
        load_model(spec)
        with pytest.raises(ModelError):
            load_model(spec + "x")
        assert sys.path == before

    @pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
    def test_training_wrappers_are_taken_off(
        self, wrap: Callable[[nn.Module], nn.Module], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wrapped = wrap(nn.Conv2d(1, 2, 3))
        monkeypatch.setattr(nn, "wrapped_for_test", wrapped, raising=False)
        assert type(load_model("torch.nn:wrapped_for_test")) is nn.Conv2d

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("Nte", "has no 'Nte'; did you mean .*networks.py:Net?"),
            ("number", "of type int, which can't be called"),
            ("nothing", "returned a NoneType; it must return a torch.nn.Module"),
            ("broken", "failed while it built the network .ValueError: no such size"),
        ],
    )
    def test_unusable_factory_is_explained(self, code: Path, name: str, message: str) -> None:
        with pytest.raises(ModelError, match=message):
            load_model(f"{code}:{name}")

    def test_argument_that_does_not_fit_names_those_that_do(self, spec: str) -> None:
        with pytest.raises(ModelError, match=r"'clases'.*it takes classes, width"):
            load_model(spec, model_args={"clases": 3})

    def test_arguments_for_a_built_network_are_refused(self, code: Path) -> None:
        with pytest.raises(ModelError, match="already built"):
            load_model(f"{code}:built", model_args={"classes": 3})

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"no Python file .*absent\.py"):
            load_model(f"{tmp_path / 'absent.py'}:Net")

    def test_missing_module(self) -> None:
        with pytest.raises(ModelError, match=r"no Python module 'absent_package\.networks'"):
            load_model("absent_package.networks:Net")

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("import absent_dependency", "needs the module 'absent_dependency'"),
            ("from .sibling import x", "can't be imported .ImportError"),
            ("def :", "can't be imported .SyntaxError"),
            ("1 / 0", "can't be imported .ZeroDivisionError: division by zero"),
        ],
    )
    def test_file_that_fails_on_import(self, code: Path, line: str, message: str) -> None:
        code.write_text(line)
        with pytest.raises(ModelError, match=message):
            load_model(f"{code}:Net")


class TestUnknownSpec:
    @pytest.mark.parametrize("name", ["Unet", "unet", "unetplusplu"])
    def test_bare_smp_name_is_completed(self, name: str) -> None:
        with pytest.raises(ModelError, match="did you mean smp:Unet"):
            load_model(name)

    def test_file_without_a_factory_is_completed(self, code: Path) -> None:
        with pytest.raises(ModelError, match=r"write .*networks\.py:factory"):
            load_model(str(code))

    @pytest.mark.parametrize("text", ["absent/folder", "qqq", ":", "a:", ":b", ""])
    def test_anything_else_names_what_there_is(self, text: str) -> None:
        with pytest.raises(ModelError, match=r"save_pretrained.*:factory"):
            load_model(text)

    def test_checkpoint_in_place_of_a_network(self, spec: str, tmp_path: Path) -> None:
        path = tmp_path / "best.pt"
        torch.save(load_model(spec).state_dict(), path)
        with pytest.raises(ModelError, match=r"holds weights and no network.*checkpoint="):
            load_model(str(path))


class TestSegmentationModels:
    @pytest.mark.parametrize("name", ["smp:Unet", "smp:unet", "SMP:UNET"])
    def test_class_in_any_case(self, name: str) -> None:
        model = load_model(
            name, model_args={"encoder_name": "resnet18", "in_channels": 1, "classes": 3}
        )
        assert type(model).__name__ == "Unet"
        assert model(torch.zeros(1, 1, 32, 32)).shape == (1, 3, 32, 32)

    def test_unknown_class_names_the_nearest(self) -> None:
        with pytest.raises(ModelError, match=r"'UNetPP'.*did you mean smp:\w+"):
            load_model("smp:UNetPP")

    def test_unknown_encoder_names_the_nearest(self) -> None:
        with pytest.raises(ModelError, match=r"'resnet-18'; did you mean resnet18"):
            load_model("smp:Unet", model_args={"encoder_name": "resnet-18"})

    def test_misspelt_argument_is_not_swallowed(self) -> None:
        with pytest.raises(ModelError, match=r"'clases'; did you mean classes"):
            load_model("smp:Unet", model_args={"clases": 3})

    def test_encoder_weights_are_not_downloaded(self) -> None:
        with pytest.raises(ModelError, match=r"encoder_weights='imagenet'.*checkpoint="):
            load_model("smp:Unet", model_args={"encoder_weights": "imagenet"})

    def test_checkpoint_stands_in_for_encoder_weights(self, tmp_path: Path) -> None:
        arguments = {"encoder_name": "resnet18", "in_channels": 1}
        state = load_model("smp:Unet", model_args=arguments).state_dict()
        save_file(state, tmp_path / "best.safetensors")
        model = load_model(
            "smp:Unet",
            model_args={**arguments, "encoder_weights": "imagenet"},
            checkpoint=tmp_path / "best.safetensors",
        )
        assert_holds(model, state)


class TestFolder:
    @pytest.fixture(scope="class")
    def saved(self, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
        import segmentation_models_pytorch as smp

        folder = tmp_path_factory.mktemp("network")
        torch.manual_seed(0)
        model = smp.FPN("resnet18", encoder_weights=None, in_channels=1, classes=3).eval()
        model.save_pretrained(folder)
        return folder, model

    def test_gives_back_what_was_saved(self, saved: tuple[Path, nn.Module]) -> None:
        folder, model = saved
        loaded = load_model(str(folder))
        images = torch.rand(1, 1, 64, 64)
        with torch.no_grad():
            assert torch.equal(loaded(images), model(images))

    def test_agrees_with_smp(self, saved: tuple[Path, nn.Module]) -> None:
        import segmentation_models_pytorch as smp

        assert_holds(load_model(str(saved[0])), smp.from_pretrained(str(saved[0])).state_dict())

    def test_needs_no_download_for_a_network_that_began_with_imagenet(
        self, saved: tuple[Path, nn.Module], tmp_path: Path
    ) -> None:
        config = (saved[0] / "config.json").read_text()
        assert '"encoder_weights": null' in config
        (tmp_path / "config.json").write_text(
            config.replace('"encoder_weights": null', '"encoder_weights": "imagenet"')
        )
        (tmp_path / "model.safetensors").symlink_to(saved[0] / "model.safetensors")
        assert_holds(load_model(str(tmp_path)), saved[1].state_dict())

    def test_older_folder_with_pytorch_weights(
        self, saved: tuple[Path, nn.Module], tmp_path: Path
    ) -> None:
        (tmp_path / "config.json").write_text((saved[0] / "config.json").read_text())
        torch.save(saved[1].state_dict(), tmp_path / "pytorch_model.bin")
        assert_holds(load_model(str(tmp_path)), saved[1].state_dict())

    def test_arguments_replace_those_in_the_folder(self, saved: tuple[Path, nn.Module]) -> None:
        model = load_model(str(saved[0]), model_args={"activation": "softmax2d"})
        assert torch.allclose(model(torch.rand(1, 1, 32, 32)).sum(dim=1), torch.tensor(1.0))

    def test_checkpoint_replaces_its_weights(
        self, saved: tuple[Path, nn.Module], tmp_path: Path
    ) -> None:
        other = {n: torch.zeros_like(value) for n, value in saved[1].state_dict().items()}
        torch.save(other, tmp_path / "epoch9.pt")
        assert_holds(load_model(str(saved[0]), checkpoint=tmp_path / "epoch9.pt"), other)

    @pytest.mark.parametrize("config", [None, "{", "[]", "{}", '{"classes": 3}'])
    def test_folder_of_something_else_is_refused(self, config: str | None, tmp_path: Path) -> None:
        if config is not None:
            (tmp_path / "config.json").write_text(config)
        with pytest.raises(ModelError, match=r"config\.json.*save_pretrained"):
            load_model(str(tmp_path))

    def test_folder_without_weights_is_refused(
        self, saved: tuple[Path, nn.Module], tmp_path: Path
    ) -> None:
        (tmp_path / "config.json").write_text((saved[0] / "config.json").read_text())
        with pytest.raises(ModelError, match=r"no model\.safetensors"):
            load_model(str(tmp_path))


@pytest.mark.parametrize("argument", ["rate=.nan", "rate=1e999"])
def test_a_model_argument_that_is_no_finite_number_is_refused(argument: str) -> None:
    with pytest.raises(ModelError, match="no finite number"):
        parse_model_args([argument])
