"""What `make study` says at its end: where the report is, whether it is the published one, and what to open next."""

from __future__ import annotations

import subprocess

from lrfr.config import Study
from lrfr.report.notebooks import TIMED, TIMES
from lrfr.report.pages import filled

# Files of a report that hold times, or that name the machine: they differ from run to run.
HOLD_TIMES = (
    "environment.json",
    "index.html",
    *(f"tables/{name}.*" for name in TIMES),
    *(f"{name}/*" for name in TIMED),
)


def listed(*arguments: str) -> list[str]:
    """Files that a git command names; OSError or CalledProcessError where there is no git, or no repository."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def compared(study: Study) -> tuple[list[str] | None, list[str]]:
    """Published files of the report, and those that differ, tables first; without those that hold times.

    The first is None where git cannot say.
    """
    folder = study.reports.as_posix()
    paths = ["--", folder, *(f":(exclude){folder}/{pattern}" for pattern in HOLD_TIMES)]
    try:
        files = listed("ls-files", "-z", *paths)
        other = listed("diff", "-z", "--relative", "--name-only", "HEAD", *paths) if files else []
    except (OSError, subprocess.CalledProcessError):
        return None, []
    names = [name.removeprefix(f"{folder}/") for name in other]
    return files, sorted(names, key=lambda name: not name.startswith("tables/"))


def ending(study: Study) -> str:
    """Three lines or more for the end of `make study`."""
    files, other = compared(study)
    chapters = [name for name in study.notebooks if name[:2] in ("03", "04", "05", "06", "07")]
    index = (study.reports / "index.html").resolve().as_posix()
    return filled("ending.txt.j2", study=study, index=index, files=files, other=other, chapters=chapters)
