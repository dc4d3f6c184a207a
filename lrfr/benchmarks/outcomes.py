"""What a benchmark hands on and hands back for a model; how models are compared: intervals, paired differences.

Probes (identification): people are drawn with replacement within strata, their probes with them; the gallery stays as
it is, so the intervals say nothing about another gallery. Thresholds are estimated anew in every draw (see
`Outcome.statistics`). Pairs (verification): the dyadic multiplier of `statistics.dyadic_interval`, since these lists
hold one to three pairs a person.

Beside the bootstrap, McNemar's exact test for metrics that count single decisions. It takes decisions as independent,
which probes of one person are not, so where the two disagree the bootstrap is the one to believe. Holm's correction is
over the pairs of models that one question asks for, within one metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lrfr.evaluate.statistics import (
    SPREAD,
    Difference,
    dyadic_ends,
    dyadic_signs,
    holm,
    identity_counts,
    normal_quantile,
    paired_difference,
    percentile,
)
from lrfr.gate.trees import Count, Faces

CHUNK = 2**22  # numbers drawn at a time
SEED = 0  # of the draws: one for all, so that differences are paired

Statistic = Callable[[NDArray[np.float64]], float]


class Outcome(NamedTuple):
    """One model on one set, n = size probes or pairs (the benchmark names their order).

    metrics: what tables print, rates in [0, 1]. counts: sizes and failed acquisitions (fta...), for the same row of the
    table. decisions: bool (n,) or of the mated probes alone, what was right, for McNemar's test; only of metrics that
    count single decisions. statistics: weights (n,) -> the metric, with thresholds estimated anew from the weighted
    list where the protocol estimates them from the test itself; weights of one give the value in `metrics`.
    """

    size: int
    metrics: dict[str, float]
    counts: dict[str, int]
    decisions: dict[str, NDArray[np.bool_]]
    statistics: dict[str, Statistic]


Outcomes = Mapping[str, Outcome]  # by model
Vectors = Mapping[str, NDArray]  # role -> embeddings (N, D)


class Draws(NamedTuple):
    """values: model -> metric -> float: the metric itself, then its draws; of pairs the draws by person, then by pair.

    freedom: people minus strata, or None for pairs. level: of the intervals.
    """

    values: dict[str, dict[str, NDArray[np.float64]]]
    freedom: int | None
    level: float


class Images(NamedTuple):
    """Images of one role. name(i): for messages. read(i): uint8 (H, W, 3) RGB, or UserError.

    points(i): float (5, 2), landmarks in pixels as `align.TEMPLATE` has them; None where the set has no landmarks.
    """

    size: int
    name: Callable[[int], str]
    read: Callable[[int], NDArray]
    points: Callable[[int], NDArray] | None = None


class Protocol(NamedTuple):
    """evaluate: a model's embeddings by role -> its outcome. draw: outcomes by model, draws=, level= -> `Draws`."""

    evaluate: Callable[[Vectors], Outcome]
    draw: Callable[..., Draws]


class Opened(NamedTuple):
    """A set that has been read and checked, with no image decoded.

    name: of the results. policies: keys of `acquisition.FACES` that it allows, the first is the default.
    """

    name: str
    images: dict[str, Images]
    counts: tuple[Count, ...]
    protocols: dict[str, Protocol]
    policies: tuple[str, ...]


def images_of(faces: Faces, landmarks: Mapping[str, NDArray] | None = None) -> Images:
    """Files of one role. landmarks: name without suffix -> (4, 2): eyes, nose, and the middle of the mouth.

    The mouth counts twice, once for each corner: least squares over both corners are those over their mean, twice.
    """

    def points(i: int) -> NDArray:
        return landmarks[Path(faces.names[i]).stem][[0, 1, 2, 3, 3]]

    return Images(len(faces), lambda i: str(faces.folder / faces.names[i]), faces.read, points if landmarks else None)


def mean_of(values: NDArray, chosen: slice | NDArray[np.bool_] = slice(None)) -> Statistic:
    """The weighted mean of values (n,), which belong to the `chosen` ones of all weights; NaN if nothing has weight."""
    values = np.asarray(values, dtype=np.float64)

    def mean(weights: NDArray[np.float64]) -> float:
        own = weights[chosen]
        return float(values @ own / own.sum()) if own.any() else np.nan

    return mean


