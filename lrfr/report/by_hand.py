"""The verb `notebook`: run a notebook with other parameters, beside the report."""

from __future__ import annotations

import argparse

from lrfr import config


def add(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("name", metavar="NAME", help="a notebook of notebooks/, such as 03-hkdd")
    more = "another value of a parameter, for example fold=1; once for each"
    parser.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE", help=more)


def run(arguments: argparse.Namespace) -> int:
    """Run the notebook and say where its page is."""
    from lrfr.report.notebooks import by_hand

    print(by_hand(config.load(), arguments.name, arguments.parameter).as_posix())
    return 0
