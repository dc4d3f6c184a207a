"""TinyFace (Cheng, Zhu and Gong, ACCV 2018): 1:N identification among distractors, everybody searched for is in the gallery.

The rules are those of the set's own MATLAB code (test_face_identification.m, compute_AP.m): the gallery is Gallery_Match and all
of Gallery_Distractor; a probe is a hit at rank k if any of its mates is among the k nearest; average precision by trapezoids.
That code ranks by the Euclidean distance of the features as submitted and leaves ties to the sort. Here features are brought to
length 1 (so distance and cosine rank alike) and ties are pessimistic; what an optimistic sort would give is printed beside.

A failed acquisition stays in: a probe that failed, or whose every mate failed, is a miss with average precision 0. Of a probe
with other mates left, the failed mate ranks last.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lrfr.benchmarks.outcome import Outcome, mean_of
from lrfr.benchmarks.streaming import (
    BLOCK,
    average_precisions,
    best_mates,
    checked_embeddings,
    hits,
    optimistic,
    search,
)
from lrfr.evaluate.identification import require_mates

RANKS = (1, 5, 10, 20, 50)  # 1, 20, 50 in the paper; 1, 5, 20 in AdaFace and its descendants; 10 is a step between


def evaluate(
    probes: ArrayLike,
    probe_labels: ArrayLike,
    gallery: ArrayLike,
    gallery_labels: ArrayLike,
    distractors: ArrayLike,
    block: int = BLOCK,
) -> Outcome:
    """Rank-k rates and mean average precision; decisions and weights go by probe.

    probes (p, D), gallery (g, D), distractors (d, D): float, images and their mirror images already fused (the official code
    takes one feature per image; insightface and AdaFace add the two), NaN row = failed acquisition. Labels: one per row, of one
    type, the same person the same label; distractors have none. Metrics: rank1 ... rank50, map, rank1_optimistic, map_optimistic.

    Raises
    ------
    ValueError
        if a probe has no mate in the gallery, or like `streaming.search`.
    """
    (probes, probe_failed), (gallery, gallery_failed), (distractors, distractor_failed) = (
        checked_embeddings(x, name)
        for x, name in ((probes, "probes"), (gallery, "gallery"), (distractors, "distractors"))
    )
    if gallery.shape[1] != distractors.shape[1]:
        raise ValueError(f"gallery {gallery.shape} and distractors {distractors.shape} need the same dimensions.")
    labels = [np.asarray(probe_labels), np.asarray(gallery_labels)]
    people, number = np.unique(np.concatenate(labels), return_inverse=True)
    nobody = np.full(len(distractors), len(people))  # a label that no probe has
    everybody = np.concatenate([number[len(labels[0]) :], nobody])
    found = search(probes, np.concatenate([gallery, distractors]), number[: len(labels[0])], everybody, block)
    own, _, mated = best_mates(found)
    require_mates(mated[:, None])
    found = found._replace(failed=np.isneginf(own))
    decisions = {f"rank{k}": hits(found, k) for k in RANKS} | {"rank1_optimistic": hits(optimistic(found), 1)}
    precisions = {"map": average_precisions(found), "map_optimistic": average_precisions(optimistic(found))}
    values = decisions | precisions
    counts = {
        "probes": len(probes),
        "gallery": len(gallery),
        "distractors": len(distractors),
        "fta_probes": int(probe_failed.sum()),
        "fta_gallery": int(gallery_failed.sum()),
        "fta_distractors": int(distractor_failed.sum()),
    }
    metrics = {metric: float(np.mean(value)) for metric, value in values.items()}
    return Outcome(
        len(probes), metrics, counts, decisions, {metric: mean_of(value) for metric, value in values.items()}
    )
