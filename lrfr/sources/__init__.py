"""Where photographs to train and test on come from. A new source is one file, one import, one line in SOURCES."""

from lrfr.data.photographs import Source
from lrfr.sources import celeba, cfp, lfw, orl, recordio

SOURCES: dict[str, Source] = {
    "orl": orl.SOURCE,
    "lfw": lfw.SOURCE,
    "recordio": recordio.SOURCE,
    "celeba": celeba.SOURCE,
    "cfp": cfp.SOURCE,
}
