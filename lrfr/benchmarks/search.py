"""Identification among more faces than a matrix of similarities could hold: one pass over blocks of embeddings.

The rules are those of `lrfr.evaluate.identification`: pessimistic ties, a failed acquisition stays in the denominator.
Embeddings are float (n, D), not necessarily of length 1; a row of NaN is a failed acquisition: as a probe a miss, in
the gallery an image that never matches. The similarity is the cosine; for unit vectors it orders as distance does.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lrfr.evaluate import identification
from lrfr.evaluate.scores import unit

BLOCK = 4096  # rows of either side at a time, 130 MB of float64; no influence on the numbers
# Cosines are rounded to multiples of 1 / STEPS, what float32 tells apart just above 1. The last bits of float64 sums
# depend on the block, so without this an image and its copy, a common thing in a gallery, would not tie.
STEPS = 2.0**23


class Search(NamedTuple):
    """p probes, and their m pairs with gallery images of the same person, sorted by probe, then from best to worst."""

    top: NDArray[np.float32]  # (p,) cosine of the best gallery image, whoever it shows; -inf: nothing to compare
    probe: NDArray[np.int64]  # (m,) probe of the pair, 0 ... p-1
    place: NDArray[np.int64]  # (m,) 0 for a probe's best mate, 1 for the second best ...
    own: NDArray[np.float32]  # (m,) cosine; -inf if either image failed
    rivals: NDArray[np.int64]  # (m,) gallery images of other people that are at least as similar
    betters: NDArray[np.int64]  # (m,) those that are more similar


def checked_embeddings(embeddings: ArrayLike, name: str) -> tuple[NDArray, NDArray[np.bool_]]:
    """Embeddings (n, D), and failed bool (n,): rows of NaN. ValueError if no matrix, or a row is not finite in part."""
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or not embeddings.size:
        raise ValueError(f"the {name} must be a matrix (at least one row, dimensions), not {embeddings.shape}.")
    failed = np.isnan(embeddings).all(axis=1)
    broken = ~failed & ~np.isfinite(embeddings).all(axis=1)
    if broken.any():
        raise ValueError(f"row {np.argmax(broken)} of the {name} is not finite; a failed acquisition is all NaN.")
    return embeddings, failed


def rounded(cosines: NDArray[np.float64]) -> NDArray[np.float32]:
    """To multiples of 1 / STEPS. Overwrites its argument."""
    np.rint(np.multiply(cosines, STEPS, out=cosines), out=cosines)
    return cosines.astype(np.float32) / np.float32(STEPS)


def search(probes: ArrayLike, gallery: ArrayLike, probe_labels: ArrayLike, gallery_labels: ArrayLike) -> Search:
    """Compare every probe (p, D) with every gallery image (g, D); labels (p,) and (g,) are compared for equality.

    Raises ValueError if labels or dimensions do not fit, or like `checked_embeddings`.
    """
    (probes, probe_failed), (gallery, lost) = (
        checked_embeddings(probes, "probes"),
        checked_embeddings(gallery, "gallery"),
    )
    labels, shapes = [np.asarray(probe_labels), np.asarray(gallery_labels)], (probes.shape, gallery.shape)
    if [x.shape for x in labels] != [shape[:1] for shape in shapes] or probes.shape[1] != gallery.shape[1]:
        raise ValueError("probes {} and gallery {} need one dimension, and one label per row.".format(*shapes))
    sides = [pd.DataFrame({"person": x}).reset_index() for x in labels]
    mated = sides[0].merge(sides[1], on="person")  # a row for every pair of a probe and a mate
    probe, mate = mated.index_x.to_numpy(), mated.index_y.to_numpy()
    own = np.empty(len(probe), dtype=np.float32)
    for start in range(0, len(probe), BLOCK):
        some = slice(start, start + BLOCK)
        own[some] = rounded(np.einsum("id,id->i", unit(probes[probe[some]]), unit(gallery[mate[some]])))
    own[np.isnan(own)] = -np.inf
    order = np.lexsort((-own, probe))
    probe, mate, own = probe[order], mate[order], own[order]
    bounds = np.searchsorted(probe, np.arange(len(probes) + 1))  # a probe's pairs
    top = np.full(len(probes), -np.inf, dtype=np.float32)
    rivals, betters = np.zeros(len(probe), dtype=np.int64), np.zeros(len(probe), dtype=np.int64)
    for left in range(0, len(gallery), BLOCK):
        columns = slice(left, left + BLOCK)
        images = unit(gallery[columns]).T
        for above in range(0, len(probes), BLOCK):
            rows = slice(above, above + BLOCK)
            cosines = rounded(unit(probes[rows]) @ images)
            cosines[probe_failed[rows]] = -np.inf
            cosines[:, lost[columns]] = -np.inf
            np.maximum(top[rows], cosines.max(axis=1), out=top[rows])
            here = (probe // BLOCK == above // BLOCK) & (mate // BLOCK == left // BLOCK)
            cosines[probe[here] - above, mate[here] - left] = np.nan  # a mate is no rival: NaN compares false
            for pair in range(*bounds[[above, above + len(cosines)]]):
                rivals[pair] += np.count_nonzero(cosines[probe[pair] - above] >= own[pair])
                betters[pair] += np.count_nonzero(cosines[probe[pair] - above] > own[pair])
    return Search(top, probe, np.arange(len(probe)) - bounds[probe], own, rivals, betters)


def optimistic(found: Search) -> Search:
    """The same with mates in front of equally similar images of other people; a report may add it, no headline."""
    return found._replace(rivals=found.betters)


def best_mates(found: Search) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Each probe's best mate: cosine (p,), -inf if none can match, and rank, 1 = first, 0 if there is none at all."""
    own, rank = np.full(len(found.top), -np.inf, dtype=np.float32), np.zeros(len(found.top), dtype=np.int64)
    best = found.place == 0
    own[found.probe[best]], rank[found.probe[best]] = found.own[best], 1 + found.rivals[best]
    return own, rank


def require_mates(found: Search) -> None:
    """Raise ValueError if a probe has no mate in the gallery."""
    identification.require_mates(best_mates(found)[1][:, None] > 0)


def hits(found: Search, k: int) -> NDArray[np.bool_]:
    """Whether each probe (p,) has a mate among the k most similar images; not if it or its every mate failed."""
    own, rank = best_mates(found)
    return (rank <= k) & ~np.isneginf(own)


def average_precisions(found: Search) -> NDArray[np.float64]:
    """Average precision of each probe (p,) by trapezoids, as `identification.mean_average_precision`; 0 like `hits`."""
    position = found.rivals + found.place
    before = np.where(position > 0, found.place / np.maximum(position, 1), 1.0)
    precision = ((found.place + 1) / (position + 1) + before) / 2
    total, mates = (np.bincount(found.probe, weights, len(found.top)) for weights in (precision, None))
    return np.where(np.isneginf(best_mates(found)[0]), 0.0, total / np.maximum(mates, 1))
