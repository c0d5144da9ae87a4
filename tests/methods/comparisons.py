"""Every method beside those of its peers: the same, or another on purpose.

They stand behind ``test_parity.py`` and ``docs/parity.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytorch_grad_cam
import torchcam.methods
from torch import Tensor

from tests.methods.peers import (
    SAMPLES,
    Case,
    captum_layer,
    captum_noise,
    captum_pieces,
    cases,
    component_apart,
    curved,
    deep,
    finest,
    full_size,
    grad_cam,
    grad_cam_refined,
    headed,
    layered,
    negative,
    ours,
    raw_apart,
    rectified,
    refined,
    scaled_apart,
    shapes_apart,
    signed,
    single,
    torch_cam,
    torch_cam_of_classes,
    torch_cam_refined,
    upto,
)
from unetcam import UNetCAM, methods
from unetcam.methods import Method
from unetcam.methods.smooth import Smooth
from unetcam.methods.surrogate import LIME, KernelSHAP
from unetcam.targets import ClassScore


@dataclass(frozen=True)
class Comparison:
    """One method beside one peer's.

    Attributes
    ----------
    method, peer : str
    apart : callable
        The largest difference at one layer of a case.
    where : callable
        The cases.
    tolerance : float
        How far apart they may be.
    how : str
        How they are compared, in a few words.
    """

    method: str
    peer: str
    apart: Callable[[Case, str], float]
    where: Callable[[], list[Case]] = cases
    tolerance: float = 1e-5
    how: str = "scaled"

    def differences(self) -> Iterator[tuple[str, str, float]]:
        """By case and layer."""
        for case in self.where():
            for layer in case.layers:
                yield case.name, layer, self.apart(case, layer)


def _scaled(name: str, peer: Any) -> Callable[[Case, str], float]:
    return lambda case, layer: scaled_apart(ours(case, layer, name), grad_cam(case, layer, peer))


def _raw(name: str | Method, theirs: Callable[[Case, str], Tensor]) -> Callable[[Case, str], float]:
    return lambda case, layer: raw_apart(ours(case, layer, name), theirs(case, layer))


def _refined(case: Case, layer: str) -> float:
    """Of two layers or more: of one there is no product, and the peer refuses."""
    if len(upto(case, layer)) == 1:
        return 0.0
    return raw_apart(refined(case, layer, from_zero=True), torch_cam_refined(case, layer))


def _refined_raw(case: Case, layer: str) -> float:
    if len(upto(case, layer)) == 1:
        return 0.0
    return raw_apart(refined(case, layer), torch_cam_refined(case, layer))


_CAMS = torchcam.methods
_SMOOTH = Smooth(methods.get("gradcam"), samples=SAMPLES)
_LIME, _SHAP = LIME(samples=24, superpixels=8), KernelSHAP(samples=24, superpixels=8)


def comparisons() -> list[Comparison]:
    """Every method that a peer shares with us, where both mean the same."""
    pgc = "pytorch-grad-cam"
    scaled = [
        ("gradcam", pytorch_grad_cam.GradCAM),
        ("hirescam", pytorch_grad_cam.HiResCAM),
        ("layercam", pytorch_grad_cam.LayerCAM),
        ("gradcam-elementwise", pytorch_grad_cam.GradCAMElementWise),
    ]
    torchcams = [
        ("gradcam", _CAMS.GradCAM),
        ("layercam", _CAMS.LayerCAM),
    ]
    xgrad, score = pytorch_grad_cam.XGradCAM, pytorch_grad_cam.ScoreCAM
    ablation = partial(pytorch_grad_cam.AblationCAM, batch_size=8)
    pieces = "raw, with the same superpixels and draws"
    return [
        *(Comparison(name, pgc, _scaled(name, peer)) for name, peer in scaled),
        Comparison("xgradcam", pgc, _scaled("xgradcam", xgrad), rectified),
        Comparison(
            "eigencam",
            pgc,
            lambda case, layer: component_apart(case, layer, "eigencam", pytorch_grad_cam.EigenCAM),
            how="scaled, of either sign",
        ),
        Comparison(
            "eigengradcam",
            pgc,
            lambda case, layer: component_apart(
                case, layer, "eigengradcam", pytorch_grad_cam.EigenGradCAM
            ),
            how="scaled, of either sign",
        ),
        Comparison("seg-eigen-cam", pgc, _scaled("seg-eigen-cam", pytorch_grad_cam.SegEigenCAM)),
        Comparison(
            "shapleycam",
            pgc,
            _scaled("shapleycam", pytorch_grad_cam.ShapleyCAM),
            curved,
            how="scaled; group normalisation and SiLU",
        ),
        Comparison("scorecam", pgc, _scaled("scorecam", score), full_size),
        Comparison(
            "ablationcam",
            pgc,
            _scaled("ablationcam", ablation),
            finest,
            1e-4,
            "scaled; its scores are in single precision",
        ),
        *(
            Comparison(
                name,
                "torchcam",
                _raw(name, partial(torch_cam, peer=peer)),
                tolerance=1e-12,
                how="raw",
            )
            for name, peer in torchcams
        ),
        Comparison(
            "xgradcam",
            "torchcam",
            _raw("xgradcam", partial(torch_cam, peer=_CAMS.XGradCAM)),
            rectified,
            1e-6,
            "raw",
        ),
        Comparison(
            "scorecam",
            "torchcam",
            _raw("scorecam", partial(torch_cam, peer=_CAMS.ScoreCAM)),
            full_size,
            1e-6,
            "raw",
        ),
        Comparison(
            "cam",
            "torchcam",
            lambda case, layer: raw_apart(
                UNetCAM(case.model, [layer], "cam")(case.images, [ClassScore(1), ClassScore(2)])[
                    layer
                ],
                torch_cam_of_classes(case, layer),
            ),
            headed,
            1e-12,
            "raw",
        ),
        Comparison(
            "refinecam",
            "torchcam",
            _refined,
            layered,
            1e-6,
            "raw, with LayerCAM's maps less their smallest values",
        ),
        Comparison("gradcam", "captum", _raw("gradcam", captum_layer), tolerance=1e-12, how="raw"),
        Comparison(
            "smooth-gradcam",
            "captum",
            _raw(_SMOOTH, captum_noise),
            single,
            1e-5,
            "raw, with the same noise, in single precision",
        ),
        Comparison(
            "lime",
            "captum",
            _raw(_LIME, partial(captum_pieces, method=_LIME)),
            full_size,
            1e-5,
            pieces,
        ),
        Comparison(
            "kernelshap",
            "captum",
            _raw(_SHAP, partial(captum_pieces, method=_SHAP)),
            full_size,
            1e-5,
            pieces,
        ),
    ]


@dataclass(frozen=True)
class Departure(Comparison):
    """Where we differ on purpose: `why` says which of us is right."""

    why: str = ""


def departures() -> list[Departure]:
    """Where a peer's number is another one than ours, and has to be."""
    pgc = "pytorch-grad-cam"
    return [
        Departure(
            "gradcam++",
            pgc,
            _scaled("gradcam++", pytorch_grad_cam.GradCAMPlusPlus),
            why="It adds 1e-6 to a denominator of squared gradients. The gradient of a mean "
            "over an image is about one over its pixels, and its square is smaller than the "
            "constant, which then rules: the quotient becomes the plain square, and the paper's "
            "weights are gone. Ours divides exactly. On scores a million times as large both agree "
            "to 1e-5 (tested).",
        ),
        Departure(
            "gradcam++",
            "torchcam",
            lambda case, layer: shapes_apart(
                ours(case, layer, "gradcam++"), torch_cam(case, layer, _CAMS.GradCAMpp)
            ),
            how="each map by its maximum",
            why="It divides in place what a boolean index gave, and that is a copy: the division "
            "is lost, and the weights are the sums of G^2 relu(G) (tested: with these weights we "
            "get its maps). Ours divides, as the paper's equation 19 does.",
        ),
        Departure(
            "eigencam",
            pgc,
            _scaled("eigencam", pytorch_grad_cam.EigenCAM),
            why="A component's sign is arbitrary, and it takes what the linear algebra library "
            "returns: another library, another map, and sometimes the background. Ours makes the "
            "largest magnitude positive. Up to the sign both agree (see above). Both take the "
            "channels' means off, as a principal component needs; the paper's equation does not, "
            "and EigenCAM(centred=False) follows it to the letter.",
        ),
        Departure(
            "eigengradcam",
            pgc,
            _scaled("eigengradcam", pytorch_grad_cam.EigenGradCAM),
            why="The sign again. Ours goes along the sum over the channels, so that what speaks "
            "for the class is positive.",
        ),
        Departure(
            "refinecam",
            "torchcam",
            _refined_raw,
            layered,
            how="raw, with LayerCAM as the base",
            why="It takes the smallest value off each map before it divides by the largest: "
            "a pixel with some evidence at every layer can be left with none. Zero means no "
            "evidence, and ours divides only. Of maps that begin at zero both agree (see above).",
        ),
        Departure(
            "refinecam",
            pgc,
            lambda case, layer: scaled_apart(refined(case, layer), grad_cam_refined(case, layer)),
            layered,
            why="The smallest values again; and it enlarges every map to the image and multiplies "
            "there, ours at the finest of the layers, as torchcam's does.",
        ),
        Departure(
            "scorecam",
            pgc,
            _scaled("scorecam", pytorch_grad_cam.ScoreCAM),
            deep,
            why="It enlarges masks with their corners aligned, and we, as everywhere, with pixels "
            "as areas (align_corners=False). The paper says no more than bilinear: neither is "
            "wrong, and ours puts a mask where the layer's pixels lie. At the image's size both "
            "agree (see above).",
        ),
        Departure(
            "scorecam",
            "torchcam",
            _raw("scorecam", partial(torch_cam, peer=_CAMS.ScoreCAM)),
            deep,
            how="raw",
            why="It scales a channel to [0, 1] before it is enlarged, the paper and we after. "
            "Enlarging flattens a peak, so that its masks don't reach 1.",
        ),
        Departure(
            "ablationcam",
            pgc,
            _scaled("ablationcam", pytorch_grad_cam.AblationCAM),
            negative,
            why="Where the score is negative, as the mean logit of a rare class is, the division "
            "by it, which the paper has too, turns every weight around: the map shows what speaks "
            "against the class. Ours leaves the division out, which for a positive score is a "
            "matter of scale.",
        ),
        Departure(
            "ablationcam",
            pgc,
            _scaled("ablationcam", pytorch_grad_cam.AblationCAM),
            signed,
            why="Where a layer has negative activations, it replaces a channel by the smallest "
            "activation less 1e7, and not by zero as the paper says: the network answers to an "
            "input that it never sees. Ours is the paper's.",
        ),
    ]
