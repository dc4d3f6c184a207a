"""Do the blocks of `models` and `arms` in params.yaml fit the methods they name?"""

from __future__ import annotations

import inspect

from pydantic import ValidationError

from lrfr.config import Study, sentence
from lrfr.errors import UserError
from lrfr.methods import METHODS
from lrfr.train.distill import VALIDATED


def check_blocks(study: Study, file: str) -> None:
    """Refuse methods that do not exist, options that a method does not take, needs that `targets.store` leaves unmet, and views
    without the resolutions at which validation people are read.

    Raises
    ------
    UserError
        naming the key in `file`.
    """
    if study.views.smallest > min(VALIDATED) or study.views.largest < max(VALIDATED):
        raise UserError(
            f"{file}: views: from {study.views.smallest} to {study.views.largest} pixels; training is validated at "
            f"{', '.join(map(str, VALIDATED))}, so take smallest at most {min(VALIDATED)} and largest at least {max(VALIDATED)}."
        )
    blocks = {f"models.{name}": model for name, model in study.models.items()}
    for method, arms in study.arms.items():
        if method not in study.models:
            raise UserError(f"{file}: arms.{method} belongs to no model; add a block models.{method} or remove it.")
        for arm in arms:
            try:
                blocks[f"arms.{method}.{arm}"] = study.arm(method, arm)
            except ValidationError as error:
                raise UserError(sentence(error, f"{file}: arms.{method}.{arm}")) from None
    for name, grid in study.tuning.grid.items():
        recipe = {f"train.{field}" for field, value in study.train if isinstance(value, float)}
        if grid.option not in recipe | set(study.models[name].options):
            raise UserError(
                f"{file}: tuning.grid.{name}.option: there is no '{grid.option}'; take an option of the model or one of "
                f"{', '.join(sorted(recipe))}."
            )
    for key, model in blocks.items():
        if model.method not in METHODS:
            raise UserError(
                f"{file}: {key}.method: there is no method '{model.method}'; known are {', '.join(METHODS)}."
            )
        parameters = inspect.signature(METHODS[model.method].__init__).parameters
        options = {name for name in parameters if name not in ("self", "shapes")}
        for name in sorted(options ^ set(model.options)):
            problem = "is unknown" if name in model.options else "is missing"
            raise UserError(
                f"{file}: {key}.options.{name} {problem}; '{model.method}' takes {', '.join(sorted(options)) or 'none'}."
            )
        for need in sorted(METHODS[model.method].needs):
            stored = "embedding" if need == "logits" else need  # logits are computed from the embedding
            if stored not in study.targets.store:
                raise UserError(f"{file}: targets.store lacks '{stored}', which {key} needs; add it.")
