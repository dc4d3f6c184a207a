import sys

from lrfr.progress import bar


def test_silent_without_a_terminal(capsys):
    assert list(bar(iter([1, 2]), "work", 2)) == [1, 2]
    assert capsys.readouterr().err == ""


def test_drawn_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(bar([1, 2], "work")) == [1, 2]
    assert "work" in capsys.readouterr().err
