"""At which similarity two faces should pass for one person: thresholds for an application, from validation people alone.

The study decides by the L2 distance d of unit vectors; here the same order is told as their cosine, 1 - d^2 / 2, which is what
applications compute. Test people have no say: their error rates, in tables/results.csv, are what a threshold can be held against.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.evaluate.scores import unit
from lrfr.evaluate.verification import ROUNDING, operating_points
from lrfr.protocol.cells import read_embedding
from lrfr.protocol.folds import held_out_rows, read_faces

# Impostor errors that a rate must allow, or no threshold is given for it: our choice. Ten independent errors fix a rate to about
# a factor of two (95 % interval of a Poisson count of ten: 4.8 to 18.4); pairs that share people fix it less well.
LEAST = 10
SCORE = "cosine of unit vectors, accepted from the threshold on"


def threshold_at_far(scores: NDArray, same: NDArray[np.bool_], far: float) -> tuple[float, float]:
    """The smallest threshold whose empirical FAR <= far, and the TAR there: the operating point of `tar_at_far`.

    scores: float (n,); same: bool (n,). The threshold is a score of the list, or infinite if even the highest is an error too
    many. Raises ValueError like `operating_points`.
    """
    points = operating_points(scores, same)
    last = np.flatnonzero(points.false_match <= far * (1 + ROUNDING))[-1]
    return float(points.threshold[last]), float(1 - points.false_non_match[last])


def validation_thresholds(study: Study, model: str, number: int, seed: int) -> dict[str, Any]:
    """Thresholds of one trained student, for every resolution (of both faces) and false accept rate of the study.

    number, seed: of the training. Read from the embeddings that the `embed` stage wrote. Returns two entries of a card:
    `thresholds`, a row for each pair of resolution and FAR with the similarity from which two faces are accepted, the validation
    people's TAR there, and the numbers of genuine and impostor pairs (a FAR that allows fewer than LEAST errors has no rows); and
    `thresholds_from`, a sentence about their origin.

    Raises
    ------
    UserError
        if the embeddings are missing or are not those of the study's held-out faces.
    """
    rows = held_out_rows(*read_faces(study), number, study.faces.validation_images)
    people = rows.people[rows.validation]
    first, second = np.triu_indices(len(people), 1)
    same = people[first] == people[second]
    genuine, impostor = int(same.sum()), int((~same).sum())
    fars = [far for far in study.evaluate.far if far * impostor * (1 + ROUNDING) >= LEAST]
    file, found = study.runs / "embeddings" / f"{model}.npz", []
    if not file.is_file():
        raise UserError(f"{file.as_posix()}: not there; run `dvc repro` first.")
    with np.load(file) as archive:
        for resolution in study.resolutions:
            x = read_embedding(archive, file, f"fold{number}/seed{seed}/{resolution}", len(rows.images))
            x = unit(x)[rows.validation]
            scores = np.einsum("id,jd->ij", x, x, optimize=False)[
                first, second
            ]  # no BLAS, whose sums depend on its threads
            for far in fars:
                similarity, tar = threshold_at_far(scores, same, far)
                if np.isfinite(similarity):  # not of a network that cannot tell any faces apart
                    row = {"resolution": resolution, "far": far, "similarity": similarity, "tar": tar}
                    found.append(row | {"genuine": genuine, "impostor": impostor})
    origin = (
        f"{len(np.unique(people))} validation people of fold {number} of {study.study} ({len(people)} photographs), neither "
        f"trained on nor tested; both faces at one resolution; {SCORE}"
    )
    return {"thresholds": found, "thresholds_from": origin}
