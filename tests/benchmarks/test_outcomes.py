from __future__ import annotations

from itertools import combinations
from math import comb, sqrt

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from lrfr.benchmarks import outcomes as benchmark
from lrfr.benchmarks import survface
from lrfr.benchmarks.outcomes import Outcome, accuracy_of, mean_of
from lrfr.evaluate.statistics import dyadic_interval, holm, identity_counts, normal_quantile
from lrfr.evaluate.verification import area_under_roc
from tests.evaluate.embeddings import people


def decisions(only_a, only_b, both=5):
    a = np.repeat([True, False, True, False], [only_a, only_b, both, 3])
    return a, np.repeat([False, True, True, False], [only_a, only_b, both, 3])


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"), [(10, 4, 0.1796), (30, 12, 0.0079), (6, 0, 0.03125), (0, 0, 1), (5, 5, 1)]
)
def test_mcnemar_known_values(only_a, only_b, p):
    found = benchmark.mcnemar(*decisions(only_a, only_b))
    assert found[:2] == (only_a, only_b) and found[2] == pytest.approx(p, abs=5e-5)
    assert benchmark.mcnemar(*decisions(only_b, only_a))[2] == found[2]


@pytest.mark.parametrize("counts", [(3, 11), (250, 190), (40, 41), (3000, 2500)])
def test_mcnemar_agrees_with_scipy(counts):
    assert benchmark.mcnemar(*decisions(*counts))[2] == pytest.approx(
        binomtest(counts[0], sum(counts)).pvalue, rel=1e-9
    )


def every_two(outcomes):
    return list(combinations(outcomes, 2))


def alone(same):
    """Pairs of people of their own each."""
    return same, 2 * np.arange(len(same)), 2 * np.arange(len(same)) + ~same


def models(seed=0, persons=25, each=4):
    """Three models' hits on the same probes, b better than a and c like a; people differ in difficulty."""
    rng = np.random.default_rng(seed)
    identities = np.repeat(np.arange(persons), each)
    hard = rng.normal(size=persons)[identities] + rng.normal(size=persons * each)
    outcomes = {}
    for name, skill in (("a", 0.0), ("b", 0.8), ("c", 0.0)):
        score = skill - hard + 0.5 * rng.normal(size=len(hard))
        hit = score > 0
        values = {"rank1": hit, "map": np.clip(score, 0, 1)}
        outcomes[name] = Outcome(
            len(hard), {}, {}, {"rank1": hit}, {metric: mean_of(x) for metric, x in values.items()}
        )
    return outcomes, identities


def test_draws_of_probes_are_those_of_people():
    outcomes, identities = models()
    draws = benchmark.draw_probes(outcomes, identities, np.zeros(len(identities)), draws=50, level=0.95)
    counts = identity_counts(25, 50, 0)
    hit = outcomes["b"].decisions["rank1"]
    for k, number in enumerate(counts, 1):
        repeated = np.concatenate([np.tile(hit[identities == person], times) for person, times in enumerate(number)])
        assert draws.values["b"]["rank1"][k] == pytest.approx(np.mean(repeated), abs=1e-12)
    assert draws.values["b"]["rank1"][0] == np.mean(hit) and draws.freedom == 24


def test_strata_are_drawn_apart_and_in_blocks(monkeypatch):
    identities, strata = np.repeat(np.arange(10), 3), np.repeat([0, 1], [12, 18])
    weights = list(benchmark.probe_weights(identities, strata, 40))
    assert len(weights) == 41 and (weights[0] == 1).all()
    for w in weights[1:]:
        people = w.reshape(10, 3)
        assert (people == people[:, :1]).all() and people[:4, 0].sum() == 3 and people[4:, 0].sum() == 5
    monkeypatch.setattr(benchmark, "CHUNK", 30 * 7)  # several blocks
    chunks = list(benchmark.probe_weights(identities, strata, 40))
    assert len(chunks) == 41 and len(np.unique(chunks, axis=0)) > 35


