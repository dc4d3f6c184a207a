"""A study's parameters as a whole: do they fit together (`check`), and `lrfr study NAME`, which exchanges them."""

import argparse
import hashlib
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lrfr.config import Study, sentence
from lrfr.errors import UserError

SETS = {"lfw": "LFW", "cfp": "CFP"}  # sources that a study may test on
TREES = {"tinyface": "TinyFace", "survface": "QMUL-SurvFace", "scface": "SCface"}  # benchmark sets in folders
WEIGHTS = Path("data/weights")  # the user's, under their own hash: other weights are another parameter


def add(command: argparse.ArgumentParser) -> None:
    """The arguments of the verb `study`."""
    command.add_argument("name", help="a file in conf/study, without .yaml")
    options = {"root": "where you keep the photographs to train on, for a study that needs them (celeba, lfw, paper)"}
    options |= {name: f"where you keep {title}, for a study that reads it" for name, title in SETS.items()}
    options |= {name: f"where you unpacked {title}; the stage `sets` scores it" for name, title in TREES.items()}
    for name, text in options.items():
        command.add_argument(f"--{name}", type=Path, metavar="PATH", help=text)
    text = "a checkpoint of a network that the study uses (paper, celeba); may be given several times"
    command.add_argument("--weights", type=Path, metavar="FILE", action="append", default=[], help=text)
    text = "a .bin file of InsightFace, like lfw.bin or cfp_fp.bin; may be given several times"
    command.add_argument("--bin", type=Path, metavar="FILE", action="append", default=[], help=text)
    command.add_argument("--force", action="store_true", help="throw away changes of yours in params.yaml")


def named_sets(arguments: argparse.Namespace) -> dict[str, Path]:
    """The benchmark sets that a user names; UserError for a .bin file that can be no name, or the second of a name."""
    sets = {name: getattr(arguments, name) for name in TREES if getattr(arguments, name) is not None}
    for file in arguments.bin:
        from lrfr.benchmarks.sets import bin_name

        if bin_name(file) in sets:
            raise UserError(f"--bin {file}: a second set called {file.stem}; rename one file.")
        sets[file.stem] = file
    return sets


def check(study: Study, file: str) -> None:
    """UserError, naming the key in `file`, for a method or an option that does not exist, needs that `targets.store`
    leaves unmet, and views without the resolutions at which validation people are read."""
    from lrfr.methods import METHODS, check_options
    from lrfr.train.distill import VALIDATED
    from lrfr.train.trainings import all_models, arm, train_of

    if study.views.smallest > min(VALIDATED) or study.views.largest < max(VALIDATED):
        raise UserError(
            f"{file}: views: from {study.views.smallest} to {study.views.largest} pixels; training is validated at "
            f"{', '.join(map(str, VALIDATED))}, so take smallest at most {min(VALIDATED)} and largest at least "
            f"{max(VALIDATED)}."
        )
    blocks, where = {f"models.{name}": model for name, model in study.models.items()}, ""
    try:
        for key, variants in (("models", study.variants), ("arms", study.arms)):
            for name, variant in variants.items():
                where = f"{key}.{name}"
                blocks[where] = arm(study, variant)
        for name, model in all_models(study).items():
            where = f"models.{name}.recipe"
            train_of(study, model)
    except ValidationError as error:
        raise UserError(sentence(error, f"{file}: {where}")) from None
    recipe = {f"train.{field}" for field, value in study.train if isinstance(value, float)}
    for name, grid in study.tuning.grid.items():
        for option in grid.keys() - (recipe | study.models[name].options.keys()):
            others = f"take an option of the model or one of {', '.join(sorted(recipe))}"
            raise UserError(f"{file}: tuning.grid.{name}: there is no '{option}'; {others}.")
    for key, model in blocks.items():
        check_options(model.method, model.options, f"{file}: {key}.")
        for need in sorted(METHODS[model.method].needs):
            stored = "embedding" if need == "logits" else need  # logits are computed from the embedding
            if stored not in study.targets.store:
                raise UserError(f"{file}: targets.store lacks '{stored}', which {key} needs; add it.")


