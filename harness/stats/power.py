"""The smallest true difference that a column could have shown."""

from __future__ import annotations

import math

ALPHA, POWER = 0.05, 0.8
WORST = 0.5  # share of items on which two unrelated models of accuracy one half differ


def detectable_share(n: int, discordance: float | None = None) -> float | None:
    """Difference of two accuracies on the same `n` items that McNemar's test at 5 % finds with 80 % power,
    for a `discordance` share of items on which the two differ (None: the worst case, one half).

    Connor's sample size (Biometrics 43, 1987), n = (z_a sqrt(psi) + z_b sqrt(psi - d^2))^2 / d^2, solved for
    d. None where no difference is found so often: d may not exceed psi."""
    psi = WORST if discordance is None else discordance
    if n < 1 or psi <= 0:
        return None
    z_a, z_b = _normal(1 - ALPHA / 2), _normal(POWER)

    def needed(d: float) -> float:
        return (z_a * math.sqrt(psi) + z_b * math.sqrt(max(0.0, psi - d * d))) ** 2 / (d * d)

    low, high = 1e-9, psi
    if needed(high) > n:
        return None
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if needed(middle) > n else (low, middle)
    return high


def detectable_mean(n: int, spread: float) -> float | None:
    """The same for scores of any kind: (z_a + z_b) sd / sqrt(n), `spread` the sd of paired differences."""
    if n < 2 or not spread:
        return None
    return (_normal(1 - ALPHA / 2) + _normal(POWER)) * spread / math.sqrt(n)


def _normal(share: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(share)
