"""params.yaml: every study of conf/ is valid, and what cannot be run is refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from lrfr import config
from lrfr.config import Study, Train
from lrfr.data.align import CHIP
from lrfr.errors import UserError
from lrfr.methods import check_options
from lrfr.models.edgeface import WINDOW
from lrfr.models.teachers import TEACHERS
from lrfr.studies import check
from lrfr.train.trainings import arm, candidate, folds_of, points, seeds_of, training

ROOT = Path(__file__).resolve().parents[1]
STUDIES = sorted(path.stem for path in (ROOT / "conf" / "study").glob("*.yaml"))
DELETE = object()


def test_the_studies_exist():
    assert {"orl", "smoke", "lfw", "paper", "celeba"} <= set(STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_composes_to_a_valid_one(composed: Callable[[str], dict], name: str):
    study = Study(**composed(name))
    assert study.study == name
    assert study.runs == Path("runs") / name and study.reports == Path("reports") / name
    assert study.resolutions == (*map(str, study.evaluate.resolutions), "hr")
    check(study, "params.yaml")
    for name, variant in study.arms.items():
        same = (
            name == "se_dfd-student_only" and study.teacher.se is None
        )  # there the model has the plain teacher already
        assert (arm(study, variant) != study.models[variant.like]) is not same, f"{name} changes nothing"


def test_the_committed_parameters_are_the_composition_of_orl(composed: Callable[[str], dict]):
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert values == composed("orl") and list(values["models"]) == list(composed("orl")["models"])


def test_the_study_of_the_reference_numbers(composed: Callable[[str], dict]):
    """LFW: people who are never trained on choose, and the official pairs of whole folds decide."""
    study = Study(**composed("lfw"))
    assert study.faces.source == "lfw" and study.faces.people == 5749 and study.faces.folds == 5
    assert study.evaluate.official and study.evaluate.far == (0.01, 0.001) and study.evaluate.misaligned == 0.03
    assert study.models.keys() == {*Study(**composed("orl")).models, "scratch_centres"}
    assert study.train.head == "teacher"  # which `scratch_centres` has alone
    assert min(study.train.rotate, study.train.zoom, study.train.shift) > 0


def test_the_study_that_tests_people_of_other_sources(composed: Callable[[str], dict]):
    study = Study(**composed("celeba"))
    assert study.faces.source == "celeba" and study.faces.tests == ("lfw", "cfp", "orl") and study.faces.folds == 1
    assert study.faces.people == 7483 and study.faces.validation_people == 300 and study.views.kinds[0] == "area"
    assert study.faces.searcher is not None and study.faces.searcher.name in TEACHERS
    left, top, side = WINDOW  # of the searcher, in the chip: the margin holds it
    assert min(left, top) >= -study.faces.margin and max(left, top) + side <= CHIP + study.faces.margin


def test_the_study_of_the_papers_own_setting(composed: Callable[[str], dict]):
    """All models, with a teacher that has no SE gates: what would train one is gone, and `se_dfd` learns from the plain
    one.
    """
    study = Study(**composed("paper"))
    assert study.faces.source == "recordio" and study.teacher.name == "inception_resnet_v1" and study.teacher.se is None
    assert study.models.keys() == Study(**composed("orl")).models.keys() and study.benchmark_sets == ()
    assert "se" not in {model.teacher for model in study.models.values()} and study.models["se_dfd"].student == "se"
    assert study.student.embedding == 512


def test_a_study_may_tune_its_models(tmp_path: Path, composed: Callable[[str], dict]):
    write(
        tmp_path / "params.yaml",
        composed("orl"),
        "tuning.grid",
        {"kd": GRID | {"temperature": [2, 4]}, "scratch": {"train.scale": [4, 8, 12, 16, 20, 24]}},
    )
    grid = config.load(tmp_path / "params.yaml").tuning.grid
    assert grid["kd"] == {"weight": (1, 2, 4), "temperature": (2, 4)} and list(grid["scratch"]) == ["train.scale"]


@pytest.mark.parametrize("name", STUDIES)
def test_what_is_tuned_is_a_number_of_the_model_or_of_the_recipe(composed: Callable[[str], dict], name: str):
    study = Study(**composed(name))
    for model, grid in study.tuning.grid.items():
        for option in grid:
            if option.startswith("train."):
                assert isinstance(getattr(study.train, option.removeprefix("train.")), float)
            else:
                assert isinstance(study.models[model].options[option], int | float), f"{model}.{option}"
        for point in points(grid).values():  # every trial is one that a study may ask for
            one = candidate(training(study, model), point)
            check_options(one.model.method, one.model.options), Train(**one.train.model_dump())


@pytest.mark.parametrize("name", STUDIES)
def test_what_tuning_has_chosen_stands_in_conf(composed: Callable[[str], dict], name: str):
    """Where trials have been run and kept, also those of an earlier grid (reports/lfw: one number a model)."""
    study = Study(**composed(name))
    for model in study.tuning.grid:
        path = ROOT / study.reports / "students" / "tuning" / f"{model}.csv"
        if path.is_file():
            trials = pd.read_csv(path, dtype={"candidate": str})
            [row] = trials[trials.chosen == 1].itertuples()
            for option, value in zip(row.weight.split(", "), row.candidate.split(", "), strict=True):
                recipe = training(study, model).train.model_dump()
                block = recipe if option.startswith("train.") else study.models[model].options
                assert float(value) == block[option.removeprefix("train.")], f"{model}: {option}"


def test_a_training_has_its_models_recipe_and_its_own_seed(tmp_path: Path, composed: Callable[[str], dict]):
    values = composed("orl")
    values["models"]["kd"]["recipe"] = {"margin": 0.05, "rotate": 12, "weight_decay": 0.3}
    values["models"] |= {f"kd-seed{seed}": {"like": "kd", "seed": seed} for seed in (7, 3)}
    study = Study(**values)
    assert seeds_of(study, "kd") == (*study.train.seeds, 7, 3) and seeds_of(study, "scratch") == study.train.seeds
    for name, seeds in (("kd", study.train.seeds), ("kd-seed7", (7,))):
        found = training(study, name)
        assert found.train.margin == 0.05 and found.train.rotate == 12 and found.train.weight_decay == 0.3
        assert found.train.seeds == seeds
        assert found.model == study.models["kd"] and found.folds == folds_of(study, "kd")
    assert training(study, "scratch").train == study.train


def test_an_arm_merges_options_and_replaces_the_rest(composed: Callable[[str], dict]):
    study = Study(**composed("orl"))
    found = arm(study, study.arms["hkdd-beta_1"])
    assert found.options == study.models["hkdd"].options | {"beta": 1}
    assert found.model_copy(update={"options": study.models["hkdd"].options}) == study.models["hkdd"]
    assert arm(study, study.arms["mkmmd-tuned_teacher"]).tuned is not None
    assert study.models["hkdd"].options["beta"] != 1  # the block itself is untouched


def test_a_study_is_frozen(composed: Callable[[str], dict]):
    study = Study(**composed("smoke"))
    with pytest.raises(ValidationError):
        study.seed = 5


def test_a_model_of_the_first_fold_has_one_fold(composed: Callable[[str], dict]):
    study = Study(**composed("orl"))
    assert folds_of(study, "kd_tuned_teacher") == (0,) and folds_of(study, "kd") == (0, 1, 2, 3)


def write(path: Path, values: dict, key: str, value: object) -> None:
    block, names = values, key.split(".")
    for name in names[:-1]:
        block = block[name]
    if value is DELETE:
        del block[names[-1]]
    else:
        block[names[-1]] = value
    path.write_text(yaml.safe_dump(values), encoding="utf-8")


GRID = {"weight": [1, 2, 4]}


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("train.epohcs", 3, "unknown parameter 'train.epohcs'"),
        ("models.kd.studnet", "plain", "unknown parameter 'models.kd.studnet'"),
        ("extra", 1, "unknown parameter 'extra'"),
        ("train.epochs", DELETE, "parameter 'train.epochs' is missing"),
        ("faces", DELETE, "parameter 'faces' is missing"),
        ("train.epochs", "many", "train.epochs"),
        ("train.epochs", 0, "train.epochs"),
        ("models.kd.recipe", {"rotate": 90}, "models.kd.recipe: rotate"),
        ("models.kd.recipe", {"epochs": 2.5}, "models.kd.recipe: epochs"),
        ("models.kd.recipe", {"batch": 3}, "models.kd.recipe.batch"),
        ("train.seeds", [], "train.seeds"),
        ("study", "My Study", "study"),
        ("faces.source", "nowhere", "faces.source"),
        (
            "faces.validation_people",
            29,
            "faces: 40 people in 4 folds with 29 for validation leave a fold without identities",
        ),
        ("faces.folds", 1, "faces: folds: 1; with `tests` there is one, without them there are two or more"),
        ("faces.tests", ["lfw"], "faces: folds: 4; with `tests` there is one, without them"),
        ("faces.tests", ["orl"], "faces: tests name a source twice, or the one that is trained on; remove it"),
        ("faces.tests", ["lfw", "lfw"], "faces: tests name a source twice"),
        ("faces.tests", ["nowhere"], "faces.tests"),
        ("faces.tests", DELETE, "parameter 'faces.tests' is missing"),
        ("faces.margin", -1, "faces.margin"),
        ("faces.resemblance", 0.4, "faces: resemblance and searcher belong together"),
        ("faces.searcher", {"name": "edgeface_xs", "weights": "random"}, "resemblance and searcher belong together"),
        ("views.kinds", ["camera"], "views.kinds: 'area' is missing, which every study reads; add it"),
        ("views.kinds", ["area", "fog"], "views.kinds"),
        ("detect", {"enlarge": 1, "border": 0}, "unknown parameter 'detect'"),
        ("faces.run_folds", [4], "run_folds must lie in 0 ... 3"),
        ("faces.run_folds", [-1], "run_folds must lie in 0 ... 3"),
        ("evaluate.resolutions", [8, 40], "40 px is outside views 8 ... 32"),
        ("models.kd.teacher", "tuned", "`tuned` and `teacher: tuned` belong together"),
        ("models.kd.teacher", "professor", "models.kd.teacher"),
        ("faces.validation_images", DELETE, "parameter 'faces.validation_images' is missing"),
        ("faces.validation_images", 1, "faces.validation_images"),
        ("targets.store", ["embedding", "logits"], "targets.store"),  # logits are computed from embeddings
        ("evaluate.far", 0.01, "evaluate.far"),
        ("evaluate.far", [], "evaluate.far"),
        ("evaluate.far", [0.01, 1], "evaluate.far"),
        ("evaluate.dense_images", 1, "evaluate.dense_images"),
        ("evaluate.impostors", 0, "evaluate.impostors"),
        ("evaluate.impostors", DELETE, "parameter 'evaluate.impostors' is missing"),  # all pairs is said by null
        (
            "manifests",
            "data/recordio.csv",
            "manifests: those of faces.source 'orl' are in data/manifests; set it to that",
        ),
        ("manifests", DELETE, "parameter 'manifests' is missing"),
        ("faces.source", "recordio", "manifests: those of faces.source 'recordio' are in data/recordio.csv"),
        ("benchmark_sets", ["tinyface", "tinyface"], "benchmark_sets: names a set twice"),
        ("benchmark_sets", ["Tiny Face"], "benchmark_sets"),
        ("benchmark_sets", DELETE, "parameter 'benchmark_sets' is missing"),
        ("evaluate.official", DELETE, "parameter 'evaluate.official' is missing"),
        ("evaluate.misaligned", 0, "evaluate.misaligned"),
        ("evaluate.misaligned", 0.2, "evaluate.misaligned"),
        ("train.rotate", 50, "train.rotate"),
        ("train.zoom", -0.1, "train.zoom"),
        ("train.shift", 0.6, "train.shift"),
        ("benchmark.batches", 0, "benchmark.batches"),
        ("benchmark.batches", DELETE, "parameter 'benchmark.batches' is missing"),
        ("train.head", "teachers", "train.head"),
        ("models.hkdd2", {"like": "hkdd"}, "variants.hkdd2"),
        ("models.hkd-no_hfd", {"like": "hkd"}, "models.hkd-no_hfd: there is no model 'hkd' in models"),
        (
            "models.hkdd-new",
            {"like": "kd"},
            "models.hkdd-new.like: 'kd' is not the model of its name; set it to 'hkdd'",
        ),
        ("models.kd-seed0", {"like": "kd", "seed": 0}, "models.kd-seed0: trained already"),
        ("models.kd-seed2", {"like": "kd", "seed": 1}, "models.kd-seed2: a further seed is named like 'kd-seed1'"),
        (
            "models.kd-seed1",
            {"like": "kd", "seed": 1, "views": "hr"},
            "models.kd-seed1: a further seed changes nothing",
        ),
        ("models.kd-new", {"like": "kd", "seed": 1}, "models.kd-new: a further seed is named like 'kd-seed1'"),
        ("models.hkdd-new", {"like": "hkdd", "studnet": "se"}, "models.hkdd-new: unknown parameter 'studnet'"),
        ("arms.hkd-a", {"like": "hkd"}, "arms.hkd-a: there is no model 'hkd' in models"),
        ("tuning.epochs", 0, "tuning.epochs"),
        ("tuning.grid", {"kdd": GRID}, "tuning.grid.kdd belongs to no model; add a block models.kdd or remove it"),
        ("tuning.grid", {"kd": {"weight": ["many"]}}, "tuning.grid.kd.weight"),
        ("tuning.grid", {"kd": {}}, "tuning.grid.kd"),
        ("tuning.grid", {"kd": GRID | {"temperature": [2], "train.margin": [0.1]}}, "tuning.grid.kd"),
        (
            "tuning.grid",
            {"kd": GRID | {"temperature": [2, 4]}, "feature": GRID},
            "tuning: grid: every model gets as many trials as the others (feature 3, kd 6); add or remove values",
        ),
        ("tuning.grid", {"kd": {"weight": []}}, "every model gets as many trials as the others (kd 0)"),
        (
            "tuning.grid",
            {"kd": {"wieght": [1, 2]}},
            "tuning.grid.kd: there is no 'wieght'; take an option of the model",
        ),
        ("tuning.grid", {"kd": {"train.batch": [8, 16]}}, "tuning.grid.kd: there is no 'train.batch'"),
        ("tuning.grid", {"KD": GRID}, "tuning.grid"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(
    tmp_path: Path, composed: Callable[[str], dict], key: str, value: object, reason: str
):
    write(tmp_path / "params.yaml", composed("orl"), key, value)
    with pytest.raises(UserError) as error:
        check(config.load(tmp_path / "params.yaml"), "params.yaml")
    assert reason in str(error.value) and "params.yaml: " in str(error.value) and "\n" not in str(error.value)


def test_the_largest_validation_set_that_leaves_two_people_is_accepted(composed: Callable[[str], dict]):
    values = composed("orl")
    values["faces"]["validation_people"] = 28
    assert Study(**values).faces.validation_people == 28


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("study: [orl", "not valid YAML"),
        ("- a list\n", "params.yaml: "),
        ("", "params.yaml: "),
        ("just words", "params.yaml: "),
        ("study: orl\n1: 2\n", "params.yaml: "),
    ],
)
def test_what_is_no_parameter_file_is_one_sentence(tmp_path: Path, text: str, reason: str):
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=reason) as error:
        config.load(tmp_path / "params.yaml")
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text_and_a_missing_file_are_refused(tmp_path: Path):
    (tmp_path / "params.yaml").write_bytes(b"\xff\xfe\x00study")
    for path in (tmp_path / "params.yaml", tmp_path / "absent.yaml"):
        with pytest.raises(UserError, match=path.name):
            config.load(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.people_per_batch", 17),  # 17 x 4 images do not fit into a batch of 64
        ("views.size", 20),  # the student's input is a multiple of 8
    ],
)
def test_impossible_sizes_are_refused(tmp_path: Path, composed: Callable[[str], dict], key: str, value: int):
    write(tmp_path / "params.yaml", composed("orl"), key, value)
    with pytest.raises(UserError, match=key.split(".")[1]):
        config.load(tmp_path / "params.yaml")
