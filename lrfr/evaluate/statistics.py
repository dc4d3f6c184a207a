"""Intervals and tests whose unit is the person, not the pair: pairs that share a person are not independent.

Dense lists (all pairs of some images): people are drawn with replacement, a genuine pair of person a weighs w_a, an
impostor pair w_a * w_b, and the interval is a percentile interval of the statistic (Fogliato, Patil and Perona, arXiv
2306.01198, study this family). With ten people in a stratum two small-sample corrections matter: n - 1 of n people are
drawn (Rao and Wu, JASA 1988: n draws make the variance (n - 1)/n of what it should be), and the percentiles are those
of Student's t (Hesterberg, The American Statistician 2015, "expanded percentiles"). Sparse lists (LFW's 6000 pairs):
there the pair's own noise dominates, which the product counts three times; see `dyadic_interval`.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lrfr.evaluate.verification import checked
from lrfr.streams import stream

SPARSE = 5.0  # mean pairs per identity; below it the product bootstrap inflates the variance
SPREAD = 0.5  # of the weights 1 +- SPREAD in `dyadic_interval`; the largest for which a sum of two stays non-negative
Statistic = Callable[[NDArray, NDArray, NDArray], float]


class Interval(NamedTuple):
    """A statistic on the data as they are, and its interval's ends."""

    point: float
    low: float
    high: float


class Difference(NamedTuple):
    """A paired difference a - b with its interval and its two-sided bootstrap p value."""

    diff: float
    low: float
    high: float
    p: float


