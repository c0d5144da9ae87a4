"""UNetCAM: the one entry point."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from unetcam import methods
from unetcam.engine import Run
from unetcam.engine.budget import memory_bytes
from unetcam.engine.shifts import shift_derivatives
from unetcam.errors import LayerError, ModelError, UnetcamError
from unetcam.field import RegionField
from unetcam.methods import Method
from unetcam.models.output import Output, is_map, pick_logits
from unetcam.models.support import check_supported
from unetcam.models.topology import find_layers
from unetcam.result import CAMResult
from unetcam.targets import ClassScore, Score, Target, check_existing, check_targets, class_count

__all__ = ["UNetCAM"]

#: What torch says when a model calls ``view`` on a map whose channels are last in memory.
_VIEW_REFUSED = "view size is not compatible"


class UNetCAM:
    """Class activation maps of a segmentation network, for all layers and targets at once.

    Parameters
    ----------
    model : nn.Module
        Maps images (B, C, *spatial) to logits (B, classes, *spatial); 2-D or 3-D. It is evaluated
        (dropout off, batch statistics frozen) and left exactly as it was found.
    layers : sequence of str or nn.Module, optional
        What to explain, in the order in which the maps are wanted. None takes every decoder layer,
        deepest first, found by tracing the model on the first images that are explained; of a
        method for the last layer alone (CAM), that one.
    method : str or Method
        A registered method's name, see :func:`unetcam.methods.names`, or one with settings of
        its own.
    output : callable, optional
        Picks the logits from what the model returns. Without it a tensor, tuple, list or dict is
        understood (deep supervision: the full-resolution head).
    example : Tensor, optional
        Images to trace the model on, so that :attr:`layers` is known at once.
    shortcuts : bool
        Whether the backwards leave out what no map needs; the maps are the same up to rounding.

    Raises
    ------
    LayerError
        For an unknown layer; the message names the nearest.
    ModelError
        For a TorchScript or quantised model.
    UnetcamError
        For an unknown method, and for one that needs a package which is not installed.

    Examples
    --------
    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(
    ...     nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Upsample(scale_factor=2),
    ...     nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    >>> with UNetCAM(model) as cam:
    ...     result = cam(torch.rand(2, 1, 8, 8))
    >>> cam.layers, result["3"].shape  # 2 images, 3 classes
    (('3',), torch.Size([2, 3, 8, 8]))
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str | nn.Module] | None = None,
        method: str | Method = "gradcam",
        *,
        output: Output | None = None,
        example: Tensor | None = None,
        shortcuts: bool = True,
    ) -> None:
        check_supported(model)
        self.model = model
        self._method = methods.get(method) if isinstance(method, str) else method
        self._method.check()
        self._output = output
        self._shortcuts = shortcuts
        self._takes_channels_last = True
        self._chosen = None if layers is None else _resolve(model, layers)
        self._traced: dict[str, nn.Module] | None = None
        if example is not None:
            self._check_images(example)
            self._modules(example)

    @property
    def method(self) -> str:
        """The method's name."""
        return self._method.name

    @property
    def layers(self) -> tuple[str, ...]:
        """The explained layers: as they were given, or the decoder's, deepest first.

        Raises
        ------
        LayerError
            While they are not known: before the first call, without ``layers`` and ``example``.
        """
        modules = self._chosen if self._chosen is not None else self._traced
        if modules is None:
            raise LayerError(
                "The layers are found at the first call: pass example=images to know them before."
            )
        return tuple(modules)

    def __enter__(self) -> UNetCAM:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing of a call outlives it; what stays are the layers' names."""

    def __call__(
        self, images: Tensor, targets: Sequence[Target] | Target | None = None
    ) -> CAMResult:
        """Explain a batch of images.

        One forward serves all targets and layers; each target costs one backward from the logits
        to the deepest layer.

        Parameters
        ----------
        images : Tensor
            (B, C, *spatial), floating point, on the model's device. Nothing is normalised here.
        targets : Target or sequence of Target, optional
            What to explain; one :class:`~unetcam.targets.ClassScore` per class by default.

        Returns
        -------
        CAMResult
            Raw maps (B, T, *layer_spatial) by layer, on the model's device.

        Raises
        ------
        LayerError, ModelError, NumericalError, TargetError
            One sentence each: what is wrong, where, and what to do.
        """
        self._check_images(images)
        modules = self._modules(images)
        if isinstance(targets, Target):
            targets = [targets]
        explained: list[Target] = []

        def score(logits: Tensor, reference: Tensor | None = None) -> list[Score]:
            wanted = targets
            if wanted is None:
                wanted = [ClassScore(index) for index in range(class_count(logits))]
            explained[:] = wanted
            check_targets(explained, logits)
            held = () if reference is None else (reference,)
            return [target.score(logits, *held) for target in explained]

        def output(returned: Any, images: Tensor = images) -> Tensor:
            return self._logits(returned, images)

        channels_last = self._shortcuts and self._takes_channels_last and not images.is_cuda
        run = Run(self.model, images, modules, score, output, self._shortcuts, channels_last)
        try:
            collected = self._method.explain(run)
        except RuntimeError as error:
            if not channels_last or _VIEW_REFUSED not in str(error):
                raise
            self._takes_channels_last = False
            collected = self._method.explain(replace(run, channels_last=False))
        if self._method.per_target:
            check_existing(explained, collected.defined)
        return CAMResult(
            collected.logits,
            collected.explained or tuple(explained),
            collected.maps,
            self.method,
            self._method.settings,
            collected.channels,
        )

    def field(
        self,
        image: Tensor,
        layer: str | None = None,
        *,
        memory_budget: int | float | None = None,
    ) -> RegionField:
        """The region field of one image at one layer: see :class:`~unetcam.field.RegionField`.

        It costs about one run of the part behind the layer per channel, and then gives the
        Grad-CAM of any region and class without a backward.

        Parameters
        ----------
        image : Tensor
            (1, C, *spatial) or (C, *spatial), floating point, on the model's device.
        layer : str, optional
            One of :attr:`layers`; the last, finest one by default.
        memory_budget : int or float, optional
            Bytes for the tensors of a chunk of channels, or a share of what is free on the
            device; half of that on a GPU and 1 GiB elsewhere by default.

        Raises
        ------
        LayerError
            For an unknown layer, and where an operation behind it has no forward-mode derivative.
        UnetcamError
            For a method other than Grad-CAM, which alone is a matter of one weight per channel
            and linear in the score.
        """
        if self.method != "gradcam":
            raise UnetcamError(
                f"A field gives Grad-CAM maps, and this UNetCAM is set to '{self.method}': use "
                "method='gradcam', or cam(...)."
            )
        images = image[None] if isinstance(image, Tensor) and image.ndim == 3 else image
        self._check_images(images)
        if len(images) != 1:
            raise ModelError(
                f"A field belongs to one image, and {len(images)} were given: call it for each."
            )
        modules = self._modules(images) if layer is None else _resolve(self.model, [layer])
        name, module = list(modules.items())[-1]
        shifts = shift_derivatives(
            self.model,
            images,
            name,
            module,
            lambda returned: self._logits(returned, images),
            memory=memory_bytes(memory_budget, images.device),
        )
        return RegionField(shifts.activation[0], shifts.logits[0], shifts.derivative[0], name)

    def _modules(self, images: Tensor) -> Mapping[str, nn.Module]:
        if self._chosen is not None:
            return self._chosen
        if self._traced is None:
            found = find_layers(self.model, images, output=self._output).decoder
            if not found:
                raise LayerError(
                    "No decoder layer was found in the model: name the layers yourself with "
                    "layers=[...] (model.named_modules() lists them)."
                )
            self._traced = _resolve(self.model, self._method.suitable(found))
        return self._traced

    def _logits(self, returned: Any, images: Tensor) -> Tensor:
        if self._output is None:
            return pick_logits(returned, images)
        logits = self._output(returned)
        if not isinstance(logits, Tensor) or not is_map(logits, images):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(
                f"output= gave {shape}, which is no segmentation map (B, C, *spatial) for images "
                f"of shape {tuple(images.shape)}: return the logits."
            )
        return logits

    def _check_images(self, images: Tensor) -> None:
        if not isinstance(images, Tensor):
            raise ModelError(
                f"Images must be a tensor (B, C, *spatial), and this is a "
                f"{type(images).__name__}: convert them with torch.from_numpy or torch.stack."
            )
        if images.ndim not in (4, 5) or 0 in images.shape or not images.is_floating_point():
            raise ModelError(
                f"Images must be floating point of shape (B, C, H, W) or (B, C, D, H, W), and "
                f"these are {images.dtype} of shape {tuple(images.shape)}: add the missing "
                "dimension with images[None], or convert with images.float()."
            )
        parameter = next(self.model.parameters(), None)
        if parameter is not None and parameter.device != images.device:
            raise ModelError(
                f"The images are on {images.device}, but the model is on {parameter.device}: "
                f"move them with images.to('{parameter.device}')."
            )
        if (
            parameter is not None
            and parameter.dtype != images.dtype
            and not torch.is_autocast_enabled(images.device.type)
        ):
            raise ModelError(
                f"The images are {images.dtype}, but the model is {parameter.dtype}: convert them "
                f"with images.to({parameter.dtype})."
            )


def _resolve(model: nn.Module, layers: Sequence[str | nn.Module]) -> dict[str, nn.Module]:
    """The layers by name, in the given order."""
    modules = {name: module for name, module in model.named_modules() if name}
    names = {id(module): name for name, module in modules.items()}
    if isinstance(layers, (str, nn.Module)):
        layers = [layers]
    if not layers:
        raise LayerError("layers=[] leaves nothing to explain: name a layer, or pass None.")
    found: dict[str, nn.Module] = {}
    for layer in layers:
        name = layer if isinstance(layer, str) else names.get(id(layer))
        if name is None:
            raise LayerError(
                f"The module {type(layer).__name__} given as a layer is no part of the model: "
                "pass one of model.modules(), or its name."
            )
        if name not in modules:
            near = difflib.get_close_matches(name, modules, n=3, cutoff=0.5)
            listed = " or ".join(f"'{candidate}'" for candidate in near)
            hint = f"did you mean {listed}?" if near else "find_layers lists the layers."
            raise LayerError(f"The model has no layer '{name}': {hint}")
        found[name] = modules[name]
    return found
