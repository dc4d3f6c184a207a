"""Photographs that occur twice: under one name harmless; under two, a label error, and a leak if one is tested."""

import hashlib
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

SIDE = 24  # pixels of a thumbnail, our choice
# Checked by eye on LFW deep-funneled: all 16 pairs above are one photograph, 5 of them under two names (0.979 ...
# 0.999). The next pairs of two people (0.951, 0.944, 0.941 ...) are different photographs before a black background.
# Lower down to 0.91 there still are second prints of one person's photograph, rotated differently; these do no harm.
THRESHOLD = 0.97
EQUAL = 2.0  # a threshold that no cosine exceeds: what is left are equal pixels
BLOCK = 512  # rows of the similarity matrix at a time: 54 MB for 13,233 photographs
COLUMNS = ["image_a", "image_b", "name_a", "name_b", "cosine", "same_person", "identical"]


class Look(NamedTuple):
    """What is compared of a photograph: its grey thumbnail, uint8 (SIDE * SIDE,), and a hash of its decoded pixels."""

    thumbnail: np.ndarray
    digest: str


def look(image: Image.Image) -> Look:
    """The whole photograph, as it is (aligned faces are alike by construction), reduced by area."""
    thumbnail = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)).ravel()
    return Look(thumbnail, hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest())


def find(looks: list[Look], names: list[str], people: np.ndarray, threshold: float = THRESHOLD) -> pd.DataFrame:
    """All pairs of photographs whose centred, unit-norm thumbnails have a cosine above the threshold, or equal pixels.

    people: int (N,), the person of each photograph. Returns a table with the columns of `COLUMNS`, by image_a and
    image_b, where image_a < image_b; same_person and identical (decoded pixels are equal) are 0 or 1. Sums are whole
    numbers below 2^53, so that the cosines are the same on every machine.
    """
    x = np.stack([one.thumbnail for one in looks]).astype(np.float64)
    pixels, totals = x.shape[1], x.sum(1)
    norms = np.sqrt(np.maximum(pixels * (x * x).sum(1) - totals**2, 1))  # 1: of one colour, which is like no other
    digests = pd.factorize(np.array([one.digest for one in looks]))[0]
    rows = []
    for start in range(0, len(x), BLOCK):
        stop = min(start + BLOCK, len(x))
        cosine = pixels * (x[start:stop] @ x[start:].T) - np.outer(totals[start:stop], totals[start:])
        cosine /= norms[start:stop, None]
        cosine /= norms[start:]
        for a, b in np.argwhere((cosine > threshold) | (digests[start:stop, None] == digests[start:])):
            if a < b:
                i, j = start + a, start + b
                same, identical = int(people[i] == people[j]), int(digests[i] == digests[j])
                rows.append((i, j, names[i], names[j], round(float(cosine[a, b]), 4), same, identical))
    return pd.DataFrame(rows, columns=COLUMNS)


def removed(pairs: pd.DataFrame, images: int) -> np.ndarray:
    """bool (images,): photographs not to be used for training and validation, both sides of a pair of two people."""
    wrong = pairs[pairs["same_person"] == 0]
    return np.isin(np.arange(images), np.concatenate([wrong["image_a"], wrong["image_b"]]))
