"""Scenes whose true cause is known: the same scene can be drawn again with one cue changed.

A scene is a frozen list of draws: objects with their outline, class and texture, and the cues
around them. The textures are photographs that ship inside scikit-image and stardist, tinted so
that channel order matters. Drawing a scene twice gives the same pixels; drawing it with one cue
replaced changes that cue and nothing else, so what a network does then is the cue's true effect.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

SIDE = 64
"""Height and width of a scene in pixels."""

CLASSES = ("background", "brick", "tissue", "nuclei")
"""What a mask's values mean; *brick* and *tissue* are the two that a shortcut tells apart."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Normalisation that every network here expects of images scaled to [0, 1] (ImageNet's)."""

CUES = ("tag", "dots", "ground", "place", "tint", "blur")
"""What can stand for the class in place of the texture."""

Cue = Literal["tag", "dots", "ground", "place", "tint", "blur"]

TAG_SIDE = 7
DOT_RADIUS = 2.0
DOT_GAP = 6.5  # from the outline to the dot's centre: outside a spared band of two pixels
_TINTS = np.array([[1.14, 1.0, 0.84], [0.84, 1.0, 1.14]])
_BLUR = (0.0, 1.1)
_COLOURS = {
    "brick": ((70, 40, 35), (215, 160, 125)),
    "tissue": ((60, 40, 85), (215, 170, 215)),
    "nuclei": ((25, 60, 45), (150, 235, 170)),
    "grass": ((35, 50, 30), (150, 165, 120)),
    "gravel": ((45, 45, 40), (170, 160, 145)),
}


@dataclass(frozen=True)
class Blob:
    """One object: a smooth star-shaped outline filled with a texture.

    ``centre`` (y, x) and ``radius`` are in pixels, ``phases`` turn the outline's two harmonics,
    ``label`` is the class in the mask, ``texture`` the class whose texture it shows and
    ``contrast`` how much of that texture is left (0: an even mixture of brick and tissue).
    ``dot`` is the direction of the dot beside it in radians, None without one.
    """

    centre: tuple[float, float]
    radius: float
    phases: tuple[float, float]
    label: int
    texture: int
    contrast: float
    corner: tuple[int, int]
    dot: float | None


@dataclass(frozen=True)
class Scene:
    """Everything that one image is drawn from.

    ``ground`` is 0 for grass and 1 for gravel, ``tags`` the corners (0 to 3) that hold a tag,
    ``tint`` and ``blur`` run from 0 (warm, sharp) to 1 (cold, blurred).
    """

    blobs: tuple[Blob, ...]
    ground: int
    ground_corner: tuple[int, int]
    tags: tuple[int, ...]
    spare_corner: int
    tint: float
    blur: float
    noise: int


@dataclass(frozen=True)
class World:
    """How scenes are drawn: which cue tells brick from tissue, and how much texture is left.

    ``cue`` None draws every cue independently of the class (or leaves it out where ``plain``),
    so that only the texture tells; otherwise the cue always agrees with the class.
    """

    cue: Cue | None = None
    contrast: float = 1.0
    agreement: float = 1.0
    tags: int = 1
    plain: bool = False


@lru_cache(maxsize=1)
def textures() -> dict[str, np.ndarray[Any, Any]]:
    """Read the five textures as (H, W, 3) float32 in [0, 1]."""
    from skimage import data
    from skimage.transform import resize
    from stardist.data import test_image_nuclei_2d

    grey = {
        "brick": (data.brick(), 0.3),
        "tissue": (data.immunohistochemistry().mean(axis=-1), 0.4),
        "nuclei": (np.sqrt(test_image_nuclei_2d().astype(float)), 0.3),
        "grass": (data.grass(), 0.5),
        "gravel": (data.gravel(), 0.5),
    }
    coloured = {}
    for name, (image, scale) in grey.items():
        small = resize(image.astype(float), [round(side * scale) for side in image.shape])
        low, high = np.percentile(small, (1, 99))
        level = np.clip((small - low) / (high - low), 0, 1)[..., None]
        dark, light = (np.array(colour) / 255 for colour in _COLOURS[name])
        coloured[name] = (dark + level * (light - dark)).astype(np.float32)
    return coloured


def draw_scene(random: np.random.Generator, world: World) -> Scene:
    """Draw one scene of a world."""
    shared = int(random.integers(1, 3))  # the class of all objects where one cue tells it
    whole = world.cue in ("tag", "ground", "tint", "blur")
    blobs: list[Blob] = []
    labels = [3] * bool(random.random() < 0.6)
    count = int(random.integers(1, 3))
    labels += [shared if whole else int(random.integers(1, 3)) for _ in range(count)]
    for label in labels:
        radius = float(random.uniform(6.0, 9.5))
        for _ in range(30):
            y, x = random.uniform(radius + 3, SIDE - radius - 3, size=2)
            if _fits(y, x, radius, blobs, halves=world.cue == "place"):
                break
        else:
            continue
        if world.cue == "place" and label != 3:
            label = 1 if x < SIDE / 2 else 2
        with_dot = random.random() < 0.5 if world.cue != "dots" or label == 3 else label == 1
        blobs.append(
            Blob(
                centre=(float(y), float(x)),
                radius=radius,
                phases=tuple(random.uniform(0, 2 * np.pi, size=2).tolist()),
                label=label,
                texture=label,
                contrast=1.0 if label == 3 else world.contrast,
                corner=tuple(random.integers(0, 1000, size=2).tolist()),
                dot=float(random.uniform(0, 2 * np.pi)) if with_dot and not world.plain else None,
            )
        )
    corners = tuple(random.permutation(4)[: world.tags].tolist())
    agrees = random.random() < world.agreement
    told = shared - 1 if agrees else 2 - shared  # what an image's own cue says: 0 brick, 1 tissue
    tagged = told == 0 if world.cue == "tag" else random.random() < 0.5
    free = world.plain
    return Scene(
        blobs=tuple(blobs),
        ground=told if world.cue == "ground" else 0 if free else int(random.integers(2)),
        ground_corner=tuple(random.integers(0, 1000, size=2).tolist()),
        tags=corners if tagged and not free else (),
        spare_corner=corners[0],
        tint=float(told) if world.cue == "tint" else 0.5 if free else float(random.random()),
        blur=float(told) if world.cue == "blur" else 0.0 if free else float(random.random()),
        noise=int(random.integers(2**31)),
    )


def _fits(y: float, x: float, radius: float, blobs: list[Blob], *, halves: bool) -> bool:
    """Whether an outline here keeps clear of the tags' corners, the others and the middle."""
    reach = 1.2 * radius
    edge = TAG_SIDE + 4
    if min(y, SIDE - y) - reach < edge and min(x, SIDE - x) - reach < edge:
        return False
    if halves and abs(x - SIDE / 2) < reach:
        return False
    return all(
        np.hypot(y - other.centre[0], x - other.centre[1]) > reach + 1.2 * other.radius + 3
        for other in blobs
    )


