"""What `make study` says at its end: where the report is, whether it is the published one, and what to open next."""

from __future__ import annotations

import subprocess

from lrfr.config import Study
from lrfr.report.notebooks import TIMED, TIMES

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


def compared(study: Study) -> str:
    """One sentence on the files below reports/<study>, beside those of git's HEAD, but for the ones that hold times."""
    folder = study.reports.as_posix()
    paths = ["--", folder, *(f":(exclude){folder}/{pattern}" for pattern in HOLD_TIMES)]
    try:
        files = listed("ls-files", "-z", *paths)
        other = listed("diff", "-z", "--relative", "--name-only", "HEAD", *paths)
    except (OSError, subprocess.CalledProcessError):
        return "Without git and a clone it cannot be compared with the published one."
    if not files:
        return "Nothing of this study is published, so there is nothing to compare it with."
    if not other:
        return f"Its {len(files)} files are the same bytes as published (those that hold times are not counted)."
    names = sorted((name.removeprefix(f"{folder}/") for name in other), key=lambda name: not name.startswith("tables/"))
    first = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    reason = "If you changed nothing, that is because another processor rounds differently; see docs/known-issues.md."
    return f"{len(other)} of {len(files)} files differ from those published ({first}). {reason}"


def ending(study: Study) -> str:
    """Three lines or more for the end of `make study`."""
    chapters = [name for name in study.notebooks if name[:2] in ("03", "04", "05", "06", "07")]
    index = study.reports / "index.html"
    return (
        f"The report of the study `{study.study}` is {index.resolve().as_posix()}\n{compared(study)}\n"
        f"Open that file in a browser, then its first notebook, {study.notebooks[0]}; a method a chapter: "
        f"{', '.join(chapters) or 'none'}.\n"
        f"To work in a notebook: jupyter lab notebooks/{study.notebooks[0]}.ipynb\n"
    )
