"""The teacher's side of a batch, whatever a model's `teacher` is."""

from __future__ import annotations

import numpy as np
import torch

from lrfr.config import Model, Study
from lrfr.data.loading import Draw
from lrfr.errors import UserError
from lrfr.methods import METHODS
from lrfr.models.features import Targets
from lrfr.models.student import map_shapes
from lrfr.train.faces import Fold
from lrfr.train.targets import CachedTargets, OnlineTargets, load_targets
from lrfr.train.tuned import teacher_view, tune


class Source:
    """The teacher's side of a batch, whatever the model's `teacher` is: none, cached, shuffled, or tuned and run on line."""

    def __init__(self, study: Study, model: Model, fold: Fold) -> None:
        self.fold, self.needs = fold, METHODS[model.method].needs
        self.cached: CachedTargets | None = None
        self.online: OnlineTargets | None = None
        self.low_resolution = model.teacher == "tuned"  # only the conventional teacher sees the student's view
        self.log: list[tuple[int, str, float]] = []  # of the tuned teacher's own training
        if model.teacher == "tuned":
            trained, self.log = tune(study, model.tuned, fold)
            self.online = OnlineTargets(
                trained, tuple(side for _, side in map_shapes(study.student, "plain", study.views.size)), self.needs
            )
        elif model.teacher != "none":
            variant = "se" if model.teacher == "se" else "plain"
            self.cached, self.online = load_targets(study, fold, variant, self.needs)
            if model.teacher == "shuffled":
                if self.cached is None:
                    raise UserError(
                        "a model with `teacher: shuffled` needs cached targets; raise targets.budget_mb in params.yaml."
                    )
                self.cached.shuffle(fold.labels)

    def __call__(self, ids: np.ndarray, draw: Draw) -> Targets:
        if self.cached is not None:
            return self.cached(ids, draw.mirrored)
        if self.online is None:
            return Targets(torch.from_numpy(ids))
        seen = draw.resolution if self.low_resolution else np.zeros_like(draw.resolution)
        return self.online(ids, teacher_view(self.fold.chips[ids], seen, draw.mirrored))