def normal_quantile(level: float) -> float:
    """Two-sided quantile of the standard normal distribution.

    >>> round(normal_quantile(0.95), 2)
    1.96
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not be {level}.")
    return NormalDist().inv_cdf((1 + level) / 2)


def student_quantile(level: float, freedom: int) -> float:
    """Two-sided quantile of Student's t (Abramowitz and Stegun 26.7.5, two terms).

    >>> round(student_quantile(0.95, freedom=36), 2)
    2.03
    """
    z = normal_quantile(level)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def drawn_people(identities: int) -> int:
    """How many people of a stratum a draw has: one fewer than there are, but two at least, for an impostor pair.

    >>> drawn_people(10), drawn_people(2)
    (9, 2)
    """
    return max(identities - 1, 2)


def identity_counts(identities: int, draws: int, seed: int, stratum: int = 0) -> NDArray[np.int64]:
    """How often each person of one stratum occurs in each draw: int64 (draws, identities), rows sum to `drawn_people`.

    A draw of one person only has no impostor pair: it is drawn anew, unless there is only one person. The draws depend
    on (identities, seed, stratum) alone, so every model meets the same ones: differences are paired.

    >>> identity_counts(identities=10, draws=3, seed=0).sum(axis=1).tolist()
    [9, 9, 9]
    """
    rng, size = stream("bootstrap", seed, stratum), drawn_people(identities)
    counts = rng.multinomial(size, np.full(identities, 1 / identities), size=draws)
    while identities > 1 and (alone := counts.max(axis=1) == size).any():
        counts[alone] = rng.multinomial(size, np.full(identities, 1 / identities), size=alone.sum())
    return counts


def interval_method(id_a: ArrayLike, id_b: ArrayLike) -> str:
    """The interval that `identity_bootstrap` uses for this pair list, by the name that tables print.

    >>> interval_method(["ann", "ann"], ["ann", "bob"])  # one pair a person
    'dyadic multiplier'
    """
    identities = np.union1d(id_a, id_b).size
    return "dyadic multiplier" if np.size(id_a) / identities < SPARSE else "identity bootstrap"


def percentile(draws: NDArray, level: float, freedom: int) -> tuple[float, float]:
    """Expanded percentile interval of draws (n,); freedom: number of people minus number of strata.

    Draws without a value (NaN: no pair of a kind had weight) are left out. Raises ValueError if most have none.

    >>> [round(end, 3) for end in percentile(np.linspace(0, 1, 1001), 0.95, freedom=9)]  # wider than 0.025 ... 0.975
    [0.012, 0.988]
    """
    valid = draws[np.isfinite(draws)]
    if 2 * len(valid) < len(draws):
        raise ValueError("most draws have no genuine or no impostor pair; there are too few people for an interval.")
    tail = NormalDist().cdf(-student_quantile(level, max(freedom, 1)))
    low, high = np.quantile(valid, [tail, 1 - tail])
    return float(low), float(high)


def _evaluated(statistic: Statistic, scores: NDArray, same: NDArray, weights: NDArray) -> float:
    """The statistic of one draw, NaN where it is not defined."""
    if not (weights[same].any() and weights[~same].any()):
        return np.nan
    return float(statistic(scores, same, weights))


def dyadic_signs(identities: int, pairs: int, draws: int, seed: int, stratum: int = 0) -> tuple[NDArray, NDArray]:
    """Coins of `dyadic_interval`, -1 or 1: int8 (draws, identities) and (draws, pairs).

    >>> [coins.shape for coins in dyadic_signs(identities=4, pairs=6, draws=100, seed=0)]
    [(100, 4), (100, 6)]
    """
    rng = stream("dyadic", seed, stratum)
    coin = np.array([-1, 1], dtype=np.int8)
    return rng.choice(coin, (draws, identities)), rng.choice(coin, (draws, pairs))


def dyadic_ends(point: float, shared: NDArray, own: NDArray, level: float) -> tuple[float, float]:
    """Ends of `dyadic_interval`, from the statistic with weights by person and by impostor pair (draws,).

    >>> shared, own = np.array([0.1, 0.3]), np.array([0.2, 0.2])  # variances 0.01 and 0; half width 1.96 * 0.1 / SPREAD
    >>> [round(end, 2) for end in dyadic_ends(0.2, shared, own, 0.95)]
    [-0.19, 0.59]
    """
    shared_variance, own_variance = (np.nanvar(values) / SPREAD**2 for values in (shared, own))
    half = normal_quantile(level) * np.sqrt(max(shared_variance - own_variance, shared_variance / 2))
    return float(point - half), float(point + half)


def dyadic_interval(
    statistic: Statistic, scores: NDArray, same: NDArray, a: NDArray, b: NDArray, draws: int, level: float, seed: int
) -> Interval:
    """Normal interval for sparse pair lists; a, b: int (n,) numbers of the identities.

    The variance wanted is that of dyadic data (Aronow, Samii and Assenova, Political Analysis 2015): covariances of all
    pairs that share a person, each pair once. Random weights 1 + t(e_a + e_b) for impostor and 1 + t e_a for genuine
    pairs (e = -1 or 1 by a coin, one per person; t = SPREAD) give it, but with each impostor pair's own variance twice;
    random weights 1 + t e of single impostor pairs give that part, which is subtracted (at most half of the first).
    Unlike a delete-one jackknife this stays valid for rates at an estimated threshold (EER, TAR).

    >>> a, b, scores = np.arange(6), np.array([0, 1, 2, 4, 5, 3]), np.array([9, 8, 7, 1, 2, 3])
    >>> mean_impostor = lambda scores, same, weights: np.average(scores[~same], weights=weights[~same])
    >>> [round(x, 2) for x in dyadic_interval(mean_impostor, scores, a == b, a, b, draws=999, level=0.95, seed=0)]
    [2.0, 1.16, 2.84]
    """
    person, pair = (SPREAD * signs for signs in dyadic_signs(int(1 + max(a.max(), b.max())), len(scores), draws, seed))
    shared = [_evaluated(statistic, scores, same, 1 + e[a] + np.where(same, 0, e[b])) for e in person]
    own = [_evaluated(statistic, scores, same, 1 + np.where(same, 0, e)) for e in pair]
    point = _evaluated(statistic, scores, same, np.ones(len(scores)))
    return Interval(point, *dyadic_ends(point, np.array(shared), np.array(own), level))


def identity_bootstrap(
    statistic: Statistic,
    scores: ArrayLike,
    same: ArrayLike,
    id_a: ArrayLike,
    id_b: ArrayLike,
    strata: ArrayLike | None = None,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A statistic of a pair list with an interval for its variation over people.

    statistic(scores, same, weights) -> float, as the functions of `lrfr.evaluate.verification`. scores: float (n,);
    same: bool (n,); id_a, id_b: (n,), the person on either side. strata: (n,) labels or None; people are drawn within
    their stratum (in the order of the sorted labels, people in the order of their sorted identities). The method is
    `interval_method(id_a, id_b)`: percentile bootstrap for dense lists; for sparse ones `dyadic_interval`, which needs
    no strata. Raises ValueError if lengths differ, a score is NaN, `same` contradicts the identities, an identity is in
    two strata, a kind of pair is missing, draws < 1, level is not in (0, 1), or like `percentile`.

    >>> from lrfr.evaluate.verification import area_under_roc
    >>> i, j = np.triu_indices(15, 1)  # all pairs of five people's three photographs each
    >>> a, b = i // 3, j // 3
    >>> [round(x, 2) for x in identity_bootstrap(area_under_roc, (a == b) + np.sin(i * j), a == b, a, b, draws=200)]
    [0.8, 0.47, 0.99]
    """
    scores, same, ones = checked(scores, same)
    id_a, id_b = np.asarray(id_a), np.asarray(id_b)
    strata = np.zeros(len(scores), dtype=int) if strata is None else np.asarray(strata)
    if not scores.shape == id_a.shape == id_b.shape == strata.shape:
        raise ValueError("scores, same, id_a, id_b and strata must be vectors of one length.")
    if not np.array_equal(same, id_a == id_b):
        raise ValueError("same must be True exactly where id_a equals id_b.")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, not {draws}.")
    normal_quantile(level)  # refuses an impossible level
    names, number = np.unique(np.concatenate([id_a, id_b]), return_inverse=True)
    a, b = number[: len(scores)], number[len(scores) :]
    stratum_of = np.full(len(names), -1)
    for k, label in enumerate(np.unique(strata)):
        members = np.union1d(a[strata == label], b[strata == label])
        if (stratum_of[members] >= 0).any():
            raise ValueError("an identity occurs in two strata; people are drawn within strata: each needs just one.")
        stratum_of[members] = k
    if interval_method(id_a, id_b) == "dyadic multiplier":
        return dyadic_interval(statistic, scores, same, a, b, draws, level, seed)
    counts, sizes = np.empty((draws, len(names))), np.bincount(stratum_of).tolist()
    for k, size in enumerate(sizes):
        # the factor gives a stratum the same weight among the others in draws as in the data
        counts[:, stratum_of == k] = identity_counts(size, draws, seed, k) * (size / drawn_people(size))
    values = [_evaluated(statistic, scores, same, np.where(same, w[a], w[a] * w[b])) for w in counts]
    ends = percentile(np.array(values), level, len(names) - len(sizes))
    return Interval(_evaluated(statistic, scores, same, ones), *ends)


