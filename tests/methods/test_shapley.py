"""ShapleyCAM: against exact Shapley values, finite differences, and Grad-CAM where it is that."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from tests.engine.test_state import assert_same, state_of
from tests.networks import UNet, seeded
from unetcam import UNetCAM
from unetcam.errors import ModelError
from unetcam.targets import ClassScore, PredictedRegion, Region

IMAGES = torch.rand(2, 1, 16, 16, generator=torch.manual_seed(3), dtype=torch.float64)
CORNER = torch.zeros(16, 16, dtype=torch.bool)
CORNER[2:9, 3:12] = True


class Quadratic(nn.Module):
    """A layer of two channels of two pixels, and a logit that is a quadratic form of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 1).double()
        drawn = torch.rand(4, 4, generator=torch.manual_seed(5), dtype=torch.float64) - 0.4
        self.register_buffer("form", drawn)
        self.register_buffer("line", drawn[0] + 0.3)

    def value(self, entries: Tensor) -> Tensor:
        """Of entries (B, 4), zero where all are."""
        return entries @ self.line + torch.einsum("bi,ij,bj->b", entries, self.form, entries)

    def forward(self, x: Tensor) -> Tensor:
        value = self.value(self.first(x).flatten(1))
        return torch.stack([value, -value], dim=1)[..., None, None].expand(-1, -1, 1, 2)


def test_of_a_quadratic_score_it_is_made_of_exact_shapley_values() -> None:
    """By the definition, over all 24 orders in which the four entries can join (float64, 1e-12)."""
    model = Quadratic()
    image = torch.tensor([[[[0.7, -1.3]]]], dtype=torch.float64)
    entries = model.first(image).flatten(1).detach()[0]
    values = torch.zeros(4, dtype=torch.float64)
    for order in itertools.permutations(range(4)):
        present = torch.zeros(4, dtype=torch.float64)
        for entry in order:
            before = model.value(present[None] * entries)
            present[entry] = 1
            values[entry] += (model.value(present[None] * entries) - before)[0] / math.factorial(4)
    weights = (values / entries).view(2, 2).mean(dim=1)  # of A_i w_i, what A_i is multiplied with
    expected = torch.einsum("k,kp->p", weights, entries.view(2, 2))
    cam = UNetCAM(model, ["first"], "shapleycam", sign="signed")
    ours = cam(image, ClassScore(0))["first"]
    assert expected.abs().min() > 1e-3
    torch.testing.assert_close(ours[0, 0, 0], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shortcuts", [True, False])
@pytest.mark.parametrize("layer", ["up1", "up3", "up4"])
def test_with_relu_and_batch_normalisation_it_is_gradcam(layer: str, shortcuts: bool) -> None:
    """The Hessian is zero there, whatever the batch's statistics (float64, 1e-12)."""
    model, targets = seeded(UNet(1, 3)).double(), [ClassScore(0), Region(2, CORNER)]
    ours, plain = (
        UNetCAM(model, [layer], name, shortcuts=shortcuts)(IMAGES, targets)[layer]
        for name in ("shapleycam", "gradcam")
    )
    assert (plain > 0).any()
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12 * float(plain.max()))


def bent(kind: type[nn.Module]) -> nn.Module:
    """Curved between the layer "0" and the logits."""
    second: nn.Module = kind(4, affine=True) if kind is nn.InstanceNorm2d else kind()
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), second, nn.ReLU(),
        nn.Conv2d(4, 3, 3, padding=1),
    )  # fmt: skip
    return seeded(model, norms=False).double()


@pytest.mark.parametrize("kind", [nn.InstanceNorm2d, nn.SiLU, nn.GELU, nn.Sigmoid])
def test_a_curved_score_has_the_hessians_product_of_finite_differences(
    kind: type[nn.Module],
) -> None:
    """H A from gradients on either side along A (float64, to 1e-6); and it is not Grad-CAM."""
    model, target, step = bent(kind), Region(1, CORNER), 1e-4
    activation = model[0](IMAGES).detach()

    def gradient(share: float) -> Tensor:
        moved = (activation * (1 + share)).requires_grad_()
        score = target.score(model[1:](moved)).value.sum()
        return torch.autograd.grad(score, moved)[0]

    product = (gradient(step) - gradient(-step)) / (2 * step)
    weights = (gradient(0.0) - product / 2).mean(dim=(2, 3), keepdim=True)
    expected = torch.relu((weights * activation).sum(dim=1))
    ours = UNetCAM(model, ["0"], "shapleycam")(IMAGES, target)["0"][:, 0]
    peak = float(expected.max())
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6 * peak)
    plain = UNetCAM(model, ["0"], "gradcam")(IMAGES, target)["0"][:, 0]
    assert (ours - plain).abs().max() > 1e-2 * plain.max()


