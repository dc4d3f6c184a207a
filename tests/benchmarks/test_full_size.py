from __future__ import annotations

import pytest

from lrfr.benchmarks import full_size


@pytest.mark.parametrize("benchmark", full_size.RUNS)
def test_a_small_run_prints_counts_and_seconds(benchmark, monkeypatch, capsys):
    for sizes in (full_size.TINYFACE, full_size.SURVFACE):
        for k, part in enumerate(sizes):
            monkeypatch.setitem(sizes, part, 20 + k if part != "people" else 10)
    monkeypatch.setattr("sys.argv", ["full_size", benchmark])
    full_size.main()
    printed = capsys.readouterr().out
    assert "'gallery': 2" in printed and " s\n" in printed and "'rank1':" in printed
