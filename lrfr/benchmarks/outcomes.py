"""What a benchmark hands on and hands back for a model; how models are compared: intervals, paired differences.

Probes (identification): people are drawn with replacement within strata, their probes with them; the gallery stays as
it is, so the intervals say nothing about another gallery. Pairs (verification): the dyadic multiplier of
`statistics.dyadic_interval`, since these lists hold one to three pairs a person. Beside the bootstrap, McNemar's exact
test for metrics that count single decisions: it takes decisions as independent, which probes of one person are not, so
where the two disagree the bootstrap is the one to believe.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, product
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lrfr.evaluate import statistics as rules
from lrfr.gate.trees import Count, Faces

CHUNK = 2**22  # numbers drawn at a time
SEED = 0  # of the draws: one for all, so that differences are paired

Statistic = Callable[[NDArray[np.float64]], float]
Vectors = Mapping[str, NDArray]  # role -> embeddings (N, D)
Outcomes = Mapping[str, "Outcome"]  # by model


class Outcome(NamedTuple):
    """One model on one set, n = size probes or pairs (the benchmark names their order).

    metrics: what tables print, rates in [0, 1]. counts: sizes and failed acquisitions (fta...). decisions: bool (n,) or
    of the mated probes alone, what was right; only of metrics that count single decisions. statistics: weights (n,) ->
    the metric, with thresholds estimated anew where the protocol estimates them from the test itself.
    """

    size: int
    metrics: dict[str, float]
    counts: dict[str, int]
    decisions: dict[str, NDArray[np.bool_]]
    statistics: dict[str, Statistic]


class Draws(NamedTuple):
    """What was drawn: of a metric the value itself, then its draws; of pairs the draws by person, then by pair."""

    values: dict[str, dict[str, NDArray[np.float64]]]  # by model and metric
    freedom: int | None  # people minus strata; None for pairs
    level: float  # of the intervals


class Images(NamedTuple):
    """Images of one role, read or named by their number."""

    size: int
    name: Callable[[int], str]  # for messages
    read: Callable[[int], NDArray]  # uint8 (H, W, 3) RGB, or UserError
    points: Callable[[int], NDArray] | None = None  # landmarks in pixels, (5, 2) as `align.TEMPLATE`; None: none known


class Protocol(NamedTuple):
    """evaluate: a model's embeddings by role -> its outcome. draw: outcomes by model, draws=, level= -> `Draws`."""

    evaluate: Callable[[Vectors], Outcome]
    draw: Callable[..., Draws]


class Opened(NamedTuple):
    """A set that has been read and checked, images undecoded. policies: allowed `verb.FACES`, default first."""

    name: str
    images: dict[str, Images]
    counts: tuple[Count, ...]
    protocols: dict[str, Protocol]
    policies: tuple[str, ...]


def images_of(faces: Faces, landmarks: Mapping[str, NDArray] | None = None) -> Images:
    """Files of one role. landmarks: name without suffix -> (4, 2): eyes, nose, and the middle of the mouth, which
    counts twice, once for each corner: least squares over both corners are those over their mean, twice.
    """
    points = (lambda i: landmarks[Path(faces.names[i]).stem][[0, 1, 2, 3, 3]]) if landmarks else None
    return Images(len(faces), lambda i: str(faces.folder / faces.names[i]), faces.read, points)


def mean_of(values: NDArray, chosen: slice | NDArray[np.bool_] = slice(None)) -> Statistic:
    """The weighted mean of values (n,), which belong to the `chosen` ones of all weights; NaN if nothing has weight."""
    values = np.asarray(values, dtype=np.float64)

    return lambda weights: float(values @ own / own.sum()) if (own := weights[chosen]).any() else np.nan


def accuracy_of(right: NDArray[np.bool_], same: NDArray[np.bool_]) -> Statistic:
    """The weighted share of right pairs (n,), where the list fixes how many pairs of each kind there are."""
    kinds = [(kind.mean(), mean_of(right[kind], kind)) for kind in (same, ~same)]
    return lambda weights: sum(share * rate(weights) for share, rate in kinds)


def failures(parts: Mapping[str, NDArray[np.bool_]]) -> dict[str, int]:
    """Counts of an outcome: how many images each part has, and how many of them failed, from failed (n,)."""
    sizes = {part: len(failed) for part, failed in parts.items()}
    return sizes | {f"fta_{part}": int(failed.sum()) for part, failed in parts.items()}


def table(outcomes: Outcomes) -> pd.DataFrame:
    """Tidy rows model, metric, value, and a column for each count."""
    cells = [(model, cell, o.counts) for model, o in outcomes.items() for cell in o.metrics.items()]
    return pd.DataFrame([{"model": m, "metric": metric, "value": x, **counts} for m, (metric, x), counts in cells])