def accuracy_of(right: NDArray[np.bool_], same: NDArray[np.bool_]) -> Statistic:
    """The weighted share of right pairs (n,), where the list fixes how many pairs of each kind there are."""
    kinds = [(kind.mean(), mean_of(right[kind], kind)) for kind in (same, ~same)]
    return lambda weights: sum(share * rate(weights) for share, rate in kinds)


def table(outcomes: Outcomes) -> pd.DataFrame:
    """Tidy rows model, metric, value, and a column for each count."""
    found = [(model, outcome, metric) for model, outcome in outcomes.items() for metric in outcome.metrics]
    return pd.DataFrame([{"model": m, "metric": x, "value": o.metrics[x], **o.counts} for m, o, x in found])


def mcnemar(right_a: ArrayLike, right_b: ArrayLike) -> tuple[int, int, float]:
    """McNemar's exact test (binomial, two-sided) of two models' decisions, bool (n,), on the same items.

    Returns how often only a and only b was right, and p. Raises ValueError if lengths differ.
    """
    right_a, right_b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if right_a.shape != right_b.shape:
        raise ValueError(f"both models need decisions on the same items, not {right_a.shape} and {right_b.shape}.")
    only_a, only_b = int(np.sum(right_a & ~right_b)), int(np.sum(right_b & ~right_a))
    size, term, tail = only_a + only_b, 1, 0
    for k in range(min(only_a, only_b) + 1):  # whole numbers: binomial coefficients
        tail += term
        term = term * (size - k) // (k + 1)
    return only_a, only_b, min(1.0, 2 * tail / 2**size)


def check(outcomes: Outcomes, *vectors: NDArray) -> None:
    """Raise ValueError unless there are models, of the same metrics, and every vector has the outcomes' length."""
    if len({tuple(outcome.statistics) for outcome in outcomes.values()}) != 1:
        raise ValueError("the models have different metrics, or there are none; compare outcomes of one benchmark.")
    shapes = {vector.shape for vector in vectors} | {(outcome.size,) for outcome in outcomes.values()}
    if len(shapes) != 1:
        raise ValueError(f"outcomes, and who is in them, must be of one length, not {sorted(shapes)}.")


