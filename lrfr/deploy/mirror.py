"""The `mirror` stage: what averaging a face with its mirror image buys, for twice the time.

Face toolkits often do so (InsightFace's LFW protocol does); every other table of a study embeds a face once. A
student's embedding is f(x) + f(mirror x), of unit length afterwards; the teacher's is the mean of both, at its own
length. Low against low resolution, with the pairs, draws and intervals of the stage `evaluate`.
"""

from itertools import product

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from lrfr.config import Study
from lrfr.evaluate.statistics import dyadic_ends, paired_difference, percentile
from lrfr.formats import order, page, per_cent, pixels, wide, write_table
from lrfr.models.student import kind_of
from lrfr.models.teachers import TEACHERS
from lrfr.parallel import parallel_map
from lrfr.protocol.cells import TEACHER, embedding_file, similarity, unit
from lrfr.protocol.embed import BATCH, batches, embed_batches, load_student
from lrfr.protocol.folds import DENSE, MISALIGNED, OFFICIAL, build_fold, official_metrics
from lrfr.train.fold import Fold, read_fold, teacher_input, teacher_view
from lrfr.train.teacher import load_trained
from lrfr.train.trainings import folds_of, seeds_of

SHOWN = ((DENSE, "eer"), (DENSE, "tar@far=0.01"), (OFFICIAL, "accuracy"))  # of the page, where a study has them
LEAD = """\
The sum of both embeddings instead of one, for twice the time; both photographs at the resolution, per cent with \
intervals, then the difference to one embedding in brackets."""
COLUMNS = ["study", "model", "protocol", "pairing", "resolution", "metric", "value", "low", "high", "once"]
COLUMNS += ["diff", "diff_low", "diff_high", "p"]  # mirror averaged in, minus once; paired, in `dense` only


def run(study: Study) -> None:
    """tables/mirror.csv and mirror.md."""
    tasks = [(study, model) for model in (TEACHER, *study.models)]
    rows = [row for found in parallel_map(compare, tasks, study.jobs, study.threads, "mirror") for row in found]
    table = pd.DataFrame(rows, columns=COLUMNS)
    ranks = {name: k for k, name in enumerate(order(table.model))}
    keys = {"model": ranks.get, "resolution": pixels}
    table = table.sort_values(["protocol", "metric", "model", "resolution"], key=lambda c: c.map(keys.get(c.name, str)))
    parts = {}
    for protocol, metric in SHOWN:
        part = table[(table.protocol == protocol) & (table.metric == metric)]
        if len(part):
            cells = [f"{per_cent(r.value, r.low, r.high)} ({100 * r.diff:+.1f})" for r in part.itertuples()]
            parts[f"{metric}, protocol `{protocol}`"] = wide(part, cells)
    write_table(study.reports / "tables", "mirror", table, page("A face and its mirror image", LEAD, parts))


def compare(study: Study, model: str) -> list[tuple]:
    """Rows of mirror.csv about one model: every metric's draws, means over folds and seeds, of faces once and twice.

    Of the resolutions of MISALIGNED that the study has: the smallest, the headline's and the largest faces.
    """
    teacher, level, freedom = model == TEACHER, study.evaluate.level, 0
    once, twice, rows = {}, {}, []
    numbers = study.faces.run_folds if teacher else folds_of(study, model)
    seeds = study.train.seeds[:1] if teacher else seeds_of(study, model)
    for number in numbers:
        fold, faces = build_fold(study, number), read_fold(study, number)
        freedom += fold.test_pairs.counts.shape[1] - 1  # people minus folds
        for seed, resolution in product(seeds, [name for name in MISALIGNED if name in study.resolutions]):
            with np.load(embedding_file(study, model)) as archive:
                x = archive[f"fold{number}/seed{seed}/{resolution}"].astype(np.float64)
            both = x + mirrored(study, faces, model, seed, resolution)
            for sums, space in ((once, x), (twice, both / 2)) if teacher else ((once, unit(x)), (twice, unit(both))):
                near, test = space[fold.test], space[fold.rows.test]
                scores = fold.test_pairs.scores(similarity(near, near))
                found = {DENSE: fold.test_pairs.verification(scores, None, study.evaluate.far)}
                if OFFICIAL in fold.lists:
                    found[OFFICIAL] = official_metrics(fold.lists[OFFICIAL], test, test)
                for key in [(protocol, metric, resolution) for protocol, values in found.items() for metric in values]:
                    sums[key] = sums.get(key, 0) + found[key[0]][key[1]] / (len(numbers) * len(seeds))
    for (protocol, metric, resolution), values in twice.items():
        plain = once[protocol, metric, resolution]
        point, base = float(values[0]), float(plain[0])
        if protocol == OFFICIAL:
            ends = dyadic_ends(point, *np.split(values[1:], 2), level)
            difference = (point - base, np.nan, np.nan, np.nan)  # nothing is compared on the official pairs
        else:
            ends = percentile(values[1:], level, freedom)
            difference = paired_difference(point, base, values[1:], plain[1:], level, freedom)
        rows.append((study.study, model, protocol, "lr_lr", resolution, metric, point, *ends, base, *difference))
    return rows


def mirrored(study: Study, fold: Fold, model: str, seed: int, resolution: str) -> NDArray[np.float64]:
    """Embeddings (rows, D) of the held-out faces' mirror images; the teacher's in the space in which it decides."""
    if model != TEACHER:
        see = kind_of(study.student, study.models[model].student, study.views.size).see
        views = (see(faces.flip(2), side) for _, faces, side in batches(study, resolution, fold.held_out))
        return embed_batches(load_student(study, model, fold.number, seed), views).astype(np.float64)
    net, parts = load_trained(study, fold.number, study.teacher.setting).net, []
    see = TEACHERS[study.teacher.name].see
    with torch.inference_mode():
        for start in range(0, len(fold.held_out), BATCH):
            chips = fold.chips[fold.held_out[start : start + BATCH]]
            sizes, flags = np.full(len(chips), int(resolution)), np.ones(len(chips), bool)
            parts.append(net(teacher_input(teacher_view(see, chips, sizes, flags))).embedding)
    return TEACHERS[study.teacher.name].comparable(torch.cat(parts)).numpy().astype(np.float64)
