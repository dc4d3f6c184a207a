"""What a distillation method is, and all of them. A new one: docs/adding-a-method.md."""

import json
from collections.abc import Mapping
from typing import Any, Protocol, get_type_hints

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from lrfr.errors import UserError
from lrfr.methods.acs_review import ACSReview
from lrfr.methods.baselines import AT, KD, RKD, Feature, FitNet, Scratch
from lrfr.methods.hkdd import HKDD
from lrfr.methods.icd_face import ICDFace
from lrfr.methods.joint import Joint
from lrfr.methods.mkmmd import MKMMD
from lrfr.methods.se_dfd import SEDFD
from lrfr.models.features import Features, Shapes, Targets


class Method(Protocol):
    """The contract: an nn.Module with these members. Training and evaluation use nothing else of it.

    needs: the fields of `Targets` that it reads, of "embedding", "logits", "maps", "attention".
    matches_embeddings: is each face's embedding pulled to the plain teacher's of that face, so that a sharp face
    embedded by the teacher can be compared with a small one embedded by the student (the pairing teacher_lr)?
    """

    needs: frozenset[str]
    matches_embeddings: bool

    def __init__(self, shapes: Shapes, **options: Any) -> None:
        """Options are keyword arguments without defaults; `check_options` reads types and ranges from annotations."""

    def forward(
        self, student: Features, student_logits: Tensor, targets: Targets, labels: Tensor, progress: float
    ) -> dict[str, Tensor]:
        """Named, weighted, scalar terms to be added to the face loss; a term of weight 0 is left out.

        student_logits: float (B, C), without margin. labels: int64 (B,), -1 for rows that belong to no class.
        progress: fraction of training done, in (0, 1].
        """

    def logs(self) -> dict[str, float]:
        """What the last call of `forward` has to tell beside its terms, by name; mostly nothing."""


METHODS: dict[str, type[Method]] = {
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
    "joint": Joint,
}


def _in_words(schema: Mapping[str, Any]) -> str:
    """The JSON schema of an option for people, like "an integer from 1 to 9"."""
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    if schema["type"] == "array":
        return f"a list of {schema.get('minItems', 0)} or more, each {_in_words(schema['items'])}"
    kind = {"number": "a number", "integer": "an integer", "boolean": "true or false"}[schema["type"]]
    return f"{kind} from {schema['minimum']:g} to {schema['maximum']:g}" if "minimum" in schema else kind


def check_options(method: str, options: Mapping[str, Any], where: str = "") -> None:
    """Refuse what a method's `__init__` does not take. Text is no number (1e-1 is text in YAML), neither is true; 1 is.

    UserErrors are one sentence, beginning with `where`, about a method or an option.

    >>> check_options("kd", {"weight": 1, "temperature": 0})
    Traceback (most recent call last):
    lrfr.errors.UserError: options.temperature: 0 is not allowed; give a number from 0.01 to 1000.
    """
    if method not in METHODS:
        raise UserError(f"{where}method: there is no method '{method}'; known are {', '.join(METHODS)}.")
    hints = get_type_hints(METHODS[method].__init__, include_extras=True)
    types = {name: hint for name, hint in hints.items() if name not in ("shapes", "return")}
    for name in sorted(types.keys() ^ options.keys()):
        problem = "is unknown" if name in options else "is missing"
        takes = ", ".join(sorted(types)) or "none"
        raise UserError(f"{where}options.{name} {problem}; '{method}' takes {takes}.")
    for name, kind in types.items():
        try:
            (adapter := TypeAdapter(kind)).validate_python(options[name], strict=True)
        except ValidationError:
            shown, wanted = json.dumps(options[name], default=str), _in_words(adapter.json_schema())
            raise UserError(f"{where}options.{name}: {shown} is not allowed; give {wanted}.") from None
