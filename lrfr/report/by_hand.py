"""The verb `notebook`: run a notebook with other parameters, beside the report."""

import argparse

import yaml

from lrfr import config
from lrfr.errors import UserError


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("name", metavar="NAME", help="a notebook of notebooks/, such as 03-hkdd")
    parser.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE", help="once for each")


def run(arguments: argparse.Namespace) -> int:
    """Run the notebook and say where its page is."""
    from lrfr.report import notebooks

    given = {}
    for pair in arguments.parameter:
        try:
            given |= yaml.safe_load(pair.replace("=", ": ", 1))
        except (yaml.YAMLError, TypeError, ValueError):  # no YAML, or no pair
            raise UserError(f"--parameter {pair}: write NAME=VALUE, a number or a word; such as fold=1.") from None
    notebooks.run(config.load(), arguments.name, given)
    print((notebooks.OUTPUT / arguments.name / "index.html").as_posix())
    return 0
