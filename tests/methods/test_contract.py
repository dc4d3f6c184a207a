"""What every method promises, for every block and every ablation arm of conf/."""

from __future__ import annotations

import copy
import inspect
import math
import sys

import pytest
import torch
from torch import nn

from lrfr.methods import METHODS, Method
from lrfr.methods.common import attention_map
from lrfr.models.features import Features, Shapes, Targets
from lrfr.models.heads import cosine_logits
from tests.methods.blocks import (
    BLOCKS,
    DIFFERENT,
    EQUAL,
    IDS,
    LABELS,
    N,
    TinyNet,
    batch,
    build,
    count_terms,
    fill,
    random,
    select,
    teacher_as_student,
    values,
)
from tests.methods.inputs import exactly

every_block = pytest.mark.parametrize("block", BLOCKS)


def test_every_method_has_a_block_and_every_demanded_arm_exists() -> None:
    assert {method for method, _ in BLOCKS.values()} == set(METHODS)
    arms = "no_hfd no_dkd kd_instead beta_1 beta_8", "no_se student_only no_distillation"
    names = ["hkdd", "se_dfd", "icd_face", "mkmmd", "acs_review"]
    arms = (
        *arms,
        "no_fcd no_sdc bank_pairs batch_pairs",
        "no_mmd mmd_only single_kernel tuned_teacher",
        "no_review no_pyramid l2",
    )
    demanded = {f"{name}-{arm}" for name, line in zip(names, arms, strict=True) for arm in line.split()}
    assert {block for block in BLOCKS if "-" in block} >= demanded


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_the_contract(name: str) -> None:
    """The members of the protocol `Method`; what it returns is tested below."""
    method = METHODS[name]
    assert method.needs <= {"embedding", "logits", "maps", "attention"}
    assert type(method.matches_embeddings) is bool and not (
        method.matches_embeddings and "embedding" not in method.needs
    )
    assert list(inspect.signature(method.forward).parameters) == list(inspect.signature(Method.forward).parameters)
    parameters = list(inspect.signature(method).parameters.values())
    assert parameters[0].name == "shapes" and all(p.kind is p.KEYWORD_ONLY for p in parameters[1:])
    assert all(p.default is p.empty for p in parameters), "values stand in the parameters, not in code"
    assert method.__doc__ and sys.modules[method.__module__].__doc__


@every_block
def test_terms_are_named_finite_scalars_with_gradients_for_the_student_only(block: str) -> None:
    method = fill(build(block, DIFFERENT), DIFFERENT)
    student, logits, targets = batch(DIFFERENT)
    leaves = [each.requires_grad_() for each in (*student.maps, student.embedding, logits.detach().requires_grad_())]
    student, logits = Features(tuple(leaves[:-2]), leaves[-2]), leaves[-1]
    others = [each.requires_grad_() for each in (*targets.maps, *(a.detach() for a in targets.attention))]
    others += [targets.embedding.requires_grad_(), targets.logits.detach().requires_grad_()]
    half = len(targets.maps)
    targets = Targets(IDS, others[-2], others[-1], tuple(others[:half]), tuple(others[half : 2 * half]))
    terms = method(student, logits, targets, LABELS, 1.0)
    assert len(terms) == count_terms(block), "a term is left out if and only if its weight is 0"
    for name, term in terms.items():
        assert term.shape == (), name
        assert term.item() > 0, name
        for leaf in (*leaves, *others):
            leaf.grad = None
        term.backward(retain_graph=True)
        assert sum(leaf.grad is not None and bool(leaf.grad.any()) for leaf in leaves) > 0, name
        assert all(leaf.grad is None for leaf in others), name
        assert all(leaf.grad is None or leaf.grad.isfinite().all() for leaf in leaves), name


@every_block
def test_teacher_as_student_has_nothing_to_learn(block: str) -> None:
    method = fill(build(block, EQUAL), EQUAL, same=True)
    _, _, targets = batch(EQUAL)
    terms = method(*teacher_as_student(targets), targets, LABELS, 1.0)
    learnable = any(True for _ in method.parameters())  # a regressor or a fusion is never the identity
    for name, value in values(terms).items():
        assert learnable or value == exactly(0), name


