"""The teacher's side of a batch, whatever a model's `teacher` is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lrfr.config import Study
from lrfr.data.draws import Draw
from lrfr.errors import UserError
from lrfr.methods import METHODS
from lrfr.models.features import Targets
from lrfr.models.student import map_sides
from lrfr.parameters import Model
from lrfr.train.fold import Fold, teacher_view
from lrfr.train.targets import CachedTargets, OnlineTargets, load_targets
from lrfr.train.tuned_teacher import tune


class Source:
    """The teacher's side of a batch, whatever the model's `teacher` is: none, cached, shuffled, or tuned and run on line."""

    def __init__(self, study: Study, model: Model, fold: Fold) -> None:
        self.fold, self.needs = fold, METHODS[model.method].needs
        self.cached: CachedTargets | None = None
        self.online: OnlineTargets | None = None
        self.low_resolution = model.teacher == "tuned"  # only the conventional teacher sees the student's view
        self.log: list[tuple[int, str, float]] = []  # of the tuned teacher's own training
        self.class_weight: Tensor | None = None  # the teacher's class centres, of a teacher that does not mislead
        if model.teacher == "tuned":
            trained, self.log = tune(study, model.tuned, fold)
            self.online = OnlineTargets(trained, map_sides(study.views.size), self.needs)
        elif model.teacher != "none":
            variant = "se" if model.teacher == "se" else "plain"
            self.cached, self.online = load_targets(study, fold, variant, self.needs)
            if model.teacher == "shuffled":
                if self.cached is None:
                    raise UserError(
                        "a model with `teacher: shuffled` needs cached targets; raise targets.budget_mb in params.yaml."
                    )
                self.cached.shuffle(fold.persons)
        if self.online is not None and model.teacher != "shuffled":
            self.class_weight = self.online.trained.class_weight

    def __call__(self, ids: np.ndarray, draw: Draw) -> Targets:
        if self.cached is not None:
            return self.cached(ids, draw.mirrored)
        if self.online is None:
            return Targets(torch.from_numpy(ids))
        seen = draw.resolution if self.low_resolution else np.zeros_like(draw.resolution)
        return self.online(ids, teacher_view(self.fold.chips[ids], seen, draw.mirrored))
