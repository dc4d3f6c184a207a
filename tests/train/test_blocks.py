"""Blocks of parameters must fit the methods they name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lrfr.train.blocks import check_blocks

from lrfr.config import Study
from lrfr.errors import UserError

STUDIES = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "conf" / "study").glob("*.yaml"))


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_passes(composed: Callable[[str], dict], name: str):
    check_blocks(Study(**composed(name)), "params.yaml")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda v: v["models"]["kd"].update(method="kdd"),
            "models.kd.method: there is no method 'kdd'; known are scratch, kd",
        ),
        (
            lambda v: v["models"]["kd"]["options"].update(tau=2),
            "models.kd.options.tau is unknown; 'kd' takes temperature, weight",
        ),
        (lambda v: v["models"]["kd"]["options"].pop("weight"), "models.kd.options.weight is missing"),
        (
            lambda v: v["models"]["scratch"]["options"].update(weight=1),
            "options.weight is unknown; 'scratch' takes none",
        ),
        (lambda v: v["arms"].update(hkd={"a": {}}), "arms.hkd belongs to no model"),
        (lambda v: v["arms"]["hkdd"]["no_hfd"]["options"].update(hdf=0), "arms.hkdd.no_hfd.options.hdf is unknown"),
        (
            lambda v: v["arms"]["hkdd"]["no_hfd"].update(method="kdd"),
            "arms.hkdd.no_hfd.method: there is no method 'kdd'",
        ),
        (lambda v: v["arms"]["hkdd"]["no_dkd"].update(studnet="se"), "arms.hkdd.no_dkd: unknown parameter 'studnet'"),
        # a resolution without a view would be read from another one
        (
            lambda v: (v["views"].update(smallest=12), v["evaluate"].update(resolutions=[16, 32])),
            "views: from 12 to 32 pixels; training is validated at 8, 12, 16, so take smallest at most 8",
        ),
        (
            lambda v: (v["views"].update(largest=15), v["evaluate"].update(resolutions=[8])),
            "views: from 8 to 15 pixels",
        ),
        # logits are computed from embeddings
        (
            lambda v: v["targets"].update(store=["maps", "attention"]),
            "targets.store lacks 'embedding', which models.kd needs",
        ),
        (lambda v: v["targets"].update(store=["embedding", "attention"]), "targets.store lacks 'maps', which models"),
        (lambda v: v["targets"].update(store=["embedding", "maps"]), "targets.store lacks 'attention', which models"),
    ],
)
def test_what_does_not_fit_is_named(composed: Callable[[str], dict], change: Callable[[dict], object], reason: str):
    values = composed("smoke")
    change(values)
    with pytest.raises(UserError) as error:
        check_blocks(Study(**values), "params.yaml")
    assert str(error.value).startswith("params.yaml: ") and reason in str(error.value) and "\n" not in str(error.value)
