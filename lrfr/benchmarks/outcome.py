"""What every benchmark hands back for one model: numbers to print, and what is needed to compare models fairly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Statistic = Callable[[NDArray[np.float64]], float]


class Outcome(NamedTuple):
    """One model on one set, n = size probes or pairs (the benchmark names their order).

    metrics: what tables print, rates in [0, 1]. counts: sizes and failed acquisitions (fta...), for the same row of the table.
    decisions: bool (n,) or of the mated probes alone, what was right, for McNemar's test; only of metrics that count single
    decisions. statistics: weights (n,) -> the metric, with thresholds estimated anew from the weighted list where the protocol
    estimates them from the test itself; weights of one give the value in `metrics`.
    """

    size: int
    metrics: dict[str, float]
    counts: dict[str, int]
    decisions: dict[str, NDArray[np.bool_]]
    statistics: dict[str, Statistic]


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


def table(outcomes: Mapping[str, Outcome]) -> pd.DataFrame:
    """Tidy rows model, metric, value, and a column for each count."""
    rows = [
        {"model": model, "metric": metric, "value": value, **outcome.counts}
        for model, outcome in outcomes.items()
        for metric, value in outcome.metrics.items()
    ]
    return pd.DataFrame(rows)
