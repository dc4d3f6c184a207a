"""The last words of `make study`: the same bytes as published, or which files differ, or that nobody can say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lrfr.report import ending


@pytest.fixture
def published(project):
    """The invented study, committed in a repository of its own."""
    who = ["-c", "user.name=lrfr", "-c", "user.email=lrfr@localhost"]
    (project.reports / "environment.json").write_text("{}\n")
    for command in (["init", "-q"], ["add", "reports"], [*who, "commit", "-qm", "published"]):
        subprocess.run(["git", *command], check=True)
    return project


def test_the_same_bytes_are_said_to_be_so_whatever_time_it_took(published):
    (published.reports / "tables/cost.csv").write_text("other times\n")
    (published.reports / "environment.json").write_text('{"machine": "another"}\n')
    (published.reports / "untracked.csv").write_text("a\n")
    text = ending.ending(published)
    assert "the same bytes as published" in text and "reports/smoke/index.html" in text and "00-start-here" in text


def test_files_that_differ_are_counted_and_the_first_tables_named(published):
    for name in ("tables/runs.csv", "tables/results.csv", "tables/teacher.csv", "tables/tuning.csv", "STATUS.md"):
        (published.reports / name).write_text("other\n")
    (published.reports / "students/kd/log.csv").unlink()
    text = ending.ending(published)
    assert "6 of 12 files differ" in text and "another processor rounds differently; see docs/known-issues.md" in text
    assert "tables/results.csv, tables/runs.csv, tables/teacher.csv, ..." in text


def test_without_git_or_a_published_report_it_says_so(project, monkeypatch):
    assert "cannot be compared" in ending.ending(project)  # no repository here
    monkeypatch.setenv("PATH", "")
    assert "cannot be compared" in ending.ending(project)
    monkeypatch.undo()


def test_a_study_that_is_not_in_git_has_nothing_to_be_compared_with(published, changed):
    assert "nothing to compare it with" in ending.ending(changed(published, {"study": "mine"}))
    assert Path("reports/smoke").is_dir()