def evaluated(
    outcomes: Outcomes, weights: Iterator[NDArray], defined: Callable[[NDArray], bool]
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Every metric of every model under each of the weights; NaN under those for which no metric is defined."""
    cells = [(model, metric, s) for model, outcome in outcomes.items() for metric, s in outcome.statistics.items()]
    rows = [[statistic(w) for *_, statistic in cells] if defined(w) else [np.nan] * len(cells) for w in weights]
    values: dict[str, dict[str, NDArray[np.float64]]] = {model: {} for model in outcomes}
    for (model, metric, _), column in zip(cells, np.array(rows).T, strict=True):
        values[model][metric] = column
    return values


def probe_weights(identities: NDArray, strata: NDArray, draws: int) -> Iterator[NDArray[np.float64]]:
    """Weights (n,) of the data themselves, all one, and of each draw, by (identities, strata) alone."""
    yield np.ones(len(identities))
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    names = [np.unique(identities[rows], return_inverse=True) for rows in members]
    size = max(1, CHUNK // len(identities))
    for number, start in enumerate(range(0, draws, size)):
        block = np.empty((min(size, draws - start), len(identities)))
        for stratum, ((people, place), rows) in enumerate(zip(names, members, strict=True)):
            counts = identity_counts(len(people), len(block), SEED, stratum + number * len(names))
            block[:, rows] = counts[:, place]
        yield from block


def draw_probes(outcomes: Outcomes, identities: ArrayLike, strata: ArrayLike, draws: int, level: float) -> Draws:
    """Draw the people of n probes. identities: (n,), of an unknown person a label of its own; strata: (n,).

    SurvFace: mated and unmated probes are two strata, so that every draw has both. Raises ValueError like `check`.
    """
    identities, strata = np.asarray(identities), np.asarray(strata)
    check(outcomes, identities, strata)
    freedom = sum(len(np.unique(identities[strata == stratum])) - 1 for stratum in np.unique(strata))
    weights = probe_weights(identities, strata, draws)
    return Draws(evaluated(outcomes, weights, lambda w: True), freedom, level)


def pair_weights(same: NDArray[np.bool_], a: NDArray, b: NDArray, draws: int) -> Iterator[NDArray[np.float64]]:
    """Weights (n,) of the data, of the draws by person, and of the draws by impostor pair (`dyadic_interval`)."""
    yield np.ones(len(same))
    by_person, by_pair = dyadic_signs(int(max(a.max(), b.max())) + 1, len(same), draws, SEED)
    for coins in by_person:
        yield 1 + SPREAD * (coins[a] + np.where(same, 0, coins[b]))
    for coins in by_pair:
        yield 1 + SPREAD * np.where(same, 0, coins)


def draw_pairs(outcomes: Outcomes, same: ArrayLike, a: ArrayLike, b: ArrayLike, draws: int, level: float) -> Draws:
    """Draw the people of n pairs. same: bool (n,); a, b: (n,), who is on either side.

    Of few people, a draw may give one kind of pairs no weight: it has no rates (NaN). Raises ValueError if `same`
    contradicts the identities, or like `check`.
    """
    same, a, b = np.asarray(same).astype(bool), np.asarray(a), np.asarray(b)
    check(outcomes, same, a, b)
    if not np.array_equal(same, a == b):
        raise ValueError("same must be True exactly where a equals b.")
    a, b = np.unique(np.concatenate([a, b]), return_inverse=True)[1].reshape(2, -1)
    weights = pair_weights(same, a, b, draws)
    return Draws(evaluated(outcomes, weights, lambda w: w[same].any() and w[~same].any()), None, level)


def intervals(draws: Draws) -> pd.DataFrame:
    """Rows model, metric, low, high."""
    rows = []
    for model, metrics in draws.values.items():
        for metric, values in metrics.items():
            if draws.freedom is None:
                ends = dyadic_ends(float(values[0]), *np.split(values[1:], 2), draws.level)
            else:
                ends = percentile(values[1:], draws.level, draws.freedom)
            rows.append((model, metric, *ends))
    return pd.DataFrame(rows, columns=["model", "metric", "low", "high"])


def difference(a: NDArray, b: NDArray, draws: Draws) -> Difference:
    """a - b of two models' values, with interval and two-sided p; for pairs p is of the normal distribution."""
    if draws.freedom is not None:
        return paired_difference(a[0], b[0], a[1:], b[1:], draws.level, draws.freedom)
    point = float(a[0] - b[0])
    low, high = dyadic_ends(point, *np.split((a - b)[1:], 2), draws.level)
    error = (high - low) / 2 / normal_quantile(draws.level)
    return Difference(point, low, high, 2 * NormalDist().cdf(-abs(point) / error) if error else 1.0)


def differences(draws: Draws, outcomes: Outcomes, asked: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Rows a, b, metric, diff (a - b), low, high, p, p_holm, only_a, only_b, mcnemar, mcnemar_holm (NaN: no decisions).

    asked: the pairs (a, b) of one question; Holm's correction is over them, for each metric.
    """
    rows = []
    for a, b in asked:
        for metric, values in draws.values[a].items():
            found = difference(values, draws.values[b][metric], draws)
            decided = metric in outcomes[a].decisions
            test = mcnemar(*(outcomes[m].decisions[metric] for m in (a, b))) if decided else (np.nan,) * 3
            rows.append((a, b, metric, *found, *test))
    columns = ["a", "b", "metric", "diff", "low", "high", "p", "only_a", "only_b", "mcnemar"]
    table = pd.DataFrame(rows, columns=columns)
    for p in ("p", "mcnemar"):
        corrected = table.groupby("metric")[p].transform(lambda family: family if family.isna().any() else holm(family))
        table.insert(table.columns.get_loc(p) + 1, f"{p}_holm", corrected)
    return table
