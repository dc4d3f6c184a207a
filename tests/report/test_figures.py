"""Shared plots: what they draw, not how it looks."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from lrfr.formats import ORDER
from lrfr.report import figures


@pytest.fixture(autouse=True)
def style():
    figures.use_style()
    yield
    pyplot.close("all")


def scores(shift: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.Generator(np.random.Philox(key=1))
    same = np.arange(200) < 60
    return rng.normal(size=200) + shift * same, same


def test_every_model_has_a_look_of_its_own():
    assert tuple(figures.MODELS) == ORDER
    assert len({(look.colour, look.marker, str(look.line)) for look in figures.MODELS.values()}) == len(ORDER)
    assert len({figures.look(model).colour for model in figures.FIVE}) == 5


def test_style_ignores_a_readers_own_settings():
    matplotlib.rcParams["savefig.facecolor"] = "red"
    figures.use_style()
    assert matplotlib.rcParams["savefig.facecolor"] == "auto"


def test_histograms_share_their_axis():
    fig = figures.similarity_histograms({"sharp": scores(3), "8 px": scores(0.5)})
    assert len(fig.axes) == 2 and fig.axes[0].get_xlim() == fig.axes[1].get_xlim()


def test_training_curves_average_over_seeds_and_leave_the_learning_rate_out():
    rows = [
        (0, s, e, t, s + e)
        for s in (0, 2)
        for e in (0, 1)
        for t in ("face", "kd", "pairs", "learning_rate", "validation_eer_16")
    ]
    log = pd.DataFrame(rows, columns=["fold", "seed", "epoch", "term", "value"])
    fig = figures.training_curves({"kd": log})
    assert [ax.get_title() for ax in fig.axes] == ["face", "kd"] and np.allclose(
        fig.axes[0].lines[0].get_ydata(), [1, 2]
    )


def test_mosaic_takes_columns_of_different_sizes():
    fig = figures.mosaic({"8 px": np.zeros((3, 8, 8, 3), np.uint8), "sharp": np.zeros((3, 150, 150, 3), np.uint8)})
    assert len(fig.axes) == 6 and fig.axes[1].get_title() == "sharp"


def test_attention_survives_an_empty_map():
    fig = figures.attention(
        np.zeros((2, 20, 20, 3), np.uint8), {"none": np.zeros((2, 4, 4)), "some": np.ones((2, 4, 4))}
    )
    assert np.isfinite(fig.axes[1].images[1].get_array()).all() and len(fig.axes) == 6


def test_principal_plane_keeps_its_sign_and_its_distances():
    rng = np.random.Generator(np.random.Philox(key=2))
    flat = rng.normal(size=(20, 2)) @ rng.normal(size=(2, 9))

    def drawn(embeddings: np.ndarray) -> np.ndarray:
        points = figures.embedding_map(embeddings, np.arange(20), ["HR"] * 20).axes[0].collections[:20]
        return np.concatenate([point.get_offsets() for point in points])

    plane = drawn(flat)
    assert np.allclose(plane, drawn(flat[::-1])[::-1])
    assert np.isclose(np.linalg.norm(plane[0] - plane[1]), np.linalg.norm(flat[0] - flat[1]))


def test_embedding_map_names_its_markers():
    fig = figures.embedding_map(np.eye(4), np.array([0, 0, 1, 1]), ["HR", "8 px", "HR", "8 px"])
    assert [text.get_text() for text in fig.axes[0].get_legend().get_texts()] == ["HR", "8 px"]


def test_ablation_draws_differences_with_intervals_in_points():
    rows = [("no_hfd", "hr", 0.01, -0.01, 0.04), ("no_dkd", "8", -0.02, -0.03, 0.0), ("no_hfd", "8", 0.03, 0.01, 0.06)]
    figure = figures.arms(pd.DataFrame(rows, columns=["arm", "resolution", "diff", "diff_low", "diff_high"]))
    pyplot.close(figure)
    ax = figure.axes[0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["no_hfd", "no_dkd"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["8 px", "hr"]
    first, second = ax.containers
    assert first[0].get_ydata().tolist() == [1, 3] and first[0].get_xdata().round().tolist() == [1, 0]
    ends = [
        segment[:, 1].round(6).tolist() for container in (first, second) for segment in container[2][0].get_segments()
    ]
    assert ends == [[-1, 4], [1, 6], [-3, 0]]