def mcnemar(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[int, int, float]:
    """McNemar's exact test (binomial, two-sided) of two models' decisions (n,), what was right, on the same items:
    how often only a and only b was right, and p.
    """
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    size = only_a + only_b  # below: whole numbers, the binomial coefficients
    terms = accumulate(range(min(only_a, only_b)), lambda term, k: term * (size - k) // (k + 1), initial=1)
    return only_a, only_b, min(1.0, 2 * sum(terms) / 2**size)


def evaluated(
    outcomes: Outcomes, who: Sequence[NDArray], weights: Iterator[NDArray], defined: Callable[[NDArray], bool]
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Every metric of every model under each of the weights, NaN where none is `defined`; ValueError unless there are
    models, of the same metrics, and all in `who` has the outcomes' length.
    """
    metrics = {tuple(outcome.statistics) for outcome in outcomes.values()}
    if len(metrics) != 1 or len({x.shape for x in who} | {(outcome.size,) for outcome in outcomes.values()}) != 1:
        raise ValueError("only outcomes of one benchmark can be compared: with the same metrics and probes or pairs.")
    cells = [statistic for outcome in outcomes.values() for statistic in outcome.statistics.values()]
    rows = [[statistic(w) for statistic in cells] if defined(w) else [np.nan] * len(cells) for w in weights]
    columns = iter(np.array(rows).T)
    return {model: {metric: next(columns) for metric in outcome.statistics} for model, outcome in outcomes.items()}


def probe_weights(identities: NDArray, strata: NDArray, draws: int) -> Iterator[NDArray[np.float64]]:
    """Weights (n,) of the data themselves, all one, and of each draw, by (identities, strata) alone."""
    yield np.ones(len(identities))
    members = [strata == stratum for stratum in np.unique(strata)]
    names = [np.unique(identities[rows], return_inverse=True) for rows in members]
    size = max(1, CHUNK // len(identities))
    for number, start in enumerate(range(0, draws, size)):
        block = np.empty((min(size, draws - start), len(identities)))
        for stratum, ((people, place), rows) in enumerate(zip(names, members, strict=True), number * len(names)):
            block[:, rows] = rules.identity_counts(len(people), len(block), SEED, stratum)[:, place]
        yield from block


def draw_probes(outcomes: Outcomes, identities: ArrayLike, strata: ArrayLike, draws: int, level: float) -> Draws:
    """Draw the people of n probes. identities: (n,), of an unknown person a label of its own; strata: (n,), like mated
    and unmated probes, so that every draw has both. Raises ValueError like `evaluated`.
    """
    who = identities, strata = np.asarray(identities), np.asarray(strata)
    values = evaluated(outcomes, who, probe_weights(identities, strata, draws), lambda w: True)
    freedom = sum(len(np.unique(identities[strata == stratum])) - 1 for stratum in np.unique(strata))
    return Draws(values, freedom, level)


def draw_pairs(outcomes: Outcomes, same: ArrayLike, a: ArrayLike, b: ArrayLike, draws: int, level: float) -> Draws:
    """Draw the people of n pairs. same: bool (n,); a, b: (n,), who is on either side; ValueError if they contradict.

    Of few people, a draw may give one kind of pairs no weight: it has no rates (NaN).
    """
    who = same, a, b = np.asarray(same).astype(bool), np.asarray(a), np.asarray(b)

    def weights() -> Iterator[NDArray[np.float64]]:  # of the data, the draws by person, and by impostor pair
        if not np.array_equal(same, a == b):
            raise ValueError("same must be True exactly where a equals b.")
        first, second = np.unique(np.concatenate([a, b]), return_inverse=True)[1].reshape(2, -1)
        yield np.ones(len(same))
        by_person, by_pair = rules.dyadic_signs(int(max(first.max(), second.max())) + 1, len(same), draws, SEED)
        for coins in by_person:
            yield 1 + rules.SPREAD * (coins[first] + np.where(same, 0, coins[second]))
        for coins in by_pair:
            yield 1 + rules.SPREAD * np.where(same, 0, coins)

    return Draws(evaluated(outcomes, who, weights(), lambda w: w[same].any() and w[~same].any()), None, level)


def ends(values: NDArray, draws: Draws) -> tuple[float, float]:
    """The interval of a metric, or of a difference, from its value and its draws."""
    if draws.freedom is None:
        return rules.dyadic_ends(float(values[0]), *np.split(values[1:], 2), draws.level)
    return rules.percentile(values[1:], draws.level, draws.freedom)


def intervals(draws: Draws) -> pd.DataFrame:
    """Rows model, metric, low, high."""
    found = [(model, metric, *ends(v, draws)) for model, own in draws.values.items() for metric, v in own.items()]
    return pd.DataFrame(found, columns=["model", "metric", "low", "high"])


def differences(draws: Draws, outcomes: Outcomes, asked: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Rows a, b, metric, diff (a - b), low, high, p, p_holm, only_a, only_b, mcnemar, mcnemar_holm (NaN: no decisions);
    Holm's correction is over the pairs (a, b) that are asked for, for each metric.
    """
    rows = []
    for (a, b), metric in product(asked, next(iter(draws.values.values()))):
        x, y = (draws.values[model][metric] for model in (a, b))
        if draws.freedom is None:  # p of the normal distribution
            point, (low, high) = float(x[0] - y[0]), ends(x - y, draws)
            error = (high - low) / 2 / rules.normal_quantile(draws.level)
            found = point, low, high, 2 * NormalDist().cdf(-abs(point) / error) if error else 1.0
        else:
            found = rules.paired_difference(x[0], y[0], x[1:], y[1:], draws.level, draws.freedom)
        decided = [outcomes[model].decisions[metric] for model in (a, b) if metric in outcomes[model].decisions]
        rows.append((a, b, metric, *found, *(mcnemar(*decided) if decided else (np.nan,) * 3)))
    table = pd.DataFrame(rows, columns=["a", "b", "metric", "diff", "low", "high", "p", "only_a", "only_b", "mcnemar"])
    for p in ("p", "mcnemar"):
        families = table.groupby("metric")[p]
        corrected = families.transform(lambda family: family if family.isna().any() else rules.holm(family))
        table.insert(table.columns.get_loc(p) + 1, f"{p}_holm", corrected)
    return table