def flipped(scene: Scene, cue: Cue) -> Scene:
    """The same scene with one cue as the other class has it."""
    if cue == "tag":
        return replace(scene, tags=() if scene.tags else (scene.spare_corner,))
    if cue == "ground":
        return replace(scene, ground=1 - scene.ground)
    if cue == "tint":
        return replace(scene, tint=1 - scene.tint if scene.tint != 0.5 else 0.0)
    if cue == "blur":
        return replace(scene, blur=1 - scene.blur)
    if cue == "dots":
        return replace(
            scene,
            blobs=tuple(
                blob
                if blob.label == 3  # their dots mean nothing
                else replace(blob, dot=blob.phases[0] if blob.dot is None else None)
                for blob in scene.blobs
            ),
        )
    mirrored = (
        replace(blob, centre=(blob.centre[0], SIDE - blob.centre[1])) for blob in scene.blobs
    )
    return replace(scene, blobs=tuple(mirrored))


def render(scene: Scene) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Draw a scene: an image (64, 64, 3) float32 in [0, 1] and its mask (64, 64) of classes."""
    image = _cut(("grass", "gravel")[scene.ground], scene.ground_corner).copy()
    mask = np.zeros((SIDE, SIDE), dtype=np.int64)
    for blob in scene.blobs:
        inside = _inside(blob)
        own = _cut(CLASSES[blob.texture], blob.corner)
        if blob.contrast < 1:
            even = (_cut("brick", blob.corner) + _cut("tissue", blob.corner)) / 2
            own = even + blob.contrast * (own - even)
        image[inside] = own[inside]
        mask[inside] = blob.label
    for blob in scene.blobs:
        if blob.dot is not None:
            image[_dot(blob) & (mask == 0)] = (0.95, 0.2, 0.2)
    for corner in scene.tags:
        image[tag_window(corner)] = _tag_picture()
    image = image * (_TINTS[0] + scene.tint * (_TINTS[1] - _TINTS[0]))
    width = _BLUR[0] + scene.blur * (_BLUR[1] - _BLUR[0])
    if width > 0.05:
        image = gaussian_filter(image, (width, width, 0))
    image = image + np.random.default_rng(scene.noise).normal(0, 0.015, image.shape)
    return np.clip(image, 0, 1).astype(np.float32), mask


def render_all(scenes: list[Scene]) -> tuple[Tensor, Tensor]:
    """Draw scenes as normalised (N, 3, 64, 64) float32 images and (N, 64, 64) int64 masks."""
    drawn = [render(scene) for scene in scenes]
    images = np.stack([image for image, _ in drawn])
    normalised = ((images - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2)
    masks = np.stack([mask for _, mask in drawn])
    return torch.from_numpy(np.ascontiguousarray(normalised)), torch.from_numpy(masks)


def cue_region(scene: Scene, cue: Cue) -> np.ndarray[Any, Any]:
    """Where a cue stands, (64, 64) bool: nothing for one that has no place of its own."""
    region = np.zeros((SIDE, SIDE), dtype=bool)
    if cue == "tag":
        for corner in scene.tags:
            region[tag_window(corner)] = True
    if cue == "dots":
        for blob in scene.blobs:
            if blob.dot is not None and blob.label != 3:  # nuclei have dots that mean nothing
                region |= _dot(blob)
    if cue == "ground":
        region[:] = True
        for blob in scene.blobs:
            region &= ~_inside(blob)
    return region


def tag_window(corner: int) -> tuple[slice, slice]:
    """Rows and columns of the tag in a corner, 0 to 3 from the top left in reading order."""
    low, high = slice(1, 1 + TAG_SIDE), slice(SIDE - 1 - TAG_SIDE, SIDE - 1)
    return (low if corner < 2 else high), (low if corner % 2 == 0 else high)


def _tag_picture() -> np.ndarray[Any, Any]:
    picture = np.full((TAG_SIDE, TAG_SIDE, 3), (0.95, 0.9, 0.1), dtype=np.float32)
    picture[1:-1, 3] = picture[3, 1:-1] = 0.05
    return picture


def _cut(name: str, corner: tuple[int, int]) -> np.ndarray[Any, Any]:
    texture = textures()[name]
    top, left = (at % (length - SIDE) for at, length in zip(corner, texture.shape[:2], strict=True))
    return texture[top : top + SIDE, left : left + SIDE]


def _polar(blob: Blob) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rows, columns = np.ogrid[:SIDE, :SIDE]
    down, right = rows + 0.5 - blob.centre[0], columns + 0.5 - blob.centre[1]
    return np.hypot(down, right), np.arctan2(down, right)


def _outline(blob: Blob, angle: Any) -> Any:
    wave = 1 + 0.12 * np.cos(2 * angle + blob.phases[0]) + 0.08 * np.cos(3 * angle + blob.phases[1])
    return blob.radius * wave


def _inside(blob: Blob) -> np.ndarray[Any, Any]:
    distance, angle = _polar(blob)
    inside: np.ndarray[Any, Any] = distance < _outline(blob, angle)
    return inside


def _dot(blob: Blob) -> np.ndarray[Any, Any]:
    """The dot's disc; turned until it lies inside the image."""
    rows, columns = np.ogrid[:SIDE, :SIDE]
    for turn in range(16):
        angle = (blob.dot or 0.0) + turn * np.pi / 8
        reach = _outline(blob, angle) + DOT_GAP
        y, x = blob.centre[0] + reach * np.sin(angle), blob.centre[1] + reach * np.cos(angle)
        if min(y, x) > DOT_RADIUS and max(y, x) < SIDE - DOT_RADIUS:
            break
    disc: np.ndarray[Any, Any] = np.hypot(rows + 0.5 - y, columns + 0.5 - x) < DOT_RADIUS
    return disc
