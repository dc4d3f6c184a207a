"""Which student answers, and on what terms: a released or exported model's card, checked before the model is read."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from lrfr.errors import UserError

WEIGHTS = Path(__file__).parents[1] / "weights"  # of the package, wherever it is installed
STUDIES = ("lfw", "orl")  # whose released students are the default: the first that has any
FAR = 0.01  # of a decision, if nothing else is said: the first of the studies' own
LARGEST_CARD = 1 << 20  # bytes; our choice: a card has a few kilobytes
LARGEST = {"size": 512, "embedding": 4096, "channels": 2048}  # our choices: a card may not ask for gigabytes of memory
RESOLUTIONS = {"hr", *map(str, range(1, LARGEST["size"] + 1))}  # as a card writes them


class Model(NamedTuple):
    """A model's file, its bytes, already compared with the card, and the card."""

    path: Path
    data: bytes
    card: dict[str, Any]


def whole(value: object, largest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= largest


def well_formed(card: Any) -> bool:
    """Has a card what the recogniser reads, of the right types and of sensible sizes?"""
    try:
        network, rows = card["network"], card.get("thresholds", [])
        channels = [*network["channels"], *network["se_channels"]]
        return (
            isinstance(card["name"], str)
            and network["kind"] in ("plain", "se")
            and whole(card["input"]["size"], LARGEST["size"])
            and card["input"]["size"] % 8 == 0
            and whole(network["embedding"], LARGEST["embedding"])
            and len(channels) == 8
            and all(whole(channel, LARGEST["channels"]) for channel in channels)
            and isinstance(card.get("thresholds_from", ""), str)
            and isinstance(card.get("validation", {}), dict)
            and all(isinstance(row[key], str) for row in card.get("files", []) for key in ("file", "sha256"))
            and all(row["resolution"] in RESOLUTIONS for row in rows)
            and all(0 < row["far"] < 1 and math.isfinite(row["similarity"]) for row in rows)
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return False


def read_card(path: Path) -> dict[str, Any]:
    """A card; UserError if it is missing or is none."""
    try:
        with path.open("rb") as file:
            card = json.loads(file.read(LARGEST_CARD))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); a model needs its card beside it.") from None
    except (ValueError, RecursionError):
        card = None
    if not well_formed(card):
        raise UserError(f"{path}: not the card of a student, or damaged; fetch model and card again.")
    return card


def default_card(folder: Path = WEIGHTS) -> Path:
    """The card of the released student that the validation people of its study ranked first; UserError without any."""
    cards = {path: read_card(path) for path in sorted(folder.glob("*.json"))}
    for study in STUDIES:
        ranks = {
            path: card.get("validation", {}).get("rank") for path, card in cards.items() if card.get("study") == study
        }
        if ranks:
            return min(ranks, key=lambda path: ranks[path] if whole(ranks[path], LARGEST_CARD) else math.inf)
    raise UserError("no student is released yet; make one with `lrfr release STUDY`, or give one with --model PATH.")


def find_model(path: str | Path | None = None) -> Model:
    """A model with its card: a `.safetensors` or `.onnx` file (or its card), the default student if no path is given.

    A released student has a card of its own, with its sha256. An exported one's card lists its `files`, and
    `a-int8.onnx` may share that of `a.onnx`.

    Raises
    ------
    UserError
        if model or card is missing, the card is damaged, or the model is not the one of its card.
    """
    path = default_card().with_suffix(".safetensors") if path is None else Path(path)
    if path.suffix == ".json":
        path = path.with_suffix(".safetensors")
    if path.suffix not in (".safetensors", ".onnx"):
        raise UserError(f"{path}: not a .safetensors or .onnx file; give a released or an exported student.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a released or an exported student.") from None
    beside = path.with_suffix(".json")
    if path.suffix == ".onnx" and not beside.is_file():
        beside = path.with_name(path.stem.rpartition("-")[0] + ".json")
    card = read_card(beside)
    digest = card.get("sha256")
    if path.suffix == ".onnx":
        digest = next((row["sha256"] for row in card.get("files", []) if row["file"] == path.name), None)
    if not isinstance(digest, str):
        raise UserError(f"{beside}: says nothing about {path.name}; fetch model and card again.")
    if hashlib.sha256(data).hexdigest() != digest:
        raise UserError(f"{path}: not the model of its card (its sha256 differs); fetch model and card again.")
    return Model(path, data, card)


def resolution_for(pixels: int, listed: Iterable[str], size: int) -> str:
    """The resolution whose threshold holds for two faces of which the smaller has `pixels` a side.

    The largest listed one that is not above `pixels`, or the smallest of all. `hr` from twice the input's `size` on:
    the study's `hr` views are chips reduced from far more pixels (about 118 in LFW), each a mean of many; a face of 40
    pixels, brought to 32, is no sharper than the view at 32.
    """
    listed = set(listed)
    numbers = sorted(int(resolution) for resolution in listed - {"hr"})
    if "hr" in listed and (pixels >= 2 * size or not numbers):
        return "hr"
    return str(max((number for number in numbers if number <= pixels), default=numbers[0]))


def operating_point(card: dict[str, Any], far: float, pixels: int) -> dict[str, Any]:
    """The row of a card's thresholds for a FAR and the side of the smaller of two faces.

    Raises UserError if the card has no thresholds, or none for this FAR; the message names those that there are.
    """
    rows = card.get("thresholds", [])
    if not rows:
        raise UserError(f"{card['name']}: its card has no thresholds, so it cannot decide; release it again.")
    at = [row for row in rows if math.isclose(row["far"], far, rel_tol=1e-9)]
    if not at:
        known = ", ".join(f"{value:g}" for value in sorted({row["far"] for row in rows}))
        raise UserError(f"far {far:g}: there is no threshold for it on the card of {card['name']}; known are {known}.")
    wanted = resolution_for(pixels, (row["resolution"] for row in at), card["input"]["size"])
    return next(row for row in at if row["resolution"] == wanted)
