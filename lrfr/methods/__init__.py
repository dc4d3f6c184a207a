"""The distillation methods. A new one is one file, one import, one line in METHODS (see docs/adding-a-method.md)."""

from __future__ import annotations

from torch import nn

from lrfr.methods.acs_review import ACSReview
from lrfr.methods.baselines import AT, KD, RKD, Feature, FitNet, Scratch
from lrfr.methods.hkdd import HKDD
from lrfr.methods.icd_face import ICDFace
from lrfr.methods.mkmmd import MKMMD
from lrfr.methods.se_dfd import SEDFD

METHODS: dict[str, type[nn.Module]] = {
    "scratch": Scratch,
    "kd": KD,
    "feature": Feature,
    "fitnet": FitNet,
    "at": AT,
    "rkd": RKD,
    "hkdd": HKDD,
    "se_dfd": SEDFD,
    "mkmmd": MKMMD,
    "icd_face": ICDFace,
    "acs_review": ACSReview,
}
