"""A temporary clone of the tree as it stands, with the commands that a user types."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Clone:
    """The files of the tree that git has or would take, without reports, in a folder and a repository of their own.

    study: its name. timed: starts of the names of files that may differ between two runs: what is measured in seconds.
    """

    def __init__(self, folder: Path, study: str, timed: tuple[str, ...] = ()) -> None:
        self.folder, self.study, self.timed = folder, study, timed
        listing = self.run(
            "git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT
        )
        for name in filter(None, listing.split("\0")):
            if (ROOT / name).is_file() and not name.startswith("reports/"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        (
            folder / "dvc.lock"
        ).unlink()  # of other studies; DVC reads and writes it again after every stage, which takes minutes
        self.run("git", "init", "-q")
        self.commit()

    def run(self, *command: str, cwd: Path | None = None) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LRFR_")} | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder),  # this clone's lrfr, not the installed one
            **{f"GIT_{who}_{what}": "lrfr@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }
        done = subprocess.run(command, cwd=cwd or self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (
            f"{' '.join(command)} exited with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
        return done.stdout

    def repro(self, *arguments: str) -> set[str]:
        """`dvc repro`; the stages that were executed."""
        return set(re.findall(r"^Running stage '(.+)':", self.run("dvc", "repro", *arguments), re.MULTILINE))

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "--allow-empty", "-m", "state")

    def restore(self) -> None:
        """Back to what was committed: sources, parameters, lock and reports from git, the rest from DVC's cache."""
        self.run("git", "reset", "-q", "--hard")
        self.repro(f"summary@{self.study}")

    def hashes(self) -> dict[str, str]:
        """Hash of every file that the study wrote, but for the timed ones."""
        files = [p for top in ("runs", "reports") for p in (self.folder / top / self.study).rglob("*") if p.is_file()]
        names = {p.relative_to(self.folder).as_posix(): p for p in files}
        kept = {name: path for name, path in names.items() if not name.startswith(self.timed)}
        return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in kept.items()}
