"""From judgements to rates: which networks count, what counts as found, and how sure a rate is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from truth_diagnosis import false_findings, found
from truth_effects import CUE_OF, FAR_FAULTS, Truth, learned
from truth_networks import DERIVED, FAULTS, path_of

SURROUNDINGS = (*FAR_FAULTS, "near", "context")
"""The faults that are planted around the objects."""

HEALTHY = ("healthy", "healthy plain")
STRONG = 0.3
"""The true effect from which on a shortcut has to be found."""


@dataclass(frozen=True)
class Judged:
    """One network with all that was said about it, and the seconds that each rule took."""

    truth: Truth
    learned: bool
    answers: dict[str, dict[str, Any]]
    seconds: dict[str, float]

    @property
    def even(self) -> bool:
        """Whether it is of the half on which limits are fixed."""
        return self.truth.seed % 2 == 0

    @property
    def strength(self) -> float:
        """The planted cue's true effect."""
        return self.truth.strength()


def judgement_path(cache: Path, rule: str, fault: str, seed: int) -> Path:
    """Where a judgement of a network is kept; another training is another file."""
    of = path_of(cache, "healthy" if fault in DERIVED else fault, seed).stem
    name = of if fault not in DERIVED else f"{fault.replace(' ', '-')}-of-{of}"
    return cache / rule.replace(" ", "-") / f"{name}.json"


def collect(cache: Path, rules: Iterable[str], seeds: int) -> list[Judged]:
    """Every network whose truth was measured, with the judgements that are there."""
    networks = []
    for seed in range(seeds):
        for fault in FAULTS:
            told = _read(judgement_path(cache, "truth", fault, seed))
            if told is None:
                continue
            truth = Truth(**told["answer"])
            answers, seconds = {}, {}
            for rule in rules:
                kept = _read(judgement_path(cache, rule, fault, seed))
                if kept is not None:
                    answers[rule], seconds[rule] = kept["answer"], kept["processor_seconds"]
            networks.append(Judged(truth, learned(truth), answers, seconds))
    return networks


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return kept


@dataclass(frozen=True)
class Rate:
    """So many of so many, with the 95 % interval of Clopper and Pearson (1934)."""

    hits: int
    trials: int

    @classmethod
    def of(cls, flags: Iterable[bool]) -> Rate:
        """The rate of a list of answers."""
        answers = list(flags)
        return cls(sum(answers), len(answers))

    @property
    def interval(self) -> tuple[float, float]:
        """The interval's ends; 0 and 1 without trials."""
        from scipy.stats import binomtest

        if self.trials == 0:
            return 0.0, 1.0
        ends = binomtest(self.hits, self.trials).proportion_ci(method="exact")
        return float(ends.low), float(ends.high)

    def __str__(self) -> str:
        if self.trials == 0:
            return "-"
        low, high = (f"{end:.2f}".replace("0.", ".", 1) for end in self.interval)
        return f"{self.hits}/{self.trials} ({low} to {high})"


Score = Callable[[Judged], float]


@dataclass(frozen=True)
class Limit:
    """A number's limit, fixed on the even seeds: at or above it there is a finding."""

    name: str
    value: float
    score: Score

    def finds(self, network: Judged) -> bool:
        """Whether the number passes the limit; NaN never does."""
        return bool(self.score(network) >= self.value)


def fixed(name: str, score: Score, faulty: Sequence[Judged], healthy: Sequence[Judged]) -> Limit:
    """The limit with the best balanced accuracy among the even seeds, midway between numbers."""
    return _best(name, score, faulty, healthy)[1]


def _best(
    name: str, score: Score, faulty: Sequence[Judged], healthy: Sequence[Judged]
) -> tuple[float, Limit]:
    bad = np.array([score(network) for network in faulty if network.even])
    good = np.array([score(network) for network in healthy if network.even])
    bad, good = bad[np.isfinite(bad)], good[np.isfinite(good)]
    values = np.unique(np.concatenate([bad, good]))
    if len(bad) == 0 or len(good) == 0:
        return 0.0, Limit(name, float("nan"), score)
    limits = [*(values[1:] + values[:-1]) / 2, float("inf")]
    right = [((bad >= limit).mean() + (good < limit).mean()) / 2 for limit in limits]
    best = int(np.argmax(right))
    return float(right[best]), Limit(name, float(limits[best]), score)


def best_map_rule(faulty: Sequence[Judged], healthy: Sequence[Judged]) -> Limit:
    """The map rule of all methods, targets, layers and statistics that does best on even seeds."""
    networks = [network for network in (*faulty, *healthy) if "maps" in network.answers]
    names = networks[0].answers["maps"] if networks else {}

    def score_of(name: str, sign: float) -> Score:
        return lambda network: sign * network.answers.get("maps", {}).get(name, float("nan"))

    tried = [
        _best(f"{'' if sign > 0 else 'low '}{name}", score_of(name, sign), faulty, healthy)
        for name in names
        if not name.startswith("random/")
        for sign in (1.0, -1.0)
    ]
    if not tried:
        return Limit("none", float("nan"), lambda _: float("nan"))
    return max(tried, key=lambda one: one[0])[1]


def number(rule: str, name: str) -> Score:
    """A score that reads one number of a rule's answer; NaN where the rule was not asked."""
    return lambda network: network.answers.get(rule, {}).get(name, float("nan"))


def of_fault(networks: Sequence[Judged], *faults: str) -> list[Judged]:
    """The networks of some faults that have taken the fault up."""
    return [one for one in networks if one.truth.fault in faults and one.learned]


def diagnosis_finds(network: Judged) -> bool:
    """Whether the diagnosis names the planted fault."""
    return found(network.answers["diagnosis"], network.truth)


def untrue(network: Judged, *, of_weight: bool = True) -> list[dict[str, Any]]:
    """The findings of a network that are not true of it."""
    return false_findings(network.answers["diagnosis"], network.truth, of_weight=of_weight)


def judged_by(networks: Sequence[Judged], rule: str, *, even: bool) -> list[Judged]:
    """The networks of one half that a rule was asked about."""
    return [one for one in networks if rule in one.answers and one.even == even]


def cue_networks(networks: Sequence[Judged]) -> list[Judged]:
    """The networks with a shortcut in the surroundings whose true effect is strong."""
    return [one for one in of_fault(networks, *SURROUNDINGS) if one.strength > STRONG]


def planted_cues() -> dict[str, str]:
    """Each fault's cue."""
    return dict(CUE_OF)
