"""The pair sets that insightface distributes as .bin files: lfw, cfp_fp, agedb_30, calfw, cplfw.

The rule is that of recognition/arcface_torch/eval/verification.py: feature = f(x) + f(mirrored x) at length 1, squared
Euclidean distance, ten contiguous folds, the threshold 0, 0.01 ... 3.99 that is first best on the other nine, "same" if
distance < threshold. `accuracy_exact` is the same without the grid. A pair with a failed acquisition (a row of NaN) has
the distance 4, the largest of unit vectors: an error if genuine, counted either way. The toolkit knows no failures.
"""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from lrfr.benchmarks.outcomes import Images, Opened, Outcome, Protocol, accuracy_of, draw_pairs
from lrfr.benchmarks.search import checked_embeddings
from lrfr.evaluate.scores import unit
from lrfr.evaluate.verification import area_under_roc, equal_error_rate, ten_fold_accuracy
from lrfr.gate.insightface_bin import ARCFACE, read_bin
from lrfr.gate.trees import check_name


def evaluate(embeddings: ArrayLike, same: ArrayLike) -> Outcome:
    """Ten-fold accuracy; decisions and weights go by pair.

    embeddings: float (2n, D) in the order of the file, pair i in rows 2i and 2i + 1, image and mirror image already
    added, NaN row = failed acquisition; same: bool (n,). Metrics: accuracy, accuracy_std (over folds), accuracy_exact,
    auc, eer. Raises ValueError if there are not two rows per pair, or like `ten_fold_accuracy`.
    """
    embeddings, failed = checked_embeddings(embeddings, "images")
    same = np.asarray(same)
    if same.ndim != 1 or len(embeddings) != 2 * len(same):
        raise ValueError(f"{len(embeddings)} images need half as many pairs, not labels of shape {same.shape}.")
    x, lost = unit(embeddings), failed[::2] | failed[1::2]
    distances = np.sum((x[::2] - x[1::2]) ** 2, axis=1)
    distances[lost] = 4  # of opposite unit vectors
    result, exact = (ten_fold_accuracy(distances, same, rule) for rule in ("insightface", "exact"))
    same = same.astype(bool)
    folds = np.array_split(np.arange(len(same)), len(result.thresholds))
    right = (distances < np.repeat(result.thresholds, [len(fold) for fold in folds])) == same
    rates = {"auc": partial(area_under_roc, -distances, same), "eer": partial(equal_error_rate, -distances, same)}
    metrics = {"accuracy": result.mean, "accuracy_std": result.std, "accuracy_exact": exact.mean}
    metrics |= {metric: rate() for metric, rate in rates.items()}
    counts = {"genuine": int(same.sum()), "impostor": int((~same).sum())}
    counts |= {"fta_images": int(failed.sum()), "fta_pairs": int(lost.sum())}
    return Outcome(len(same), metrics, counts, {"accuracy": right}, {"accuracy": accuracy_of(right, same)} | rates)


def open_bin(path: Path) -> Opened:
    """Any `.bin` file; the results have its name. Its faces are aligned, so their landmarks are InsightFace's.

    It does not say who is who, so every pair is of people of its own: intervals are too narrow if people recur.
    """
    check_name(path.name, path)
    data = read_bin(path)
    images = Images(len(data.images), lambda i: f"{path}, image {i} (of pair {i // 2})", data.read, lambda i: ARCFACE)
    alone = 2 * np.arange(len(data.same))
    draw = partial(draw_pairs, same=data.same, a=alone, b=alone + ~data.same)
    protocols = {"verification": Protocol(lambda x: evaluate(x["images"], data.same), draw)}
    return Opened(path.stem, {"images": images}, data.counts, protocols, ("whole", "landmarks", "detect"))