def study_names() -> list[str]:
    return sorted(path.stem for path in Path("conf/study").glob("*.yaml"))


def compose(name: str, overrides: list[str]) -> tuple[bytes, dict[str, Any]]:
    """params.yaml of a study as `dvc exp run -S study=NAME` makes it of conf/, as text and as values; UserError if it
    cannot.
    """
    import yaml
    from dvc.utils.hydra import compose_and_dump

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "params.yaml"  # the ending tells DVC which format to write
        conf, chosen = str(Path("conf").resolve()), [f"study={name}", *overrides]
        try:
            compose_and_dump(str(file), conf, None, "config", None, chosen)
        except Exception as error:  # hydra, OmegaConf and YAML have their own for every kind of mistake
            reason = f"cannot be composed into the study '{name}' ({' '.join(str(error).split())})"
            raise UserError(f"conf: {reason}; mend the file or restore it.") from None
        text = file.read_bytes()
    return text, yaml.safe_load(text)


def networks(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Where parameters name a network and its weights: key -> block."""
    blocks = {"faces.searcher": values.get("faces", {}).get("searcher"), "teacher": values.get("teacher")}
    blocks |= {"student.pretrained": values.get("student", {}).get("pretrained")}
    blocks |= {f"references.{key}": block for key, block in values.get("references", {}).items()}
    return {key: block for key, block in blocks.items() if block}


def choose_weights(name: str, values: dict[str, Any], given: Sequence[Path]) -> tuple[list[str], dict[Path, bytes]]:
    """What a user's weights change in the parameters, and what to store where; UserError if they do not fit.

    A study names networks in several places: the teacher, who searches for people, what a student starts from, and what
    is simply fed. A published file of EdgeFace is known by its hash and goes wherever its network is named; any other
    is the teacher's.
    """
    from lrfr.models.edgeface import NETWORKS
    from lrfr.models.teachers import TEACHERS, build_teacher

    wanted = {key: net for key, net in networks(values).items() if net["weights"] not in ("embedded", "random")}
    overrides: dict[str, str] = {}
    files: dict[Path, bytes] = {}
    for path in given:
        if not wanted:
            raise UserError(f"--weights: the study '{name}' has its teacher's weights with it; leave --weights out.")
        if not path.is_file():
            raise UserError(f"--weights {path}: no such file; give the path of a checkpoint.")
        digest = hashlib.sha256(data := path.read_bytes()).hexdigest()
        network = next((key for key, (_, known, _) in NETWORKS.items() if known == digest), values["teacher"]["name"])
        taking = [key for key, block in wanted.items() if block["name"] == network]
        if not taking:
            names = ", ".join(sorted({block["name"] for block in wanted.values()}))
            raise UserError(f"--weights {path}: not the published checkpoint of {names}; fetch it again.")
        build_teacher(network, str(path.resolve()))  # a path, also if the file is called like published weights
        files[stored := WEIGHTS / f"{digest[:16]}{path.suffix}"] = data
        overrides |= dict.fromkeys(taking, stored.as_posix())
    for key, block in wanted.items():
        known = block["weights"] in TEACHERS[block["name"]].weights or Path(block["weights"]).is_file()
        if key not in overrides and not known:
            what = f"the study '{name}' uses {block['name']} ({key})"
            raise UserError(f"--weights: {what}; give the path of its checkpoint.")
    return [f"{key}.weights={path}" for key, path in overrides.items()], files


def choose_sources(
    name: str, values: dict[str, Any], root: Path | None, places: Mapping[str, Path]
) -> list[tuple[str, Any]]:
    """The study's sources that need a place, each checked (`Chosen`), by name.

    root: of the source that is trained on. places: of sources by name. UserError for a place that nobody asks for.
    """
    from lrfr.sources import SOURCES

    source, tests = values["faces"]["source"], values["faces"]["tests"]
    choices = {key: SOURCES[key].choose_root for key in (source, *tests)}
    if root is not None and choices[source] is None:
        raise UserError(f"--root: the study '{name}' brings its photographs with it; leave --root out.")
    if others := places.keys() - choices.keys():
        raise UserError(f"--{min(others)}: the study '{name}' does not read it; leave --{min(others)} out.")
    given = {**({} if root is None else {source: root}), **places}
    return [(key, choose(given.get(key))) for key, choose in choices.items() if choose is not None]


def switch_study(
    name: str, root: Path | None, weights: Sequence[Path], places: Mapping[str, Path], sets: Mapping[str, Path]
) -> None:
    """Check what the user brings, store where it is, and write params.yaml; if anything is wrong, nothing changes.

    root: the photographs to train on, for a source that needs them. weights: as `choose_weights` takes them. places: of
    sources, sets: benchmark sets, by name. Places are stored outside of the parameters: they are no part of a result.
    Results depend on lists, with hashes, of what is there.
    """
    if name not in study_names():
        raise UserError(
            f"conf/study/{name}.yaml: there is no study '{name}'; known are {', '.join(study_names()) or 'none'} "
            "(run this in the top folder of a clone)."
        )
    from lrfr.config import validated
    from lrfr.files import atomic_file

    file = f"conf, study '{name}'"
    text, values = compose(name, [])
    validated(values, file)
    overrides, files = choose_weights(name, values, weights)
    chosen = choose_sources(name, values, root, places)  # a set may be called like a source: lfw.bin
    if sets:
        from lrfr.benchmarks.sets import choose_set

        chosen += [(set_name, choose_set(set_name, place)) for set_name, place in sets.items()]
        names = ",".join(f"'{set_name}'" for set_name in sets)  # quoted: a set may be called null
        overrides.append(f"benchmark_sets=[{names}]")
    if overrides:
        text, values = compose(name, overrides)
    check(validated(values, file), file)
    for _, one in chosen:
        files |= one.files
    try:
        with (
            ExitStack() as stack
        ):  # all are written before any appears; the first to be entered, params.yaml, appears last
            for path, data in {Path("params.yaml"): text, **files}.items():
                stack.enter_context(atomic_file(path)).write_bytes(data)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written ({error.strerror}); remove what is there.") from None
    for what, one in chosen:
        for count in one.counts:
            published = "" if count.published is None else f" of {count.published}"
            print(f"{what}: {count.what} {count.observed}{published}")
    print(f"params.yaml now holds the study '{name}'; `dvc repro` runs it.")


def differences(ours: Any, theirs: Any, key: str = "") -> list[str]:
    """What differs between two sets of parameters, a line each: `train.epochs: 3 instead of 30`."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        names = [*theirs, *(name for name in ours if name not in theirs)]
        return [line for n in names for line in differences(ours.get(n), theirs.get(n), f"{key}.{n}".removeprefix("."))]
    return [] if ours == theirs else [f"{key}: {ours} instead of {theirs}"]


def refuse_to_lose_edits() -> None:
    """UserError, with a list, if params.yaml holds changes that are neither in git nor in conf/."""
    import yaml

    if subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "params.yaml"], capture_output=True).returncode == 0:
        return  # git has it
    try:
        ours = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
        _, theirs = compose(ours["study"], [])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, KeyError, UserError):
        return  # there is nothing that could be told from a study of conf/
    for brought in (ours, theirs):  # what `lrfr study` itself has put there
        brought.pop("benchmark_sets", None)
        for network in networks(brought).values():
            network.pop("weights", None)
    if changed := differences(ours, theirs):
        shown = "; ".join(changed[:5]) + ("; ..." if len(changed) > 5 else "")
        raise UserError(
            f"params.yaml: differs from conf/ in {len(changed)} place(s) ({shown}); if that is your work, keep it in "
            f"conf/study/{ours['study']}.yaml or commit it; --force throws it away."
        )


def run(arguments: argparse.Namespace) -> int:
    """The verb `study`."""
    if not arguments.force:
        refuse_to_lose_edits()
    places = {name: getattr(arguments, name) for name in SETS if getattr(arguments, name) is not None}
    switch_study(arguments.name, arguments.root, arguments.weights, places, named_sets(arguments))
    return 0
