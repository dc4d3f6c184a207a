"""The stages of `dvc.yaml`: where each is, and what it does. Their modules are imported only when they run."""

from typing import NamedTuple


class Stage(NamedTuple):
    """module: its function `run(study)` is the stage, or `run(study, item)` if the stage is run for one `item` at a
    time.

    item: option that names one, as in `--training kd`; empty if there is none. sources: `run` is also given the study's
    sources of photographs, entries of `lrfr.sources.SOURCES`: first the one that is trained on, then `faces.tests`.
    """

    module: str
    text: str
    item: str = ""
    sources: bool = False


STAGES = {
    "plan": Stage("lrfr.plan", "write down what shapes each stage and each training: parameters and code"),
    "detect": Stage("lrfr.data.detect", "find faces and landmarks", sources=True),
    "prepare": Stage("lrfr.data.prepare", "check and align the faces; make their low-resolution views", sources=True),
    "divide": Stage("lrfr.train.divide", "say who trains, who validates and who is tested", sources=True),
    "teacher": Stage("lrfr.train.teacher", "fine-tune the teacher on the HR training people of every fold"),
    "targets": Stage("lrfr.train.targets", "compute the teacher's outputs for the training faces, once"),
    "tune": Stage("lrfr.train.tuning", "try values of one or two numbers of a model", "model"),
    "distill": Stage("lrfr.train.distill", "train one model, arm or further seed: all its folds", "training"),
    "rank": Stage("lrfr.train.ranking", "order the models by the validation people's errors"),
    "references": Stage("lrfr.protocol.references", "embed the held-out faces with networks not trained here"),
    "embed": Stage("lrfr.protocol.embed", "embed the held-out faces with every student"),
    "evaluate": Stage("lrfr.protocol.study", "score all pairs; bootstrap over identities"),
    "summary": Stage("lrfr.report.tables", "write the study's tables"),
    "sets": Stage("lrfr.benchmarks.stage", "score one benchmark set of the study", "set"),
    "mirror": Stage("lrfr.deploy.mirror", "measure what averaging a face with its mirror image buys"),
    "export": Stage("lrfr.deploy.export", "write the student that `rank` chose as ONNX"),
    "benchmark": Stage("lrfr.deploy.cost", "measure everything that is measured in seconds"),
    "status": Stage("lrfr.report.status", "list what of the study has run and what has not"),
    "claims": Stage("lrfr.report.claims", "hold the five abstracts' claims against the study's tables"),
    "notebook": Stage("lrfr.report.notebooks", "execute one notebook into the report", "notebook"),
    "site": Stage("lrfr.report.site", "tie the report together in index.html"),
}
