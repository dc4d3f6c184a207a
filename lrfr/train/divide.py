"""Stage `divide`: who trains, who validates, who is tested.

Without test sources the study's own people are divided into folds (`lrfr.data.splits`). With them their people are the
test of the one fold, and whoever of the training source resembles one of them is left out: two sets of photographs of
public figures share people, whose names nobody gives. A network looks for them, in sharp faces.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from lrfr.config import Study
from lrfr.data import splits
from lrfr.data.align import CHIP
from lrfr.data.photographs import Source
from lrfr.errors import UserError
from lrfr.files import write_table
from lrfr.models.heads import unit
from lrfr.models.teachers import TEACHERS, build_teacher
from lrfr.parallel import parallel_map
from lrfr.train.fold import teacher_input

CHUNK, BATCH = 2000, 50  # faces a task, and a forward pass or a block of similarities
OVERLAP = ["name", "set", "cosine", "resembles", "left_out"]


def embed_chunk(study: Study, first: int) -> np.ndarray:
    """Unit embeddings float32 (n, D) of the sharp faces first, first + 1, ... by the network that searches."""
    searcher, parts = study.faces.searcher, []
    assert searcher is not None  # as the parameters say where people are searched for
    net, see = build_teacher(searcher.name, searcher.weights), TEACHERS[searcher.name].see
    chips = np.load(study.runs / "chips.npy", mmap_mode="r")[first : first + CHUNK]
    with torch.inference_mode():
        for start in range(0, len(chips), BATCH):
            seen = see(torch.from_numpy(np.array(chips[start : start + BATCH])), CHIP)
            parts.append(unit(net(teacher_input(seen)).embedding))
    return torch.cat(parts).numpy()


def nearest(faces: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each face (n, D) the largest cosine to another (m, D), rounded to 4 digits, and whose row that is."""
    cosine, row = np.empty(len(faces)), np.empty(len(faces), dtype=np.int64)
    for start in range(0, len(faces), BATCH):
        block = faces[start : start + BATCH] @ others.T
        row[start : start + BATCH], cosine[start : start + BATCH] = block.argmax(1), block.max(1)
    return np.round(cosine, 4), row


def search(study: Study, index: pd.DataFrame, tested: np.ndarray) -> tuple[np.ndarray, pd.DataFrame]:
    """People of the training source who resemble somebody of the test sources, and overlap.csv.

    The table has the photographs of the people left out: how near the nearest face of a test source is, in which set,
    and its name. It is sorted by name, so that it does not say who is on two of them.
    """
    tasks = [(study, first) for first in range(0, len(index), CHUNK)]
    embeddings = np.concatenate(parallel_map(embed_chunk, tasks, study.jobs, study.threads, "search"))
    cosine, row = nearest(embeddings[~tested], embeddings[tested])
    own, other = index[~tested], index[tested].iloc[row]
    left_out = np.unique(own["person"][cosine > study.faces.resemblance])
    columns = (own["name"], other["set"], cosine, other["name"], own["person"].isin(left_out).astype(int))
    overlap = pd.DataFrame({name: np.asarray(column) for name, column in zip(OVERLAP, columns, strict=True)})
    return left_out, overlap[overlap["left_out"] == 1].sort_values("name")


def own_folds(study: Study, source: Source, index: pd.DataFrame, official: pd.DataFrame) -> pd.DataFrame:
    """folds.csv of a study without test sources."""
    faces = study.faces
    if official.empty:
        return splits.identity_folds(faces.people, faces.folds, faces.validation_people, study.seed)
    people, usable = index["person"].to_numpy(), index["removed"].to_numpy() == 0
    folds = splits.lfw_folds(people, official, faces.validation_people, study.seed, usable)
    if (made := folds["fold"].nunique()) != faces.folds:
        raise UserError(f"faces.folds: the official pairs of {faces.source} make {made} folds; set it to that.")
    counts = splits.count_fold(folds, people, official)
    for what, expected in source.first_fold.items():
        if counts[what] != expected:
            problem = f"fold 0 has {what}: {counts[what]} instead of {expected}"
            raise UserError(f"{faces.source}: {problem}; restore {source.manifest}.")
    return folds


def run(study: Study, sources: Mapping[str, Source]) -> None:
    """Write folds.csv, official.csv (the official lists of what is tested), and overlap.csv of the report."""
    index, tables = pd.read_csv(study.runs / "index.csv"), []
    for name in study.faces.tests or (study.faces.source,):
        own, lists = index[index["set"] == name], sources[name].lists
        if lists is not None:
            pairs = lists()
            together = int(pairs["fold"].max()) + 1 if study.faces.tests else splits.TOGETHER
            tables.append(splits.official(pairs, own.set_index("name")["image"], together))
    official = pd.concat(tables) if tables else pd.DataFrame(columns=splits.OFFICIAL)
    overlap = pd.DataFrame(columns=OVERLAP)
    if study.faces.tests:
        tested, left_out = (index["set"] != study.faces.source).to_numpy(), np.array([], dtype=np.int64)
        if study.faces.resemblance is not None:
            left_out, overlap = search(study, index, tested)
        people, usable = index["person"].to_numpy(), (index["removed"] == 0).to_numpy()
        folds = splits.fold_of_tests(people, tested, left_out, study.faces.validation_people, study.seed, usable)
    else:
        folds = own_folds(study, sources[study.faces.source], index, official)
    write_table(study.runs / "folds.csv", folds)
    write_table(study.runs / "official.csv", official)
    write_table(study.reports / "overlap.csv", overlap)
