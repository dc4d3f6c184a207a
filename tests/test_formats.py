"""How results are ordered and shown."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lrfr import formats


def test_order_of_models_and_resolutions():
    assert formats.order(["hkdd", "zebra", "teacher", "hkdd"]) == ["teacher", "hkdd", "zebra"]
    assert sorted(["hr", "16", "8"], key=formats.pixels) == ["8", "16", "hr"]
    assert len(set(formats.ORDER)) == len(formats.ORDER)


def test_everything_is_compared_with_each_reference_that_is_there():
    found = formats.families(["scratch", "scratch_centres", "kd", "hkdd", "mkmmd"])
    assert list(found) == ["scratch", "scratch_centres", "kd", "five"] and found["five"] == [("hkdd", "mkmmd")]
    assert [a for a, _ in found["scratch_centres"]] == ["scratch", "kd", "hkdd", "mkmmd"]
    assert "scratch_centres" not in formats.families(["scratch", "kd"])


def test_cells_show_value_and_interval_and_no_negative_zero():
    assert formats.per_cent(-0.0001, -0.02, 0.01, "+") == "+0.0 [-2.0, +1.0]"
    assert formats.per_cent(0.5, np.nan, np.nan) == "50.0"
    rows = [(p, d) for p in (0.049, 0.05, np.nan) for d in (-0.1, 0.1)]
    found = [formats.verdict(pd.Series({"p_holm": p, "diff": d})) for p, d in rows]
    assert found == ["better", "worse", "tie", "tie", "tie", "tie"]


def test_headline_has_models_in_the_house_order_and_sizes_from_small_to_large():
    rows = [
        (m, "hr_lr", r, "eer", v, v - 0.01, v + 0.02) for m in ("kd", "scratch") for r, v in (("hr", 0.1), ("8", 0.25))
    ]
    names = ["model", "pairing", "resolution", "metric", "value", "low", "high"]
    table = formats.headline(pd.DataFrame(rows, columns=names), "eer", "hr_lr")
    assert table.columns.tolist() == ["model", "8", "hr"] and table.model.tolist() == ["scratch", "kd"]
    assert table.iloc[0].tolist() == ["scratch", "25.0 [24.0, 27.0]", "10.0 [9.0, 12.0]"]
    assert formats.headline(pd.DataFrame(rows, columns=names), "auc", "hr_lr").empty


def test_a_page_has_its_tables_under_their_headings_in_order_of_appearance():
    rows = pd.DataFrame({"a": ["y", "y", "x"], "b": ["p", "q", "q"]})
    table = formats.wide(rows, ["1", "2", "3|"], "a", "b")
    text = formats.page("Title", "Words.", {"": table, "Part": table})
    lines = "| a | p | q |\n| --- | --- | --- |\n| y | 1 | 2 |\n| x |  | 3\\| |\n"
    assert text == f"# Title\n\nWords.\n\n{lines}\n## Part\n\n{lines}"
