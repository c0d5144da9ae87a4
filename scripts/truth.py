#!/usr/bin/env python
"""What is found, and what is not: networks with planted faults, judged by several means.

Networks are trained on scenes that can be drawn again with one cue changed, so that what a network
really leans on is known. Each is then given to the diagnosis, and to other rules beside it, with
images and masks as a user has them. Limits are fixed on the even seeds and judged on the odd.

    python scripts/truth.py run --cache truth-cache     # train and judge; goes on where it stopped
    python scripts/truth.py page --cache truth-cache    # docs/truth.md and its figures

The scenes are drawn from photographs inside scikit-image and stardist; nothing is downloaded.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import truth_planted
import typer
from truth_diagnosis import diagnosed
from truth_effects import CUE_OF, measure_truth
from truth_networks import FAULTS, Planted, planted
from truth_rules import RULES
from truth_tables import collect, judgement_path

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)
Cache = Annotated[Path, typer.Option(help="Folder that keeps the networks and every judgement.")]
Seeds = Annotated[int, typer.Option(min=2, help="Networks per fault.")]

OF_OBJECTS = ("grid saliency", "integrated gradients", "occlusion")
"""Rules that take long and ask about surroundings: for networks with a cue and healthy ones."""


ALL_RULES = ("truth", *RULES, "diagnosis")


def judge(cache: Path, rule: str, fault: str, seed: int) -> dict[str, Any]:
    """A rule's answer about one network with the seconds that it took: kept, or asked now."""
    path = judgement_path(cache, rule, fault, seed)
    if path.exists():
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return kept
    ask: dict[str, Callable[[Planted], dict[str, Any]]] = {
        "truth": lambda network: measure_truth(network).to_dict(),
        "diagnosis": diagnosed,
        **RULES,
    }
    network = planted(cache, fault, seed)
    start, processor = time.perf_counter(), time.process_time()
    answer = ask[rule](network)
    told = {
        "seconds": round(time.perf_counter() - start, 2),
        "processor_seconds": round(time.process_time() - processor, 2),
        "answer": answer,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told) + "\n", encoding="utf-8")
    return told


def rules_for(fault: str) -> list[str]:
    """The rules that a fault's networks are judged by, the truth first."""
    asked = fault in CUE_OF or fault.startswith("healthy")
    return [rule for rule in ALL_RULES if asked or rule not in OF_OBJECTS]


@app.command()
def run(
    cache: Cache,
    seeds: Seeds = 10,
    real_seeds: Annotated[int, typer.Option(min=0, help="Networks per real data set.")] = 2,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads for torch.")] = 1,
    rules: Annotated[str, typer.Option(help="Which rules, by commas; all by default.")] = "",
) -> None:
    """Train the networks and judge them, seed by seed, so that a part of it is balanced."""
    torch.set_num_threads(threads)
    wanted = [rule.strip() for rule in rules.split(",") if rule.strip()]
    if unknown := set(wanted) - set(ALL_RULES):
        raise typer.BadParameter(
            f"there is no rule {', '.join(sorted(unknown))}; choose from {', '.join(ALL_RULES)}"
        )
    for seed in range(seeds):
        for fault in FAULTS:
            start = time.perf_counter()
            for rule in rules_for(fault):
                if not wanted or rule in wanted:
                    judge(cache, rule, fault, seed)
            typer.echo(f"seed {seed}, {fault}: {time.perf_counter() - start:.0f} s")
    for seed in range(real_seeds):
        for kind in truth_planted.KINDS:
            truth_planted.judge(cache, kind, seed)
            typer.echo(f"seed {seed}, {kind}")


@app.command()
def figure(
    cache: Cache,
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("docs/images/truth/planted.png"),
) -> None:
    """Draw a network with a planted shortcut beside its healthy twin; trains both where missing."""
    from truth_figures import draw_planted

    shortcut, twin = draw_planted(cache, out)
    typer.echo(
        f"Taking the tag out changes {shortcut:.0%} of the class, {twin:.0%} in the twin: {out}"
    )


@app.command()
def page(
    cache: Cache,
    out: Annotated[Path, typer.Option(help="Folder of the page and its images.")] = Path("docs"),
) -> None:
    """Write docs/truth.md and its figures from what a run kept."""
    from truth_figures import draw_planted, draw_scenes, draw_strength
    from truth_text import write

    networks = collect(cache, ALL_RULES, seeds=99)
    if not networks:
        raise typer.BadParameter(f"{cache} holds no judgement; run: python scripts/truth.py run")
    images = out / "images" / "truth"
    draw_scenes(images / "scenes.png")
    draw_strength(networks, images / "strength.png")
    draw_planted(cache, images / "planted.png")
    text = write(networks, cache)
    (out / "truth.md").write_text(text, encoding="utf-8")
    typer.echo(f"{len(networks)} networks: {out / 'truth.md'}")


if __name__ == "__main__":
    app()
