"""docs/truth.md: the rates of all rules, written from the judgements that a run kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from truth_diagnosis import EXPECTED
from truth_effects import CUE_OF
from truth_networks import FAULTS
from truth_rules import LAYERS, MAP_RULES, METHODS
from truth_tables import (
    HEALTHY,
    STRONG,
    SURROUNDINGS,
    Judged,
    Limit,
    Rate,
    best_map_rule,
    cue_networks,
    diagnosis_finds,
    fixed,
    judged_by,
    number,
    of_fault,
    untrue,
)

SURROUNDING_RULES: dict[str, tuple[str, str]] = {
    "Grid Saliency, CBD": ("grid saliency", "cbd"),
    "integrated gradients": ("integrated gradients", "far"),
    "occlusion": ("occlusion", "flip"),
    "`reliance`, windows": ("windows", "flip"),
    "`reliance`, everything": ("windows", "everything"),
}
"""The rules for surroundings: which answer, and which number of it."""


@dataclass(frozen=True)
class Column:
    """One rule of the table: whether it was asked about a network, and whether it finds it."""

    title: str
    rule: str
    finds: Callable[[Judged, str], bool]
    faults: tuple[str, ...]


def columns(networks: Sequence[Judged]) -> tuple[list[Column], dict[str, Limit]]:
    """The columns of the table, and the limits that were fixed for them on the even seeds."""
    healthy = of_fault(networks, *HEALTHY)
    everything = tuple(EXPECTED)
    map_rules = {}
    for fault in everything:
        group = SURROUNDINGS if fault in SURROUNDINGS else (fault,)
        key = "surroundings" if fault in SURROUNDINGS else fault
        if key not in map_rules:
            faulty = cue_networks(networks) if key == "surroundings" else of_fault(networks, *group)
            map_rules[key] = best_map_rule(faulty, healthy)
    limits = {
        title: fixed(title, number(*where), cue_networks(networks), healthy)
        for title, where in SURROUNDING_RULES.items()
    }

    def by_map(network: Judged, fault: str) -> bool:
        return map_rules["surroundings" if fault in SURROUNDINGS else fault].finds(network)

    made = [
        Column("diagnosis", "diagnosis", lambda network, _: diagnosis_finds(network), everything),
        Column(
            "map thresholds",
            "map thresholds",
            lambda network, _: network.answers["map thresholds"]["about told-apart classes"] > 0,
            everything,
        ),
        Column("best map rule", "maps", by_map, everything),
    ]
    for title, (rule, _name) in SURROUNDING_RULES.items():
        finds = limits[title].finds
        made.append(
            Column(title, rule, lambda network, _, finds=finds: finds(network), SURROUNDINGS)
        )
    named = {f"map rule for {fault}": rule for fault, rule in map_rules.items()}
    return made, {**named, **limits}


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def network_table(networks: Sequence[Judged]) -> str:
    """What was trained, and whether it took."""
    rows = []
    for fault in FAULTS:
        made = [one for one in networks if one.truth.fault == fault]
        if not made:
            continue
        iou = np.median([np.mean(one.truth.iou[1:]) for one in made])
        strengths = [one.strength for one in made if one.learned]
        shown = (
            f"{np.median(strengths):.2f} ({min(strengths):.2f} to {max(strengths):.2f})"
            if fault in CUE_OF and strengths
            else ""
        )
        rows.append((fault, len(made), sum(one.learned for one in made), f"{iou:.2f}", shown))
    head = (
        "fault",
        "networks",
        "took it up",
        "median IoU of the objects",
        "true effect of the cue",
    )
    return table(head, rows)


def found_table(networks: Sequence[Judged], made: Sequence[Column], *, even: bool) -> str:
    """How often each rule finds each fault, on one half of the seeds."""
    rows = []
    for fault in EXPECTED:
        cells = [
            str(
                Rate.of(
                    column.finds(one, fault)
                    for one in judged_by(of_fault(networks, fault), column.rule, even=even)
                    if fault not in SURROUNDINGS or one.strength > STRONG
                )
            )
            if fault in column.faults
            else ""
            for column in made
        ]
        rows.append((fault, *cells))
    return table(("fault", *(column.title for column in made)), rows)


def healthy_table(networks: Sequence[Judged], made: Sequence[Column], *, even: bool) -> str:
    """How often each rule finds a fault in a healthy network of one half."""
    rows = []
    for column in made:
        healthy = judged_by(of_fault(networks, *HEALTHY), column.rule, even=even)
        if column.rule == "diagnosis":
            flags = [bool(untrue(one)) for one in healthy]
        else:
            flags = [column.finds(one, SURROUNDINGS[0]) for one in healthy]
        rows.append((column.title, Rate.of(flags)))
    return table(("rule", "healthy networks with a finding that is not true"), rows)


def per_healthy(networks: Sequence[Judged], *, even: bool) -> tuple[float, float, float]:
    """Findings per healthy network: untrue of weight, untrue of any weight, all."""
    healthy = judged_by(of_fault(networks, *HEALTHY), "diagnosis", even=even)
    if not healthy:
        return (float("nan"),) * 3
    return (
        float(np.mean([len(untrue(one)) for one in healthy])),
        float(np.mean([len(untrue(one, of_weight=False)) for one in healthy])),
        float(np.mean([len(one.answers["diagnosis"]["findings"]) for one in healthy])),
    )


def untrue_table(networks: Sequence[Judged]) -> str:
    """Every finding that is not true, of all networks and seeds, by kind."""
    counts: dict[tuple[str, str], int] = {}
    for one in networks:
        if "diagnosis" in one.answers and one.learned:
            for finding in untrue(one):
                key = (finding["kind"], one.truth.fault)
                counts[key] = counts.get(key, 0) + 1
    rows = [
        (kind, fault, count) for (kind, fault), count in sorted(counts.items(), key=lambda x: -x[1])
    ]
    return table(("untrue finding of weight", "in networks with", "how many"), rows)


def window_table(networks: Sequence[Judged]) -> str:
    """How often the window that matters most lies on the cue, over images; odd seeds."""
    rules = ("windows", "grid saliency", "integrated gradients", "occlusion")
    rows = []
    for fault in SURROUNDINGS[:-1]:
        cells = []
        for rule in rules:
            shares = [
                one.answers[rule].get("top on cue")
                for one in judged_by(cue_networks(networks), rule, even=False)
                if one.truth.fault == fault
            ]
            known = [share for share in shares if share is not None and share == share]
            cells.append(f"{np.mean(known):.2f}" if known else "-")
        rows.append((fault, *cells))
    head = ("fault", "`reliance`, object spared", *rules[1:-1], "occlusion, object not spared")
    return table(head, rows)


def auc(bad: Sequence[float], good: Sequence[float]) -> float:
    """How often a faulty network has the larger number than a healthy one."""
    pairs = [
        (b > g) + 0.5 * (b == g) for b in bad for g in good if np.isfinite(b) and np.isfinite(g)
    ]
    return float(np.mean(pairs)) if pairs else float("nan")


def map_table(networks: Sequence[Judged]) -> str:
    """What maps say of healthy networks, and of networks with a far shortcut; all seeds."""
    healthy, far = of_fault(networks, *HEALTHY), of_fault(networks, "far")

    def values(group: Sequence[Judged], name: str) -> list[float]:
        return [number("maps", name)(one) for one in group if "maps" in one.answers]

    rows = []
    for layer in LAYERS:
        classes, random = (
            values(healthy, f"{method}/class/{layer}/far") for method in ("gradcam", "random")
        )
        areas = [
            auc(values(far, name), values(healthy, name))
            for name in (
                f"{method}/{target}/{layer}/far"
                for method in METHODS
                for target in ("class", "region", "contrast")
            )
        ]
        if not classes:
            continue
        rows.append(
            (
                layer,
                f"{np.mean(classes):.2f}",
                f"{np.mean(random):.2f}",
                f"{np.nanmin(areas):.2f} to {np.nanmax(areas):.2f}",
            )
        )
    return table(
        (
            "layer",
            "healthy, class-mean Grad-CAM: share of the map away from the class",
            "the same layers, random channel weights",
            "far shortcut: AUC of that share over all methods and targets",
        ),
        rows,
    )


def limits_table(limits: dict[str, Limit]) -> str:
    """The limits that were fixed on the even seeds."""
    rows = [
        (where, limit.name, f"{limit.value:.3f}")
        for where, limit in limits.items()
        if np.isfinite(limit.value)
    ]
    return table((f"for (of {2 * MAP_RULES} map rules the best)", "number", "from"), rows)


def seconds_table(networks: Sequence[Judged]) -> str:
    """Processor seconds per network of each rule."""
    rules = (
        "diagnosis",
        "map thresholds",
        "maps",
        *dict.fromkeys(r for r, _ in SURROUNDING_RULES.values()),
    )
    rows = []
    for rule in rules:
        times = [one.seconds[rule] for one in networks if rule in one.seconds]
        if times:
            name = f"{rule} (16 of them and the null)" if rule == "maps" else rule
            rows.append((name, f"{np.median(times):.1f}", f"{max(times):.1f}", len(times)))
    return table(("rule", "median seconds", "longest", "networks"), rows)