@every_block
@pytest.mark.parametrize("case", ["zero student", "zero teacher", "both zero", "duplicate rows", "one row", "scale 64"])
def test_finite_in_float32(block: str, case: str) -> None:
    method = fill(build(block, DIFFERENT), DIFFERENT).float()
    rows = (
        torch.zeros(N, dtype=torch.int64) if case == "duplicate rows" else torch.arange(1 if case == "one row" else N)
    )
    student, logits, targets = select(rows, *batch(DIFFERENT, scale=64.0))
    dead_student, dead_teacher = (
        0.0 if case in (name, "both zero") else 1.0 for name in ("zero student", "zero teacher")
    )
    strength = 50.0 if case == "scale 64" else 1.0  # logits at both ends of +-64
    leaves = [(dead_student * each).float().requires_grad_() for each in (*student.maps, student.embedding)]
    logit = (dead_student * strength * logits).clamp(-64, 64).float().detach().requires_grad_()
    maps, attention = (tuple(dead_teacher * e.float() for e in each) for each in (targets.maps, targets.attention))
    other = (dead_teacher * strength * targets.logits).clamp(-64, 64).float()
    targets = Targets(targets.ids, dead_teacher * targets.embedding.float(), other, maps, attention)
    labels = LABELS[rows] if case != "duplicate rows" else LABELS * 0
    terms = method(Features(tuple(leaves[:-1]), leaves[-1]), logit, targets, labels, 1.0)
    for name, term in terms.items():
        assert term.isfinite(), name
        if term.requires_grad:
            term.backward(retain_graph=True)
    for leaf in (*leaves, logit, *method.parameters()):
        assert leaf.grad is None or leaf.grad.isfinite().all()
    again = method(
        Features(tuple(leaves[:-1]), leaves[-1]), logit, targets, labels, 1.0
    )  # banks may now hold the odd rows
    assert all(term.isfinite() for term in again.values())


@every_block
def test_lengths_of_embeddings_do_not_matter(block: str) -> None:
    method = fill(build(block, DIFFERENT), DIFFERENT)
    student, logits, targets = batch(DIFFERENT)
    longer = targets._replace(embedding=3 * targets.embedding)
    first = values(copy.deepcopy(method)(student, logits, targets, LABELS, 1.0))
    second = values(
        copy.deepcopy(method)(student._replace(embedding=3 * student.embedding), logits, longer, LABELS, 1.0)
    )
    assert second == {name: exactly(value) for name, value in first.items()}


@every_block
def test_strengths_of_maps_do_not_matter(block: str) -> None:
    if BLOCKS[block][0] == "fitnet":
        pytest.skip("FitNets' mean squared error depends on the strength of features by definition")
    method = fill(build(block, EQUAL), EQUAL)
    student, logits, targets = batch(EQUAL)
    first = values(copy.deepcopy(method)(student, logits, targets, LABELS, 1.0))
    stronger = student._replace(maps=tuple(3 * each for each in student.maps))
    targets = targets._replace(
        maps=tuple(3 * e for e in targets.maps), attention=tuple(9 * e for e in targets.attention)
    )
    second = values(copy.deepcopy(method)(stronger, logits, targets, LABELS, 1.0))
    assert second == {name: exactly(value) for name, value in first.items()}


@every_block
def test_order_of_the_batch_does_not_matter(block: str) -> None:
    method = fill(build(block, DIFFERENT), DIFFERENT)
    data = batch(DIFFERENT)
    order = torch.tensor([5, 2, 9, 0, 11, 7, 1, 10, 3, 8, 6, 4])
    first = values(copy.deepcopy(method)(*data, LABELS, 1.0))
    second = values(copy.deepcopy(method)(*select(order, *data), LABELS[order], 1.0))
    assert second == {name: exactly(value) for name, value in first.items()}


CLASSED = ("dkd", "nckd", "sdc")  # terms that need a class


@every_block
@pytest.mark.parametrize("known", [9, 0])
def test_rows_without_a_class_change_no_more_than_the_terms_that_need_one(block: str, known: int) -> None:
    """Label -1 is a person with one photograph: terms are finite, and all but these as if there were classes."""
    method = fill(build(block, DIFFERENT), DIFFERENT)
    student, logits, targets = batch(DIFFERENT)
    leaves = [each.requires_grad_() for each in (*student.maps, student.embedding, logits.detach())]
    labels = LABELS.where(torch.arange(N) < known, -1)
    first = values(copy.deepcopy(method)(student, logits, targets, LABELS, 1.0))
    terms = method(Features(tuple(leaves[:-2]), leaves[-2]), leaves[-1], targets, labels, 1.0)
    assert terms.keys() == first.keys() and all(term.isfinite() for term in terms.values())
    for name, value in values(terms).items():
        assert name in CLASSED or value == exactly(first[name]), name
        assert name not in CLASSED or (value == 0) == (known == 0), name
    total = sum(terms.values())
    if isinstance(total, torch.Tensor) and total.requires_grad:
        total.backward()
    assert all(leaf.grad is None or leaf.grad.isfinite().all() for leaf in (*leaves, *method.parameters()))


BLIND = {"mmd": "MMD compares sets", "sdc": "a distribution of similarities forgets the pairs"}


@every_block
def test_only_distribution_terms_are_blind_to_who_is_who(block: str) -> None:
    """Permute the student's rows against the teacher's, among people (mmd) or photographs of one person (sdc)."""
    method = fill(build(block, EQUAL), EQUAL)
    student, logits, targets = batch(EQUAL)
    labels = torch.zeros_like(LABELS)  # one person: a permutation keeps the labels
    for start in range(2):  # let a bank hold this one person, seen once
        filled, other_logits, others = batch(EQUAL, seed=100 + 50 * start)
        method(filled, other_logits, others._replace(ids=IDS - 20 + 1000 * start), labels, 1.0)
    order = torch.arange(N).roll(5)
    permuted, permuted_logits, _ = select(order, student, logits, targets)
    first = values(copy.deepcopy(method)(student, logits, targets, labels, 1.0))
    second = values(copy.deepcopy(method)(permuted, permuted_logits, targets, labels, 1.0))
    for name, value in first.items():
        unchanged = value == exactly(second[name])
        assert unchanged == (name in BLIND), name