def paired_difference(
    point_a: float, point_b: float, draws_a: ArrayLike, draws_b: ArrayLike, level: float, freedom: int
) -> Difference:
    """a - b of two models on the same draws (n,), with the interval of `percentile` and a two-sided p.

    The 1 in p counts the data themselves, so p is never 0 (Davison and Hinkley, Bootstrap Methods and their
    Application, 1997, eq. 4.11). Raises ValueError like `percentile`, or if the numbers of draws differ.

    >>> draws = np.linspace(0.01, 0.05, 99)  # model a is better in all of them
    >>> [round(x, 3) for x in paired_difference(0.93, 0.9, 0.9 + draws, np.full(99, 0.9), level=0.95, freedom=39)]
    [0.03, 0.011, 0.049, 0.02]
    """
    draws_a, draws_b = np.asarray(draws_a, dtype=np.float64), np.asarray(draws_b, dtype=np.float64)
    if draws_a.shape != draws_b.shape:
        raise ValueError(f"a paired difference needs the same draws on both sides, not {len(draws_a)}, {len(draws_b)}.")
    difference = draws_a - draws_b
    low, high = percentile(difference, level, freedom)
    valid = difference[np.isfinite(difference)]
    p = 2 * (1 + min(np.sum(valid <= 0), np.sum(valid >= 0))) / (len(valid) + 1)
    return Difference(float(point_a - point_b), low, high, float(min(1.0, p)))


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Holm's (1979) step-down p values of one family, (n,), in the order given. Raises ValueError outside [0, 1].

    >>> holm([0.01, 0.04, 0.03]).tolist()  # 3 * 0.01, then 2 * 0.03; never smaller than the one before
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p values must lie between 0 and 1.")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted
