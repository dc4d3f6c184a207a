"""`lrfr repro`: what `dvc repro` does, with independent stages side by side, and a last word on where the report is.

DVC runs one stage after the other; its manual suggests several `dvc repro` at once for more. A stage that trains
several folds and seeds fills the processors by itself (`jobs`); a notebook, or the training of a single student, does
not.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from lrfr import config
from lrfr.config import Study
from lrfr.errors import UserError
from lrfr.progress import bar
from lrfr.report.site import ending

DVC = [sys.executable, "-m", "dvc"]
# another `dvc repro` was writing its lock file, held a path, or was staging in git: try again
BUSY = ("Unable to acquire lock", "is busy", "index.lock")
PAUSE = 2.0  # seconds: a try costs as many of processor time
PATIENCE = 300  # tries: other processes hold the lock for seconds, not minutes


def reproduce(target: str, *options: str) -> None:
    """`dvc repro TARGET` without its output, again while another one holds DVC's lock.

    Raises UserError with the last lines that DVC printed, if the stage fails.
    """
    for _ in range(PATIENCE):
        done = subprocess.run([*DVC, "repro", *options, target], capture_output=True, text=True)
        if done.returncode == 0:
            return
        if not any(message in done.stderr for message in BUSY):
            break
        time.sleep(PAUSE)
    text = " ".join((done.stdout + done.stderr).split())[-500:]
    raise UserError(f"dvc repro {target} failed ({text}); mend the cause and run this again: what is done stays.")


def stages() -> list[str]:
    """Names of all stages of the study, in the order of the graph."""
    listing = subprocess.run([*DVC, "stage", "list", "--name-only"], capture_output=True, text=True)
    if listing.returncode:
        raise UserError(f"dvc stage list failed ({' '.join(listing.stderr.split())[-300:]}); run `lrfr doctor`.")
    return listing.stdout.split()


def changed(targets: Sequence[str]) -> list[str]:
    """Those of some stages that have to run."""
    status = subprocess.run([*DVC, "status", "--json", *targets], capture_output=True, text=True)
    return [name for name in targets if status.returncode or name in json.loads(status.stdout)]


def side_by_side(targets: Sequence[str], jobs: int, description: str) -> None:
    """Reproduce independent stages, `jobs` at a time; the first failure is raised when the others that run have ended.

    Alone (`--single-item`), because DVC locks the outputs of every stage above for writing, and a stage that runs reads
    them.
    """
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(reproduce, target, "--single-item") for target in targets]
        try:
            for future in bar(futures, description):
                future.result()
        except UserError:
            pool.shutdown(cancel_futures=True)
            raise


def in_order(names: Sequence[str], *targets: str) -> None:
    """`dvc repro TARGETS` with its output; each stage that runs is numbered among `names`."""
    process = subprocess.Popen([*DVC, "repro", *targets], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        name = line.split("'")[1] if line.startswith("Running stage '") else ""
        if "dvc push" not in line:  # there is no remote to push to
            print(f"[{names.index(name) + 1} of {len(names)}] {line}" if name in names else line, end="", flush=True)
    if process.wait():
        raise UserError("dvc repro failed, see above; mend the cause and run this again: what is done stays.")


def everything(study: Study) -> None:
    """The stages in order, but trainings of a single student side by side, and the notebooks and `mirror`."""
    names = stages()
    trainings = [name for name in names if name.startswith(("tune@", "distill@"))]
    jobs = study.jobs // (len(study.faces.run_folds) * len(study.train.seeds))  # trainings that fill the processors
    if jobs > 1:
        in_order(names, f"targets@{study.study}")
        tuned = {f"distill@{study.study}-{name}" for name, model in study.models.items() if model.tuned}
        side_by_side(
            sorted(changed(trainings), key=lambda name: name not in tuned), jobs, "trainings"
        )  # the longest first
    pages = [name for name in names if name.startswith(("mirror@", "notebook@"))]
    if study.jobs > 1 and len(pages) > 1:
        in_order(names, f"claims@{study.study}", f"export@{study.study}")  # what they read
        side_by_side(changed(pages), study.jobs, "notebooks and mirror")
    in_order(names)


def add(parser: argparse.ArgumentParser) -> None:
    """The verb `repro` has no arguments."""


def run(arguments: argparse.Namespace) -> int:
    """The verb `repro`."""
    study = config.load()
    everything(study)
    print(ending(study))
    return 0