@every_block
def test_state_survives_saving(block: str) -> None:
    method = fill(build(block, DIFFERENT), DIFFERENT)
    other = build(block, DIFFERENT).double()
    other.load_state_dict(copy.deepcopy(method.state_dict()))
    for progress in (0.5, 1.0):
        data = batch(DIFFERENT, seed=int(7 * progress))
        assert values(method(*data, LABELS, progress)) == values(other(*data, LABELS, progress))
    assert all(
        torch.equal(a, b) for a, b in zip(method.state_dict().values(), other.state_dict().values(), strict=True)
    )


@every_block
def test_needs_are_enough_and_options_are_strict(block: str) -> None:
    name, options = BLOCKS[block]
    needs = METHODS[name].needs
    method = fill(build(block, DIFFERENT), DIFFERENT)
    student, logits, targets = batch(DIFFERENT)
    bare = targets._replace(
        **{field: None for field in ("embedding", "logits", "maps", "attention") if field not in needs}
    )
    complete = values(copy.deepcopy(method)(student, logits, targets, LABELS, 1.0))
    assert values(method(student, logits, bare, LABELS, 1.0)) == complete
    assert all(isinstance(key, str) and math.isfinite(value) for key, value in method.logs().items())
    with pytest.raises(TypeError):
        METHODS[name](DIFFERENT, **options, no_such_option=1)
    for missing in options:
        with pytest.raises(TypeError):
            METHODS[name](DIFFERENT, **{key: value for key, value in options.items() if key != missing})


# --- learning ---

IMAGES, PEOPLE = 32, 8
# where a term of weight 1 must be after training on 32 images; every term must at least be halved
BOUNDS = {
    "kd": 0.02,
    "feature": 0.005,
    "fitnet": 0.01,
    "at": 0.003,
    "distance": 0.001,
    "angle": 0.001,
    "hfd": 0.1,
    "dkd": 0.05,
    "dfd": 0.01,
    "soft": 0.03,
    "nckd": 0.05,
    "mmd": 0.01,
    "fcd": 0.005,
    "sdc": 0.01,
    "review": 0.2,
}
WEIGHTS = {"kd": ("weight", "dkd"), "review": ("weight",)}  # otherwise the option has the term's name, or is "weight"


def weight_of(block: str, term: str) -> float:
    options = BLOCKS[block][1]
    return next(options[key] for key in WEIGHTS.get(term, (term, "weight")) if key in options)


def code_of(block: str) -> tuple[str, dict]:
    """The method, and its options without their numbers, but for which are 0: blocks that run the same code."""
    method, options = BLOCKS[block]
    return method, {k: v if isinstance(v, bool | str | list) else v != 0 for k, v in options.items()}


TRAINED = [b for n, b in enumerate(BLOCKS) if count_terms(b) and code_of(b) not in list(map(code_of, BLOCKS))[:n]]


@pytest.mark.parametrize("block", TRAINED)
def test_overfits_32_images(block: str) -> None:
    """From clearly above the bound to below it, with all terms of the method trained together."""
    shapes = Shapes(((8, 8), (12, 4)), ((6, 8), (10, 4)), 16, 12, PEOPLE, IMAGES)
    labels, ids = torch.arange(IMAGES) % PEOPLE, torch.arange(IMAGES)
    images = random(1, IMAGES, 1, 8, 8).float()
    with torch.random.fork_rng():
        torch.manual_seed(2)
        teacher, net = TinyNet((6, 10), 12), TinyNet((8, 12), 16)
        centres, head = torch.randn(PEOPLE, 12), nn.Parameter(torch.randn(PEOPLE, 16))
        method = METHODS[BLOCKS[block][0]](shapes, **BLOCKS[block][1])
    with torch.no_grad():
        seen = teacher(images)
        attention = tuple(attention_map(each) for each in seen.maps)
        targets = Targets(ids, seen.embedding, cosine_logits(seen.embedding, centres, 8.0), seen.maps, attention)
    optimiser = torch.optim.Adam([*net.parameters(), head, *method.parameters()], lr=0.01)
    probe = copy.deepcopy(method)
    first = [
        values(probe(net(images), cosine_logits(net(images).embedding, head, 8.0), targets, labels, 1.0))
        for _ in range(2)
    ][1]
    steps = 120
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 0.01 * (1 - step / steps)
        student = net(images)
        terms = method(student, cosine_logits(student.embedding, head, 8.0), targets, labels, step / steps)
        optimiser.zero_grad()
        sum(terms.values()).backward()
        optimiser.step()
    for name, value in values(terms).items():
        assert value < 0.5 * first[name], name
        assert name not in BOUNDS or value / weight_of(block, name) < BOUNDS[name], name
