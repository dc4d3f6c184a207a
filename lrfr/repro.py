"""`lrfr repro`: what `dvc repro` does, with trainings of different models side by side, and a last word on where the report is.

DVC runs one stage after the other; its manual suggests several `dvc repro` at once for more. A stage that trains several folds
and seeds fills the processors by itself (`jobs`), one that trains a single student does not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from lrfr import config
from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.progress import bar
from lrfr.report.ending import ending

# another `dvc repro` was writing its lock file, held a path, or was staging in git: try again
BUSY = ("Unable to acquire lock", "is busy", "index.lock")
PAUSE = 5.0  # seconds: a try costs as many of processor time
PATIENCE = 120  # tries: other processes hold the lock for seconds, not minutes


def reproduce(target: str, *options: str) -> None:
    """`dvc repro TARGET`, again while another one holds DVC's lock.

    Raises
    ------
    UserError
        with the last lines that DVC printed, if the stage fails.
    """
    for _ in range(PATIENCE):
        done = subprocess.run([sys.executable, "-m", "dvc", "repro", *options, target], capture_output=True, text=True)
        if done.returncode == 0:
            return
        if not any(message in done.stderr for message in BUSY):
            break
        time.sleep(PAUSE)
    text = " ".join((done.stdout + done.stderr).split())[-500:]
    raise UserError(f"dvc repro {target} failed ({text}); mend the cause and run this again: what is done stays.")


def trainings() -> list[str]:
    """Names of the stages that train one model each."""
    listing = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"], capture_output=True, text=True
    )
    if listing.returncode:
        raise UserError(f"dvc stage list failed ({' '.join(listing.stderr.split())[-300:]}); run `lrfr doctor`.")
    return [name for name in listing.stdout.split() if name.startswith(("tune@", "distill@"))]


def side_by_side(targets: Sequence[str], jobs: int) -> None:
    """Reproduce independent stages, `jobs` at a time; the first failure is raised when the others that run have ended.

    Alone (`--single-item`), because DVC locks the outputs of every stage above for writing, and a training that runs reads them.
    """
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(reproduce, target, "--single-item") for target in targets]
        try:
            for future in bar(futures, "trainings"):
                future.result()
        except UserError:
            pool.shutdown(cancel_futures=True)
            raise


def everything(study: Study) -> None:
    """Everything up to the targets, then all trainings, then the rest."""
    inside = len(study.faces.run_folds) * len(study.train.seeds)  # processes that one training stage can fill
    jobs = max(1, study.jobs // inside)
    if jobs > 1:
        reproduce(f"targets@{study.study}")
        tuned = {f"distill@{study.study}-{name}" for name, model in study.models.items() if model.tuned}
        side_by_side(sorted(trainings(), key=lambda name: name not in tuned), jobs)  # the longest first
    if subprocess.run([sys.executable, "-m", "dvc", "repro"]).returncode:
        raise UserError("dvc repro failed, see above; mend the cause and run this again: what is done stays.")


def add(parser: argparse.ArgumentParser) -> None:
    """The verb `repro` has no arguments."""


def run(arguments: argparse.Namespace) -> int:
    """The verb `repro`."""
    study = config.load()
    everything(study)
    print(ending(study))
    return 0
