"""UNetCAM: the one entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, get_args

from numpy.typing import ArrayLike
from torch import Tensor, nn

from unetcam import methods
from unetcam.engine import Collected
from unetcam.error_maps import Mistakes, explain_errors
from unetcam.errors import LayerError, UnetcamError
from unetcam.methods import Method
from unetcam.methods.gradient import check_graph
from unetcam.methods.sign import Sign, Signed, check_sign, signed_maps, signed_scoring
from unetcam.models.io import Inputs, check_images, image_of
from unetcam.models.loaded_model import LoadedModel
from unetcam.models.outputs import Output
from unetcam.models.tapped_model import TappedModel
from unetcam.region_field import RegionField, field_of
from unetcam.result import CAMResult
from unetcam.targets import Choice, Head, Scale, Target, TargetLike, check_existing
from unetcam.targets.base import require
from unetcam.targets.selection import scoring_of
from unetcam.view_averaging import explain_views

__all__ = ["UNetCAM"]


class UNetCAM:
    """Class activation maps of a segmentation network, for all layers and targets at once.

    Hooks live only inside a call. What stays between calls is the network's trace, which a
    ``with`` block lets go of at its end (not that of a LoadedModel, which is its owner's) together
    with the memory that torch keeps for itself on a GPU; a later call traces anew.

    Parameters
    ----------
    model : nn.Module or LoadedModel
        Maps images (B, C, *spatial) to logits (B, classes, *spatial); 2-D or 3-D. It is evaluated
        (dropout off, batch statistics frozen) and left exactly as it was found. A classifier's
        scores (B, classes) are a map of one pixel.
    layers : sequence of str or nn.Module, optional
        What to explain, in the order in which the maps are wanted. None takes every decoder layer,
        deepest first, found by tracing the model on the first images that are explained; of a
        method for the last layer alone (CAM), that one.
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
    head : {"softmax", "sigmoid"}
        How the network's channels are read: with "softmax" a pixel belongs to one class; with
        "sigmoid" (multi-label, nested regions) to each class whose logit is above zero. It holds
        for the result's prediction, for errors, and for every target that does not say otherwise.
    sign : {"positive", "negative", "signed"}
        What the maps show: evidence for the target; evidence against it, which is evidence for
        its negation; or the first less the second, where maps have both signs.
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
        model: nn.Module | LoadedModel,
        layers: Sequence[str | nn.Module] | None = None,
        method: str | Method = "gradcam",
        *,
        output: Output | None = None,
        example: Inputs | None = None,
        head: Head | None = None,
        sign: Sign = "positive",
        shortcuts: bool = True,
        memory_budget: int | float | None = None,
    ) -> None:
        self._method = methods.registry.chosen(method)
        check_sign(sign, self._method)
        if head is not None:
            require("head", head, get_args(Head), "kind of head")
        self._sign: Sign = sign
        self._head = head
        self.loaded = LoadedModel.of(model, example, output=output)
        self._is_own = self.loaded is not model
        is_method = isinstance(layers, str) and layers in methods.names() and method == "gradcam"
        if is_method and layers not in dict(self.model.named_modules()):
            raise LayerError(
                f"'{layers}' is a method and no layer of the model: give it as method='{layers}'."
            )
        self._tapped = TappedModel(
            self.loaded,
            layers,
            self._method.suitable,
            shortcuts=shortcuts,
            memory_budget=memory_budget,
        )

    @property
    def model(self) -> nn.Module:
        """The explained model, out of what wraps it."""
        return self.loaded.module

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
        layers = self._tapped.layers
        if layers is None:
            raise LayerError(
                "The layers are found at the first call: pass example=images to know them before."
            )
        return layers

    def __repr__(self) -> str:
        layers = self._tapped.layers
        listed = "layers not found yet" if layers is None else ", ".join(layers)
        return f"UNetCAM({type(self.model).__name__}, {self.method}: {listed})"

    def __enter__(self) -> UNetCAM:
        return self

    def __exit__(self, *raised: object) -> None:
        """Let go of the trace and of the memory that torch keeps; the layers' names stay."""
        self._tapped.close()
        if self._is_own:
            self.loaded.forget()

    def __call__(
        self,
        images: Inputs,
        targets: TargetLike | Sequence[TargetLike] | Choice | None = None,
        *,
        augment: Any = None,
        create_graph: bool = False,
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
            :func:`unetcam.view_averaging.views`. All views that they give are explained for the
            same pixels, and their maps brought back and averaged; :attr:`CAMResult.spread` tells
            how far they differ.
        create_graph : bool
            Keep the maps differentiable, with respect to the parameters that require a gradient
            and to the images where they do, so that they can stand in a loss; the logits as well.
            For methods made of gradients; every backward is whole and its graph is kept.

        Returns
        -------
        CAMResult
            Raw maps (B, T, *layer_spatial) by layer, on the model's device.

        Raises
        ------
        LayerError, MemoryBudgetError, ModelError, NumericalError, TargetError
            One sentence each: what is wrong, where, and what to do.
        """
        check_images(self.model, image_of(images))
        if create_graph:
            check_graph(self._method)
            if augment is not None:
                raise UnetcamError("create_graph= takes images as they are: leave out augment=.")
        scoring = scoring_of(targets, self._head_of(images))

        explain = partial(
            self._tapped.explain,
            method=Signed(self._method, self._sign),
            create_graph=create_graph,
        )
        if augment is None:
            return self._result(explain(images, scoring))
        return self._result(*explain_views(explain, images, scoring, augment))

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
        network that gives them: see :func:`unetcam.tiling.explain_tiles`. Where the network sees no
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
            Is told how many tiles of how many are done; there are two or more walks over them.

        Returns
        -------
        CAMResult

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
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
        >>> cam, image = UNetCAM(model, ["1"]), torch.rand(1, 1, 40, 64)
        >>> result = cam.tiled(image, tile=16, overlap=8)
        >>> torch.allclose(result["1"], cam(image)["1"], rtol=1e-5, atol=1e-8)
        True
        """
        # What reads images comes with it, and an explanation without tiles need not wait for that.
        from unetcam.data.tiles import Tiles
        from unetcam.tiling import explain_tiles

        tiles = Tiles.cut(image, tile, overlap, batch, self.loaded.device, progress)
        check_images(self.model, tiles.take([0]))
        head = self._head_of(tiles.take([0]))
        scoring = signed_scoring(scoring_of(targets, head), self._sign)
        collected = explain_tiles(self._tapped.explain, self._method, tiles, scoring)
        return self._result(signed_maps(collected, self._sign))

    def explain_errors(
        self,
        images: Tensor,
        truth: Tensor | ArrayLike,
        *,
        on: Scale = "logits",
        head: Head | None = None,
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
            See :class:`~unetcam.targets.RegionScore`; this UNetCAM's head by default.

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
        >>> mistakes = UNetCAM(model, ["0"]).explain_errors(torch.rand(2, 1, 8, 8), truth)
        >>> mistakes.missed["0"].shape
        torch.Size([2, 3, 8, 8])
        >>> bool(mistakes.missed_pixels.sum() == mistakes.made_up_pixels.sum())
        True
        """
        head = self._head_of(images) if head is None else head
        return explain_errors(lambda choice: self(images, choice), truth, on=on, head=head)

    def field(
        self,
        image: Tensor,
        layer: str | None = None,
        *,
        memory_budget: int | float | None = None,
    ) -> RegionField:
        """The field of one image at one layer: see :class:`~unetcam.region_field.RegionField`.

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
        return field_of(self._tapped, image, layer, self.method, memory_budget=memory_budget)

    def _head_of(self, images: Inputs) -> Head:
        """Whether classes exclude one another: as it was said, or as the network's end shows."""
        self.loaded.look(images)
        return self._head or self.loaded.head

    def _result(
        self,
        collected: Collected,
        spread: Mapping[str, Tensor] | None = None,
    ) -> CAMResult:
        targets = [one for one in collected.targets if isinstance(one, Target)]
        check_existing(targets, collected.defined)
        return CAMResult(
            collected.logits,
            collected.targets,
            collected.maps,
            self.method,
            spread,
            self._method.settings | ({} if self._sign == "positive" else {"sign": self._sign}),
            self._head or self.loaded.head,
            collected.emptied,
        )
