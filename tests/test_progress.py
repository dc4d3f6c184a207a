"""How far a stage is: a line now and then in a log, and what is left."""

from __future__ import annotations

import pytest

from lrfr import progress
from lrfr.progress import bar, left


@pytest.mark.parametrize(
    ("done", "total", "seconds", "text"),
    [
        (3, 12, 40.0, "3 of 12, about 2 minutes left"),
        (1, 2, 60.0, "1 of 2, about 1 minute left"),
        (9, 10, 90.0, "9 of 10, less than a minute left"),
        (1, 5, 900.0, "1 of 5, about 60 minutes left"),
    ],
)
def test_what_is_left(done: int, total: int, seconds: float, text: str):
    assert left(done, total, seconds) == text


def test_a_log_gets_lines_and_the_items_are_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    clock = iter(range(0, 1000, 30))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(bar("abc", "letters")) == ["a", "b", "c"]
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines() == [
        "letters: 1 of 3, about 1 minute left",
        "letters: 2 of 3, less than a minute left",
    ]


def test_what_is_quickly_done_says_nothing(capsys: pytest.CaptureFixture[str]):
    assert list(bar(iter([1, 2]), "numbers", total=2)) == [1, 2]
    assert capsys.readouterr() == ("", "")
