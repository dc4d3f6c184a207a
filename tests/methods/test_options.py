"""Options are checked before anything runs: what YAML hands over, for every option of every method."""

from __future__ import annotations

from typing import get_type_hints

import pytest
import yaml

from lrfr.errors import UserError
from lrfr.methods import METHODS, check_options
from tests.methods.blocks import BLOCKS

# as written in params.yaml; YAML reads 1e-1 and 1e30 as text
NEVER = ("1e-1", "1e30", ".nan", ".inf", "-5", "null", "1.0e+30", "'no'", "{}", "2001-01-01")
ALSO = {  # what else is impossible for a single option
    "temperature": ("0", "no"),
    "stage": ("4", "1.0"),
    "slots": ("0", "2.5", "yes", "100001"),
    "max_age": ("0", "2.5"),
    "warmup": ("1.1", "no"),
    "start": ("1.1",),
    "step": ("0", "0.9"),
    "gamma": ("0",),
    "levels": ("42", "[4, 0]", "[2.5]", "['4']", "[null]", "'42'"),
    "log2_bandwidths": ("42", "[]", "[.nan]", "['0']", "[1.0e+30]"),
    "review": ("0", "1", "'false'"),
    "logits": ("dkdd", "no"),
    "pairs": ("banks", "2"),
    "distance": ("yes", "[1]"),
}
OPTIONS = [(name, option) for name, (method, options) in BLOCKS.items() if name == method for option in options]


@pytest.mark.parametrize(("method", "option"), OPTIONS)
def test_what_cannot_be_meant_is_refused_in_one_sentence(method: str, option: str) -> None:
    for text in (*NEVER, *ALSO.get(option, ("no",))):
        options = BLOCKS[method][1] | {option: yaml.safe_load(text)}
        with pytest.raises(UserError) as error:
            check_options(method, options, "params.yaml: models.x.")
        message = str(error.value)
        assert message.startswith(f"params.yaml: models.x.options.{option}: "), (text, message)
        assert " is not allowed; give " in message and message.endswith(".") and "\n" not in message


def test_the_sentence_says_what_is_allowed() -> None:
    def refusal(method: str, **change: object) -> str:
        with pytest.raises(UserError) as error:
            check_options(method, BLOCKS[method][1] | change)
        return str(error.value)

    assert refusal("hkdd", hfd="1e-1") == 'options.hfd: "1e-1" is not allowed; give a number from 0 to 100000.'
    assert refusal("hkdd", logits="no") == 'options.logits: "no" is not allowed; give one of dkd, kd.'
    assert refusal("icd_face", slots=0) == "options.slots: 0 is not allowed; give an integer from 1 to 100000."
    assert refusal("acs_review", review=None) == "options.review: null is not allowed; give true or false."
    wanted = "give a list of 0 or more, each an integer from 1 to 100000."
    assert refusal("acs_review", levels=42) == f"options.levels: 42 is not allowed; {wanted}"
    assert refusal("kd", tau=2) == "options.tau is unknown; 'kd' takes temperature, weight."
    assert refusal("scratch", weight=2) == "options.weight is unknown; 'scratch' takes none."
    with pytest.raises(UserError, match=r"options.weight is missing; 'kd' takes temperature, weight\."):
        check_options("kd", {"temperature": 2})
    with pytest.raises(UserError, match="method: there is no method 'kdd'; known are scratch, kd, "):
        check_options("kdd", {})


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_passes_and_an_integer_is_a_number(block: str) -> None:
    method, options = BLOCKS[block]
    check_options(method, options)
    check_options(method, {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in options.items()})


def test_every_method_declares_all_its_options() -> None:
    for name, method in METHODS.items():
        hints = get_type_hints(method.__init__, include_extras=True)
        assert all(hint not in (float, int, str) for hint in hints.values()), f"{name}: an option without a range"