def test_differences_are_paired_and_corrected():
    outcomes, identities = models()
    draws = benchmark.draw_probes(outcomes, identities, np.zeros(len(identities)), draws=400, level=0.95)
    table = benchmark.differences(draws, outcomes, every_two(outcomes)).set_index(["a", "b", "metric"])
    assert len(table) == 6
    hits = {name: outcome.decisions["rank1"] for name, outcome in outcomes.items()}
    for a, b in combinations("abc", 2):
        row = table.loc[a, b, "rank1"]
        assert row["diff"] == pytest.approx(np.mean(hits[a]) - np.mean(hits[b]), abs=1e-12)
        assert row.low < row["diff"] < row.high
        assert (row.only_a, row.only_b) == (np.sum(hits[a] & ~hits[b]), np.sum(hits[b] & ~hits[a]))
        smaller, size = min(row.only_a, row.only_b), row.only_a + row.only_b
        exact = min(1, 2 * sum(comb(int(size), k) for k in range(int(smaller) + 1)) / 2**size)
        assert row.mcnemar == pytest.approx(exact, rel=1e-9)
    rank1 = table.xs("rank1", level="metric")
    np.testing.assert_allclose(rank1.p_holm, holm(rank1.p))
    np.testing.assert_allclose(rank1.mcnemar_holm, holm(rank1.mcnemar))
    assert table.xs("map", level="metric")[["only_a", "mcnemar", "mcnemar_holm"]].isna().all().all()
    assert table.loc["a", "b", "rank1"].high < 0  # b is better
    # on the same draws: the interval of the difference is shorter than those of the two models together
    ends = benchmark.intervals(draws).set_index(["model", "metric"])
    lengths = {name: ends.loc[name, "rank1"].high - ends.loc[name, "rank1"].low for name in "ab"}
    own = table.loc["a", "b", "rank1"]
    assert own.high - own.low < 0.9 * sqrt(lengths["a"] ** 2 + lengths["b"] ** 2)


def test_a_model_against_itself():
    outcomes, identities = models()
    same = {"a": outcomes["a"], "copy": outcomes["a"]}
    for draws in (
        benchmark.draw_probes(same, identities, np.zeros(len(identities)), draws=60, level=0.95),
        benchmark.draw_pairs(same, *alone(np.arange(100) % 2 == 0), draws=60, level=0.95),
    ):
        row = benchmark.differences(draws, same, every_two(same)).iloc[0]
        assert (row["diff"], row.low, row.high, row.p, row.mcnemar) == (0, 0, 0, 1, 1)


def pair_models(seed=1, size=60):
    rng = np.random.default_rng(seed)
    id_a = rng.integers(0, 40, size)
    same = np.arange(size) % 2 == 0
    id_b = np.where(same, id_a, (id_a + rng.integers(1, 40, size)) % 40)
    scores = {name: same * gap + rng.normal(size=size) for name, gap in (("a", 1.0), ("b", 2.5))}
    outcomes = {}
    for name, x in scores.items():
        right = (x > 0.7) == same
        statistics = {"auc": lambda w, x=x: area_under_roc(x, same, w), "accuracy": accuracy_of(right, same)}
        outcomes[name] = Outcome(size, {}, {}, {"accuracy": right}, statistics)
    return outcomes, scores, same, id_a, id_b


def test_intervals_of_pairs_are_those_of_dyadic_interval():
    outcomes, scores, same, id_a, id_b = pair_models()
    draws = benchmark.draw_pairs(outcomes, same, id_a, id_b, draws=80, level=0.95)
    a, b = np.unique(np.concatenate([id_a, id_b]), return_inverse=True)[1].reshape(2, -1)
    ends = benchmark.intervals(draws).set_index(["model", "metric"])
    slow = dyadic_interval(area_under_roc, scores["a"], same, a, b, 80, 0.95, 0)
    np.testing.assert_allclose(ends.loc["a", "auc"].to_numpy(dtype=float), slow[1:], atol=1e-12)

    def gap(_, same, weights):
        return area_under_roc(scores["a"], same, weights) - area_under_roc(scores["b"], same, weights)

    slow = dyadic_interval(gap, scores["a"], same, a, b, 80, 0.95, 0)
    row = benchmark.differences(draws, outcomes, every_two(outcomes)).set_index("metric").loc["auc"]
    np.testing.assert_allclose(row[["diff", "low", "high"]].to_numpy(dtype=float), slow, atol=1e-12)
    assert row.p < 0.05 and (row.high < 0) == (row.p < 0.05)
    error = (row.high - row.low) / 2 / normal_quantile(0.95)
    assert row.p == pytest.approx(2 * norm.sf(abs(row["diff"]) / error), rel=1e-9)


