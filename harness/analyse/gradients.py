"""Spectra of the gradients of a family's models, and what they say of the paper's claim."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.analyse.spectra import Norm, mean_absolute_difference

DRAWS = 2000
CLAIM = "a reasoning expert has lower gradients on its chains of thought than the base (paper, Figure 2)"
CLAIM_MAD = "and they differ less from layer to layer (paper, Figure 5)"


@dataclass(frozen=True)
class Series:
    """One model on one calibration set. `model` and `data` are roles (or `base`); `set` names one of the
    role's `calibration_sets`."""

    model: str
    data: str
    set: str | None = None

    @property
    def label(self) -> str:
        return f"{self.model} on {self.data}" + (f" ({self.set})" if self.set else "")


@dataclass(frozen=True)
class Finding:
    """A sentence with its evidence: `effect` is a ratio with its 95 % `interval` over `n` samples; the
    sentence is supported where the whole interval lies below one."""

    sentence: str
    compared: str
    effect: float
    interval: tuple[float, float]
    n: int

    @property
    def supported(self) -> bool:
        return self.interval[1] < 1.0

    @property
    def verdict(self) -> str:
        if self.interval[0] > 1.0:
            return "the opposite holds here"
        return "supported here" if self.supported else "not supported here"

    @property
    def evidence(self) -> str:
        low, high = self.interval
        return f"{self.compared}: ×{self.effect:.3g} [{low:.3g}, {high:.3g}], n = {self.n}"

    def __str__(self) -> str:
        return f"{self.sentence}: {self.verdict} ({self.evidence})"


def by_layer(norms: Sequence[Norm], key: str = "nuclear") -> dict[str, list[float]]:
    """Mean over the samples: projection -> values by layer."""
    found: dict[str, dict[int, list[float]]] = {}
    for norm in norms:
        found.setdefault(norm["module"], {}).setdefault(norm["layer"], []).append(norm[key])
    return {
        module: [sum(values) / len(values) for _, values in sorted(layers.items())]
        for module, layers in found.items()
    }


def table(spectra: dict[str, list[Norm]]) -> list[dict[str, Any]]:
    """One row for each series and projection: mean nuclear and Frobenius norm over layers, and their mean
    absolute difference between neighbouring layers."""
    rows = []
    for label, norms in spectra.items():
        nuclear, frobenius = by_layer(norms), by_layer(norms, "frobenius")
        for module in nuclear:
            rows.append({
                "series": label, "module": module, "nuclear": _mean(nuclear[module]),
                "nuclear_mad": mean_absolute_difference(nuclear[module]),
                "frobenius": _mean(frobenius[module]),
                "frobenius_mad": mean_absolute_difference(frobenius[module]),
                "layers": len(nuclear[module]), "samples": len({norm["sample"] for norm in norms}),
            })  # fmt: skip
    return rows


def findings(spectra: dict[Series, list[Norm]]) -> list[Finding]:
    """Each expert against the base on the same data, and sets of one role against each other on one model.
    The claim is about reasoning experts; of others the comparison is given alone."""
    told = []
    for series, norms in spectra.items():
        base = spectra.get(Series("base", series.data, series.set))
        if series.model == "base" or base is None:
            continue
        about = series.model == "reasoning" and series.set is None
        compared = f"nuclear norm, {series.label} / base on the same"
        data = "its own data" if series.set is None else f"the set `{series.set}`"
        sentence = CLAIM if about else f"`{series.model}` has lower gradients on {data} than the base"
        told.append(Finding(sentence, compared, *ratio(norms, base, _level, paired=True)))
        if about and _layers(norms) > 1:
            told.append(
                Finding(CLAIM_MAD, f"MAD, {series.label} / base", *ratio(norms, base, _mad, paired=True))
            )
    named = [series for series in spectra if series.set]
    for one in named:
        other = Series(one.model, one.data)
        if other in spectra:
            sentence = f"the set `{one.set}` gives `{one.model}` lower gradients than the family's own data"
            given = ratio(spectra[one], spectra[other], _level, paired=False)
            told.append(Finding(sentence, f"nuclear norm, {one.label} / {other.label}", *given))
    return told


def ratio(
    above: Sequence[Norm], below: Sequence[Norm], figure: Any, *, paired: bool, seed: int = 0
) -> tuple[float, tuple[float, float], int]:
    """figure(above) / figure(below) with a bootstrap's 95 % interval over samples; `paired` where both are of
    the same samples. Returns (ratio, interval, samples)."""
    one, other = _samples(above), _samples(below)
    draw, values = random.Random(seed), []
    for _ in range(DRAWS):
        picked = draw.choices(range(len(one)), k=len(one))
        others = picked if paired else draw.choices(range(len(other)), k=len(other))
        values.append(figure(one, picked) / figure(other, others))
    values.sort()
    whole = figure(one, range(len(one))) / figure(other, range(len(other)))
    return whole, (values[int(0.025 * DRAWS)], values[int(0.975 * DRAWS) - 1]), min(len(one), len(other))


def _samples(norms: Sequence[Norm]) -> list[dict[str, list[float]]]:
    """Per sample: projection -> nuclear norm by layer."""
    by_sample: dict[int, list[Norm]] = {}
    for norm in norms:
        by_sample.setdefault(norm["sample"], []).append(norm)
    return [by_layer(own) for _, own in sorted(by_sample.items())]


def _level(samples: Sequence[dict[str, list[float]]], picked: Sequence[int]) -> float:
    return _mean([_mean([_mean(layers) for layers in samples[i].values()]) for i in picked])


def _mad(samples: Sequence[dict[str, list[float]]], picked: Sequence[int]) -> float:
    """Of the mean over the samples, averaged over projections."""
    found = []
    for module in samples[0]:
        lines = [samples[i][module] for i in picked]
        found.append(mean_absolute_difference([_mean(values) for values in zip(*lines, strict=True)]))
    return _mean(found)


def _layers(norms: Sequence[Norm]) -> int:
    return len({norm["layer"] for norm in norms})


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