def test_instance_normalisation_takes_the_size_out_of_what_it_is_given() -> None:
    """Then the score is the same for any multiple of A, so that H A = -G and the map is 3/2 of
    Grad-CAM's; right before the normalisation, which takes the mean out too, both are zero."""
    norm = nn.InstanceNorm2d(2, eps=0.0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3, bias=False), norm, nn.Conv2d(2, 2, 5)
    )
    model = seeded(model, norms=False).double()
    with torch.no_grad():
        model[0].bias -= model[0](IMAGES).mean(dim=(0, 2, 3))
    ours, plain = (
        UNetCAM(model, ["0", "2"], name, sign="signed")(IMAGES, ClassScore(1))
        for name in ("shapleycam", "gradcam")
    )
    peak = float(plain["0"].abs().max())
    assert peak > 1e-6
    torch.testing.assert_close(ours["0"], 1.5 * plain["0"], rtol=1e-9, atol=1e-9 * peak)
    for maps in (ours["2"], plain["2"]):
        assert maps.abs().max() < 1e-9 * peak


def test_a_score_of_probabilities_is_curved_by_itself() -> None:
    model = seeded(UNet(1, 3)).double()
    target = ClassScore(1, on="probability")
    ours, plain = (
        UNetCAM(model, ["up3"], name)(IMAGES, target)["up3"] for name in ("shapleycam", "gradcam")
    )
    assert (ours - plain).abs().max() > 1e-3 * plain.max()


def test_several_layers_have_each_their_own_hessian() -> None:
    """Together as alone, one behind the other (float64, 1e-10)."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 4, 3, padding=1), nn.GELU(),
        nn.Conv2d(4, 3, 1),
    ).double()  # fmt: skip
    together = UNetCAM(model, ["0", "2"], "shapleycam")(IMAGES)
    for layer in ("0", "2"):
        alone = UNetCAM(model, [layer], "shapleycam")(IMAGES)[layer]
        torch.testing.assert_close(together[layer], alone, rtol=1e-10, atol=1e-14)


def test_a_target_that_no_image_has_is_nan_beside_one_that_has() -> None:
    model = bent(nn.SiLU)
    with torch.no_grad():
        model[5].bias[2] -= 1e3
    result = UNetCAM(model, ["0"], "shapleycam")(IMAGES, [PredictedRegion(2), ClassScore(0)])["0"]
    assert result[:, 0].isnan().all()
    assert torch.isfinite(result[:, 1]).all()


def test_a_half_precision_gradient_is_not_rounded_to_nothing() -> None:
    """1e-3 of the largest, of a mean over so many pixels that float16 has no such number."""
    model, images = bent(nn.SiLU), torch.rand(1, 1, 512, 512, generator=torch.manual_seed(1))
    expected = UNetCAM(model.float(), ["0"], "shapleycam")(images)["0"]
    halved = UNetCAM(model.half(), ["0"], "shapleycam")(images.half())["0"]
    assert halved.dtype == torch.float32
    difference = (halved - expected).abs().amax() / expected.amax()
    assert difference < 1e-2


class Once(torch.autograd.Function):
    """An operation that can be differentiated once."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * gradient


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Once.apply(x)


def test_what_can_be_differentiated_once_only_is_one_sentence_and_leaves_the_model() -> None:
    """Also where torch would take its second derivative for zero, as the gradient that arrives at
    it is a constant; before the layer it is in nobody's way."""
    for behind in (nn.Identity(), nn.SiLU()):
        model = nn.Sequential(nn.Conv2d(1, 2, 1), Squared(), behind, nn.Conv2d(2, 2, 1)).double()
        before = state_of(model)
        with pytest.raises(ModelError, match="The operation Once has no second derivative"):
            UNetCAM(model, ["0"], "shapleycam")(IMAGES)
        assert_same(before, state_of(model))
        assert (UNetCAM(model, ["1"], "shapleycam")(IMAGES)["1"] > 0).any()


class Attending(nn.Module):
    """Pixels that attend to one another, by torch's own fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.head = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x).flatten(2).mT[:, None]
        seen = nn.functional.scaled_dot_product_attention(tokens, tokens, value=tokens, scale=0.4)
        return self.head(seen[:, 0].mT.unflatten(2, x.shape[2:]))


def test_fused_attention_is_differentiated_twice_by_its_formula() -> None:
    model = seeded(Attending()).double()
    target = Region(1, CORNER)
    activation = model.tokens(IMAGES).detach()

    def gradient(share: float) -> Tensor:
        moved = (activation * (1 + share)).requires_grad_()
        tokens = moved.flatten(2).mT
        seen = (tokens @ tokens.mT * 0.4).softmax(dim=2) @ tokens
        score = target.score(model.head(seen.mT.unflatten(2, (16, 16)))).value.sum()
        return torch.autograd.grad(score, moved)[0]

    product = (gradient(1e-4) - gradient(-1e-4)) / 2e-4
    weights = (gradient(0.0) - product / 2).mean(dim=(2, 3), keepdim=True)
    expected = torch.relu((weights * activation).sum(dim=1))
    ours = UNetCAM(model, ["tokens"], "shapleycam")(IMAGES, target)["tokens"][:, 0]
    peak = float(expected.max())
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6 * peak)


class Heads(nn.Module):
    """The same by torch's module, which runs its fused kernel where nobody can step in."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.head = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x).flatten(2).mT
        seen, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return self.head(seen.mT.unflatten(2, x.shape[2:]))


def test_where_only_a_fused_kernel_is_to_be_had_the_error_says_so() -> None:
    model = seeded(Heads()).double()
    before = state_of(model)
    with pytest.raises(ModelError, match="'tokens' and the logits has no second") as caught:
        UNetCAM(model, ["tokens"], "shapleycam")(IMAGES)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert_same(before, state_of(model))