def test_pairs_of_unknown_people_are_independent():
    """Without identities the interval of an accuracy is nearly the binomial one."""
    rng = np.random.default_rng(4)
    same, right = np.arange(2000) % 2 == 0, rng.random(2000) < 0.9
    outcomes = {"a": Outcome(2000, {}, {}, {"accuracy": right}, {"accuracy": accuracy_of(right, same)})}
    row = benchmark.intervals(benchmark.draw_pairs(outcomes, *alone(same), draws=400, level=0.95)).iloc[0]
    assert (row.high - row.low) / 2 / 1.96 == pytest.approx(sqrt(0.9 * 0.1 / 2000), rel=0.15)


def test_of_few_people_a_draw_may_have_no_rate():
    """Both genuine pairs are of one person: whenever he has no weight, no error rate is defined."""
    same, scores = np.array([True, True, False, False]), np.array([0.9, 0.4, 0.5, 0.1])
    outcomes = {"a": Outcome(4, {}, {}, {}, {"auc": lambda w: area_under_roc(scores, same, w)})}
    draws = benchmark.draw_pairs(outcomes, same, [0, 0, 1, 2], [0, 0, 3, 4], draws=60, level=0.95)
    values = draws.values["a"]["auc"]
    assert values[0] == 0.75 and 0 < np.isnan(values).sum() < len(values)
    assert np.isfinite(benchmark.intervals(draws)[["low", "high"]].to_numpy()).all()


def test_survface_thresholds_are_estimated_anew_in_every_draw():
    rng = np.random.default_rng(6)
    labels, strangers = np.repeat(np.arange(20), 2), rng.integers(20, 60, 50)
    outcomes = {
        name: survface.identification(
            people(rng, labels, noise), labels, people(rng, labels, noise), labels, people(rng, strangers, noise)
        )
        for name, noise in (("sharp", 0.5), ("blurred", 1.5))
    }
    identities, strata = np.concatenate([labels, 100 + np.arange(50)]), np.repeat([0, 1], [40, 50])
    draws = benchmark.draw_probes(outcomes, identities, strata, draws=100, level=0.95)
    assert draws.freedom == 20 + 50 - 2
    table = benchmark.differences(draws, outcomes, every_two(outcomes)).set_index("metric")
    assert table.loc["tpir20@fpir=0.1", "low"] > 0 and np.isnan(table.loc["tpir20@fpir=0.1", "mcnemar"])
    assert table.loc["rank1", "mcnemar"] < 0.05
    fixed = np.concatenate([np.zeros(40), np.ones(50)])
    assert len(set(draws.values["sharp"]["tpir20_auc"])) > 50 and np.isnan(outcomes["sharp"].statistics["rank1"](fixed))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda o, i: benchmark.draw_probes({}, i, i, 9, 0.95), "one benchmark"),
        (lambda o, i: benchmark.draw_probes(o, i[:-1], i[:-1], 9, 0.95), "one benchmark"),
        (lambda o, i: benchmark.draw_probes(o, i, i[:-1], 9, 0.95), "one benchmark"),
        (lambda o, i: benchmark.draw_probes(o | {"x": pair_models()[0]["a"]}, i, i, 9, 0.95), "one benchmark"),
        (lambda o, i: benchmark.draw_pairs(o, i == 0, i, i[:-1], 9, 0.95), "one benchmark"),
        (lambda o, i: benchmark.draw_pairs(o, i == 0, i, i, 9, 0.95), "exactly where"),
    ],
)
def test_bad_input_is_one_clear_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call(*models())
