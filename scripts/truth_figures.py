"""The figures of docs/truth.md and of the README: scenes, the curve, and the planted pair."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import truth_planted
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from truth_diagnosis import EXPECTED
from truth_effects import CUE_OF
from truth_scenes import CUES, World, draw_scene, flipped, render
from truth_tables import Judged, diagnosis_finds

from unetcam.interventions import reliance

CLASS_COLOURS = ListedColormap(["#20242b", "#d55e00", "#cc79a7", "#009e73"])
SLICE_COLOURS = ListedColormap(["#20242b", "#0072b2", "#e69f00", "#cc79a7"])
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}

CUE_TITLES = {
    "tag": "far:\na tag in a corner",
    "dots": "near:\na dot beside it",
    "ground": "context:\nthe ground",
    "place": "position:\nleft or right",
    "tint": "tint\nof the image",
    "blur": "blur\nof the image",
}


def save(figure: Any, path: Path) -> None:
    """Write a figure and let it go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight", facecolor="white")
    plt.close(figure)


def draw_scenes(path: Path) -> None:
    """One scene for each cue, the same scene with the cue flipped, and its mask."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(3, len(CUES), figsize=(10, 5.2))
        random = np.random.default_rng(4)
        for column, cue in enumerate(CUES):
            scene = draw_scene(random, World(cue, contrast=0.0))
            image, mask = render(scene)
            axes[0, column].imshow(image)
            axes[1, column].imshow(render(flipped(scene, cue))[0])
            axes[2, column].imshow(mask, cmap=CLASS_COLOURS, vmin=0, vmax=3, interpolation="none")
            axes[0, column].set_title(CUE_TITLES[cue], fontsize=9)
        for row, name in enumerate(("the scene", "its cue flipped", "the mask")):
            axes[row, 0].set_ylabel(name)
        for one in axes.flat:
            one.set(xticks=[], yticks=[])
        figure.tight_layout(h_pad=0.4, w_pad=0.4)
        save(figure, path)


def draw_strength(networks: Sequence[Judged], path: Path) -> None:
    """What the diagnosis measured against the true effect of the cue, one dot per network."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 4.2))
        faults = [fault for fault in CUE_OF if fault in EXPECTED]
        for number, fault in enumerate(faults):
            shown = [
                one for one in networks if one.truth.fault == fault and "diagnosis" in one.answers
            ]
            for hit in (True, False):
                group = [one for one in shown if diagnosis_finds(one) == hit]
                axes.scatter(
                    [one.strength for one in group],
                    [_measured(one) for one in group],
                    s=34,
                    color=f"C{number}",
                    facecolors=f"C{number}" if hit else "none",
                    label=fault if hit or not any(diagnosis_finds(o) for o in shown) else None,
                )
        axes.plot([0, 1], [0, 1], color="0.8", zorder=0)
        axes.set(
            xlabel="true effect of the cue (the scene drawn again)",
            ylabel="effect that the diagnosis measured",
            xlim=(-0.03, 1.03),
            ylim=(-0.03, 1.03),
        )
        axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
        axes.set_title("filled: a finding of the right kind; open: none", fontsize=9)
        save(figure, path)


def _measured(network: Judged) -> float:
    """The largest effect among the tests of the kind that names the fault, whatever came of it."""
    kinds = EXPECTED[network.truth.fault]
    tests = [
        test["effect"]
        for test in network.answers["diagnosis"]["tests"]
        if test["kind"] in kinds and test["class_index"] in (1, 2, None)
    ]
    return max((effect for effect in tests if effect is not None), default=0.0)


def draw_planted(cache: Path, path: Path, seed: int = 0) -> list[float]:
    """A network with a planted shortcut and its healthy twin, with the tag and without it.

    Between them is what hiding windows shows (``unetcam.interventions.reliance``). Returns the
    share of *other brain* that each network changes over the held-out slices.
    """
    effects = []
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, 5, figsize=(10.5, 5.4))
        for row, kind in enumerate(truth_planted.KINDS[:2]):
            model = truth_planted.network(cache, kind, seed)
            given = truth_planted.examples(kind, seed, training=False)
            effect, _ = truth_planted.true_effect(model, given)
            effects.append(effect)
            number = int(given.cues.flatten(1).any(1).nonzero()[3])
            image, bare = given.images[number : number + 1], given.bare[number : number + 1]
            with torch.inference_mode():
                before, after = (model(shown).argmax(1)[0] for shown in (image, bare))
            leaned = reliance(model, image, given.masks[number : number + 1], classes=[1])
            for column, grey in ((0, image), (2, image), (3, bare)):
                axes[row, column].imshow(grey[0, 0], cmap="gray", vmin=-0.8, vmax=2.0)
            for column, classes in ((1, before), (4, after)):
                axes[row, column].imshow(
                    classes, cmap=SLICE_COLOURS, vmin=0, vmax=3, interpolation="none"
                )
            flips = leaned.maps[0].nan_to_num(0.0).numpy()
            heat = axes[row, 2].imshow(
                flips, cmap="inferno", vmin=0, vmax=1, alpha=np.clip(2 * flips, 0, 0.9)
            )
            name = "its healthy twin" if row else "planted shortcut"
            axes[row, 0].set_ylabel(f"{name}\n{100 * effect:.0f} % of 'other brain' changes")
        titles = (
            "the slice, with a tag",
            "what is predicted",
            "what hiding it would flip",
            "the tag taken out",
            "what is predicted then",
        )
        for column, title in enumerate(titles):
            axes[0, column].set_title(title, fontsize=9)
        for one in axes.flat:
            one.set(xticks=[], yticks=[])
        handles = [
            plt.Line2D([], [], marker="s", linestyle="", color=SLICE_COLOURS(c), label=label)
            for c, label in enumerate(truth_planted.CLASSES)
        ]
        figure.subplots_adjust(wspace=0.06, hspace=0.06, bottom=0.09)
        figure.legend(handles=handles, loc="lower left", ncol=4, frameon=False, fontsize=9)
        scale = figure.colorbar(
            heat, cax=figure.add_axes((0.62, 0.05, 0.26, 0.02)), orientation="horizontal"
        )
        scale.set_label("share of 'other brain' that flips", fontsize=8)
        save(figure, path)
    return effects
