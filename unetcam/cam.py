"""UNetCAM: the one entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from unetcam import methods
from unetcam.augment import explain_views
from unetcam.engine import Collected, Run
from unetcam.engine.budget import memory_bytes
from unetcam.engine.layout import UnclearError
from unetcam.engine.points import Point
from unetcam.engine.shifts import shift_derivatives
from unetcam.errors import LayerError, ModelError, UnetcamError
from unetcam.field import RegionField
from unetcam.methods import Method
from unetcam.mistakes import Mistakes, explain_errors
from unetcam.models.inputs import Inputs, bound, check_images, detached, image_of
from unetcam.models.naming import Seen, addresses, presumed, see
from unetcam.models.output import Output, is_map, is_scores, one_pixel, pick_logits
from unetcam.models.support import check_supported, unwrapped
from unetcam.result import CAMResult
from unetcam.scoring import Scoring, scoring_of
from unetcam.targets import Choice, Head, Scale, TargetLike, check_existing

__all__ = ["UNetCAM"]

#: What torch says when a model calls ``view`` on a map whose channels are last in memory.
_VIEW_REFUSED = "view size is not compatible"


T = TypeVar("T")


class UNetCAM:
    """Class activation maps of a segmentation network, for all layers and targets at once.

    Parameters
    ----------
    model : nn.Module
        Maps images (B, C, *spatial) to logits (B, classes, *spatial); 2-D or 3-D. It is evaluated
        (dropout off, batch statistics frozen) and left exactly as it was found. A classifier's
        scores (B, classes) are a map of one pixel.
    layers : sequence of str or nn.Module, optional
        What to explain, in the order in which the maps are wanted. None takes every decoder layer,
        deepest first, found by tracing the model on the first images that are explained.
        ``"conv#2"`` is the second run of a module that runs several times; ``"up3:skip"`` and
        ``"up3:path"`` are what enters a stage by its skip and by the upsampling path (a layer's
        ``parts`` in the table that :func:`find_layers` gives).
    method : str or Method
        A registered method's name, see :func:`unetcam.methods.names`, or one with settings of
        its own.
    output : callable, optional
        Picks the logits from what the model returns. Without it a tensor, tuple, list or dict is
        understood (deep supervision: the full-resolution head).
    example : Tensor, tuple or dict, optional
        Images to trace the model on, so that :attr:`layers` is known at once.
    shortcuts : bool
        Whether the backwards leave out what no map needs; the maps are the same up to rounding.
    memory_budget : int or float, optional
        Bytes, or a share of what is free on the device: bounds the targets that share a backward,
        the channels of a field that are pushed at once, and the maps, which are refused before
        the work where they alone take more. By default the former are bounded by half of what is
        free on a GPU, and by 1 GiB elsewhere. A device that runs out of memory all the same is
        given smaller parts, with one warning.

    Raises
    ------
    LayerError
        For an unknown layer; the message names the nearest.
    ModelError
        For a TorchScript or quantised model.

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
        example: Inputs | None = None,
        shortcuts: bool = True,
        memory_budget: int | float | None = None,
    ) -> None:
        check_supported(model)
        memory_bytes(memory_budget, torch.device("cpu"))
        self.model = unwrapped(model)
        self._method = methods.get(method) if isinstance(method, str) else method
        self._output = output
        self._shortcuts = shortcuts
        self._memory_budget = memory_budget
        self._takes_channels_last = True
        self._chosen = None if layers is None else addresses(self.model, layers)
        self._seen: Seen | None = None
        if example is not None:
            check_images(self.model, image_of(example))
            self._points(example)

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
        if self._chosen is not None:
            return tuple(address.name for address in self._chosen)
        if self._seen is None:
            raise LayerError(
                "The layers are found at the first call: pass example=images to know them before."
            )
        return tuple(self._seen.points)

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
        self,
        images: Inputs,
        targets: TargetLike | Sequence[TargetLike] | Choice | None = None,
        *,
        augment: Any = None,
    ) -> CAMResult:
        """Explain a batch of images.

        One forward serves all targets and layers; each target costs at most one backward from the
        logits to the deepest layer.

        Parameters
        ----------
        images : Tensor, tuple or dict
            (B, C, *spatial), floating point, on the model's device. Nothing is normalised here. A
            tuple or dict holds the arguments of a model of several inputs; the tensor with the
            most pixels in it is the image.
        targets : Target, callable or sequence of them, optional
            What to explain; one :class:`~unetcam.targets.ClassScore` per class by default. A
            callable makes a score per image, (B,), of the logits: see
            :class:`~unetcam.targets.Function`.
        augment : transform or sequence of transforms, optional
            Flips, transposes, right angles and scales of albumentations, see
            :func:`unetcam.augment.views`. All views that they give are explained for the same
            pixels, and their maps brought back and averaged; :attr:`CAMResult.spread` tells how
            far they differ.

        Returns
        -------
        CAMResult
            Raw maps (B, T, *layer_spatial) by layer, on the model's device.

        Raises
        ------
        LayerError, MemoryBudgetError, ModelError, NumericalError, TargetError
            One sentence each: what is wrong, where, and what to do.
        """
        image = image_of(images)
        check_images(self.model, image)
        explained, score = scoring_of(targets)
        spread = None
        if augment is None:
            collected = self._explain(images, score, self._method)
        else:
            collected, spread = explain_views(
                lambda view, back: self._explain(view, score, self._method, back), images, augment
            )
        check_existing(explained, collected.defined)
        return CAMResult(collected.logits, tuple(explained), collected.maps, self.method, spread)

    def tiled(
        self,
        image: Tensor,
        tile: int | Sequence[int],
        overlap: int | Sequence[int],
        *,
        batch: int = 1,
        targets: TargetLike | Sequence[TargetLike] | Choice | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> CAMResult:
        """Explain an image or volume that doesn't fit, tile by tile.

        The logits are those of the tiles, blended by a Gaussian, and what is explained is the
        network that gives them: see :func:`unetcam.tiled.explain_tiles`. Where the network sees no
        further than a quarter of the overlap, logits and maps are those of the whole image, up to
        rounding. The tiles take turns on the model's device; logits and maps of the whole image
        stay on the image's, which may be another. Methods that are not linear in the gradient, so
        other than gradcam and hirescam, hold the whole layers' channels there as well.

        Parameters
        ----------
        image : Tensor
            (1, C, *spatial) or (C, H, W), floating point, on any device.
        tile, overlap : int or sequence of int
            Pixels, for all axes alike or for each. They and the image's sides should be multiples
            of the network's stride, so that the tiles' maps line up.
        batch : int
            Tiles in one pass.
        targets : Target, callable or sequence of them, optional
            As for a call; masks and pixels are those of the whole image.
        progress : callable, optional
            Is told how many tiles of how many are done, as two integers; there are two or more
            walks over the tiles.

        Returns
        -------
        CAMResult
            Of one image.

        Raises
        ------
        DataError
            For tiles that can't be cut.
        LayerError, ModelError
            Where the tiles' maps or logits don't line up, as those of unpadded convolutions.
        UnetcamError
            For a method that is not made of one gradient.

        Examples
        --------
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
        >>> cam, image = UNetCAM(model, ["1"]), torch.rand(1, 1, 40, 64)
        >>> result = cam.tiled(image, tile=16, overlap=8)
        >>> torch.allclose(result["1"], cam(image)["1"], rtol=1e-5, atol=1e-8)
        True
        """
        # What reads images comes with it, and an explanation without tiles need not wait for that.
        from unetcam.data.tiling import Tiles
        from unetcam.tiled import explain_tiles

        device = next((parameter.device for parameter in self.model.parameters()), None)
        tiles = Tiles.cut(image, tile, overlap, batch, device, progress)
        check_images(self.model, tiles.take([0]))
        explained, score = scoring_of(targets)
        collected = explain_tiles(self._explain, self._method, tiles, score)
        check_existing(explained, collected.defined)
        return CAMResult(collected.logits, tuple(explained), collected.maps, self.method)

    def explain_errors(
        self,
        images: Tensor,
        truth: Tensor | ArrayLike,
        *,
        on: Scale = "logits",
        head: Head = "softmax",
    ) -> Mistakes:
        """What speaks for each class where it is missed, and where it is made up.

        One forward, and one backward for each class and kind of mistake that some image has.

        Parameters
        ----------
        images : Tensor
            (B, C, *spatial), as for a call.
        truth : array_like or Tensor
            Class indices, (*spatial) or (B, *spatial), of the logits' size; -1 where a pixel is
            to be ignored. With ``head="sigmoid"`` and several channels 1 and 0 for each class,
            (C, *spatial) or (B, C, *spatial).
        on, head
            See :class:`~unetcam.targets.RegionScore`.

        Returns
        -------
        Mistakes
            The maps of what is missed and of what is made up, each (B, classes, *layer_spatial)
            by layer and NaN where there is no such pixel, with the numbers of pixels.

        Raises
        ------
        LayerError, ModelError, NumericalError, TargetError
            As a call does.

        Examples
        --------
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))
        >>> truth = torch.zeros(8, 8, dtype=torch.long)
        >>> found = UNetCAM(model, ["0"]).explain_errors(torch.rand(2, 1, 8, 8), truth)
        >>> found.missed["0"].shape, found.missed_pixels.sum() == found.made_up_pixels.sum()
        (torch.Size([2, 3, 8, 8]), tensor(True))
        """
        return explain_errors(lambda choice: self(images, choice), truth, on=on, head=head)

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
            For this field alone, in place of the one given to :class:`UNetCAM`.

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
        images = image[None] if isinstance(image, Tensor) and image.ndim == 3 else image_of(image)
        check_images(self.model, images)
        if len(images) != 1:
            raise ModelError(
                f"A field belongs to one image, and {len(images)} were given: call it for each."
            )
        names = self._points(images) if layer is None else [layer]
        (address,) = addresses(self.model, list(names)[-1:])
        name = address.name
        if address.name != address.module:
            raise LayerError(
                f"A field is of a whole layer that runs once, and '{name}' is none: use cam(...)."
            )
        budget = self._memory_budget if memory_budget is None else memory_budget
        shifts = self._clearly(
            images,
            lambda: shift_derivatives(
                self.model,
                images,
                name,
                self.model.get_submodule(address.module),
                lambda returned: self._logits(returned, images),
                memory=memory_bytes(budget, images.device),
            ),
        )
        return RegionField(shifts.activation[0], shifts.logits[0], shifts.derivative[0], name)

    def _explain(
        self,
        inputs: Inputs,
        score: Scoring,
        method: Method,
        back: Callable[[Tensor], Tensor] = lambda logits: logits,
    ) -> Collected:
        """Explain images by a method, whose logits are brought back before they are scored."""
        images = image_of(inputs)
        model = bound(self.model, detached(inputs))

        def output(returned: Any) -> Tensor:
            return back(self._logits(returned, images))

        def explain(*, channels_last: bool) -> Collected:
            run = Run(
                model,
                images,
                self._points(inputs),
                score,
                output,
                shortcuts=self._shortcuts,
                channels_last=channels_last,
                memory_budget=self._memory_budget,
            )
            return method.explain(run)

        def explain_as_taken() -> Collected:
            channels_last = self._shortcuts and self._takes_channels_last and not images.is_cuda
            try:
                return explain(channels_last=channels_last)
            except RuntimeError as error:
                if not channels_last or _VIEW_REFUSED not in str(error):
                    raise
                self._takes_channels_last = False
                return explain(channels_last=False)

        return self._clearly(inputs, explain_as_taken)

    def _points(self, inputs: Inputs) -> Mapping[str, Point]:
        if self._seen is None or not self._seen.fits(inputs):
            presumption = self._chosen and presumed(self.model, self._chosen, inputs)
            self._seen = presumption or see(self.model, self._chosen, inputs, self._output)
        return self._seen.points

    def _clearly(self, inputs: Inputs, run: Callable[[], T]) -> T:
        """What a run gives, after a traced one where something can't be told without."""
        try:
            return run()
        except UnclearError:
            self._seen = see(self.model, self._chosen, inputs, self._output)
            return run()

    def _logits(self, returned: Any, images: Tensor) -> Tensor:
        if self._output is None:
            choice = self._seen.output if self._seen is not None else None
            return pick_logits(returned, images, choice)
        logits = self._output(returned)
        if isinstance(logits, Tensor) and is_scores(logits, images):
            return one_pixel(logits, images)
        if not isinstance(logits, Tensor) or not is_map(logits, images):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(
                f"output= gave {shape}, which is no segmentation map (B, C, *spatial) for images "
                f"of shape {tuple(images.shape)}: return the logits."
            )
        return logits
