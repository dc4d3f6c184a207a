from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from lrfr.methods.icd_face import Bank, ICDFace, log_histogram, similarity_distribution_consistency
from lrfr.models.features import Features, Shapes, Targets
from lrfr.models.heads import unit
from tests.methods.inputs import STUDENT, TEACHER, UNIT_STUDENT, UNIT_TEACHER, cosine, exactly, sine

TEACHER_SIMILARITIES = torch.tensor([0.80, 0.70, 0.75, 0.60], dtype=torch.float64)
STUDENT_SIMILARITIES = torch.tensor([0.55, 0.40, 0.50, 0.35], dtype=torch.float64)
SHAPES = Shapes((), (), 6, 6, 3, 20)
OPTIONS = {
    "fcd": 2.0,
    "sdc": 3.0,
    "slots": 2,
    "start": 0.5,
    "step": 0.05,
    "gamma": 50.0,
    "pairs": "bank",
    "max_age": 3,
}


def loop(student: list[float], teacher: list[float], step: float, gamma: float) -> float:
    nodes = [-1 + r * step for r in range(round(2 / step) + 1)]
    p, q = (
        np.array([sum(math.exp(-gamma * (a - t) ** 2) for a in values) for t in nodes]) for values in (teacher, student)
    )
    p, q = p / p.sum(), q / q.sum()
    return float(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))


@pytest.mark.parametrize(
    ("step", "gamma", "value", "tolerance"),
    [
        (0.05, 50.0, 2.284750058333, 1e-9),
        (0.01, 50.0, 2.268572, 5e-7),  # the last three are given with fewer digits
        (0.001, 50.0, 2.264297360696, 1e-9),
        (0.001, 10.0, 0.487623022955, 1e-9),
        (0.001, 200.0, 7.117576370, 1e-9),
        (0.001, 1000.0, 32.196746350, 1e-9),
    ],
)
def test_reference(step: float, gamma: float, value: float, tolerance: float) -> None:
    result = similarity_distribution_consistency(STUDENT_SIMILARITIES, TEACHER_SIMILARITIES, step, gamma).item()
    assert result == pytest.approx(value, abs=tolerance, rel=tolerance)


@pytest.mark.parametrize(("step", "value"), [(0.05, 2.254036721849), (0.001, 2.250218131703)])
def test_reverse_direction(step: float, value: float) -> None:
    assert similarity_distribution_consistency(TEACHER_SIMILARITIES, STUDENT_SIMILARITIES, step).item() == exactly(
        value
    )


def test_histogram_reference() -> None:
    def at(histogram: Tensor, similarity: float) -> float:
        return histogram[round((similarity + 1) / 0.05)].exp().item()

    teacher, student = log_histogram(TEACHER_SIMILARITIES, 0.05, 50.0), log_histogram(STUDENT_SIMILARITIES, 0.05, 50.0)
    expected = [0.039887223756, 0.154939620825, 0.131355237095, 0.009545796703]
    assert [at(teacher, node) for node in (0.5, 0.7, 0.8, 1.0)] == exactly(expected)
    expected = [0.083194432622, 0.140312021000, 0.023601641721, 2.1846009e-06]
    assert [at(student, node) for node in (0.3, 0.5, 0.7, 1.0)] == exactly(expected)
    assert log_histogram(torch.ones(1, dtype=torch.float64), 0.05, 50.0)[-1].exp().item() == pytest.approx(
        0.3326, abs=5e-5
    )


def test_gradient_reference_and_gradcheck() -> None:
    expected = {
        "forward": [-12.740461773, -0.793322354, -4.715334267, -0.353566596],
        "reverse": [-4.061389123, -4.663936451, -4.148110683, -4.986285103],
    }
    student = STUDENT_SIMILARITIES.clone().requires_grad_()
    similarity_distribution_consistency(student, TEACHER_SIMILARITIES, 0.05).backward()
    assert student.grad.tolist() == exactly(expected["forward"])
    p, q = (log_histogram(each, 0.05, 50.0) for each in (student, TEACHER_SIMILARITIES))
    (reverse,) = torch.autograd.grad((p.exp() * (p - q)).sum(), student)
    assert reverse.tolist() == exactly(expected["reverse"])
    assert gradcheck(lambda a: similarity_distribution_consistency(a, TEACHER_SIMILARITIES, 0.05), (student,))


def test_against_a_loop_and_blind_to_order() -> None:
    value = similarity_distribution_consistency(STUDENT_SIMILARITIES, TEACHER_SIMILARITIES, 0.05, 20.0).item()
    assert value == exactly(loop(STUDENT_SIMILARITIES.tolist(), TEACHER_SIMILARITIES.tolist(), 0.05, 20.0))
    shuffled = similarity_distribution_consistency(STUDENT_SIMILARITIES[[3, 0, 2, 1]], TEACHER_SIMILARITIES, 0.05, 20.0)
    assert shuffled.item() == exactly(value)
    assert similarity_distribution_consistency(TEACHER_SIMILARITIES, TEACHER_SIMILARITIES).item() == 0


@pytest.mark.parametrize(("gap", "gradient"), [(0.3, -28.8), (0.6, -58.4), (0.9, -88.2), (1.2, -118.0)])
def test_gradient_survives_distributions_far_apart_in_float32(gap: float, gradient: float) -> None:
    spread = torch.tensor([-0.02, -0.01, 0.01, 0.02])
    student = (0.8 - gap + spread).requires_grad_()
    similarity_distribution_consistency(student, 0.8 + spread, 0.001).backward()
    assert student.grad.isfinite().all()
    assert student.grad.sum().item() == pytest.approx(gradient, rel=0.05)


def test_no_pairs_give_zero_with_a_graph() -> None:
    empty = torch.zeros(0, requires_grad=True)
    value = similarity_distribution_consistency(empty, torch.zeros(0))
    assert value.item() == 0
    value.backward()


def test_pairs_with_a_prepared_bank_reference() -> None:
    method = ICDFace(SHAPES._replace(classes=2), **OPTIONS | {"slots": 3}).double()
    bank = method.bank
    bank.student[0, :2], bank.student[1, :1] = unit(sine(0.2, 0.4, 2, 6)), unit(sine(0.9, 0.6, 1, 6))
    bank.teacher[0, :2], bank.teacher[1, :1] = unit(cosine(0.6, 0.1, 2, 6)), unit(cosine(0.8, 0.2, 1, 6))
    bank.image[0, :2], bank.image[1, :1] = torch.tensor([10, 11]), torch.tensor([12])
    bank.written.zero_()
    labels, ids = torch.tensor([0, 0, 1, 1]), torch.arange(4)
    student_bank, teacher_bank, usable = bank.candidates(labels, ids)
    student = (UNIT_STUDENT[:, None] * student_bank).sum(-1)[usable]
    teacher = (UNIT_TEACHER[:, None] * teacher_bank).sum(-1)[usable]
    expected = [0.555613089031, 0.722476911485, 0.131222699349, -0.322944411142, 0.579725651403, 0.560770611127]
    assert student.tolist() == exactly(expected)
    expected = [0.425880364173, -0.068051292359, 0.360215322952, -0.661583727841, -0.524233305179, -0.343846700649]
    assert teacher.tolist() == exactly(expected)
    terms = method(Features((), UNIT_STUDENT), None, Targets(ids, embedding=TEACHER), labels, 0.5)
    assert terms["sdc"].item() == exactly(3 * 1.871574876588)
    assert terms["fcd"].item() == exactly(2 * 0.765660471917)
    assert method.logs()["pairs"] == 6


def write(bank: Bank, labels: list[int], ids: list[int], first: float = 0.0) -> None:
    rows = first + torch.arange(len(ids) * 6, dtype=torch.float32).reshape(len(ids), 6)
    bank.write(torch.tensor(labels), torch.tensor(ids), rows, -rows)


def test_bank_fills_empty_slots_then_replaces_the_oldest() -> None:
    bank = Bank(SHAPES, slots=2, max_age=9)
    write(bank, [0], [5])
    write(bank, [0, 1], [6, 9])
    assert bank.image.tolist() == [[5, 6], [9, -1], [-1, -1]]
    write(bank, [0], [7])
    assert bank.image[0].tolist() == [7, 6]
    write(bank, [0], [8])
    assert bank.image[0].tolist() == [7, 8]
    assert torch.equal(bank.teacher[0, 1], -bank.student[0, 1])


def test_an_image_overwrites_its_own_slot_and_becomes_the_newest() -> None:
    bank = Bank(SHAPES, slots=2, max_age=9)
    write(bank, [0, 0], [5, 6])
    write(bank, [0], [5], first=100)
    assert bank.image[0].tolist() == [5, 6]
    assert bank.student[0, 0, 0] == 100
    write(bank, [0], [7])
    assert bank.image[0].tolist() == [5, 7]


def test_duplicates_in_a_batch_take_one_slot_and_the_last_row_wins() -> None:
    bank = Bank(SHAPES, slots=2, max_age=9)
    write(bank, [0, 0, 0, 0], [5, 5, 6, 5])
    assert bank.image[0].tolist() == [6, 5]
    assert bank.student[0, 1, 0] == 18  # row 3
    write(bank, [1, 1, 1, 1], [1, 2, 3, 4])  # more people's images than slots: the first two stay
    assert bank.image[1].tolist() == [1, 2]


def test_slots_expire_and_never_pair_with_their_own_image() -> None:
    bank = Bank(SHAPES, slots=2, max_age=2)
    write(bank, [0, 0], [5, 6])
    labels, ids = torch.tensor([0, 0, 1]), torch.tensor([5, 7, 9])
    assert bank.candidates(labels, ids)[2].tolist() == [[False, True], [True, True], [False, False]]
    write(bank, [0], [6])
    assert bank.candidates(labels, ids)[2].tolist() == [[False, True], [True, True], [False, False]]
    write(bank, [1], [8])
    assert bank.candidates(labels, ids)[2].tolist() == [[False, True], [False, True], [True, False]]


def call(method: ICDFace, ids: list[int], labels: list[int], progress: float = 1.0) -> dict[str, Tensor]:
    embedding = torch.sin(torch.arange(len(ids) * 6.0)).reshape(-1, 6)
    targets = Targets(torch.tensor(ids), embedding=torch.cos(embedding))
    return method(Features((), embedding), None, targets, torch.tensor(labels), progress)


def test_bank_is_read_before_it_is_written_and_only_training_writes() -> None:
    method = ICDFace(SHAPES, **OPTIONS)
    assert call(method, [1, 2], [0, 0])["sdc"] == 0
    assert method.logs()["pairs"] == 0
    call(method, [1, 2], [0, 0])
    assert method.logs()["pairs"] == 2  # each meets the other, not itself
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.eval()
    call(method, [3, 4], [0, 0])
    assert method.logs()["pairs"] == 4
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_a_person_with_one_photograph_never_forms_a_pair() -> None:
    method = ICDFace(SHAPES, **OPTIONS)
    for _ in range(3):
        call(method, [4, 4], [2, 2])  # the photograph and its mirror image
        assert method.logs()["pairs"] == 0


@pytest.mark.parametrize(("pairs", "count"), [("bank", 4), ("batch", 4), ("both", 8)])
def test_rows_without_a_class_are_pulled_but_form_no_pair(pairs: str, count: int) -> None:
    """The bank and the similarity term are those of the other rows alone; feature consistency is of all."""
    method, alone = (ICDFace(SHAPES, **OPTIONS | {"pairs": pairs}) for _ in range(2))
    ids, labels = [1, 2, 3, 4, 5, 6], [0, -1, 0, 1, -1, 1]
    known = [row for row, label in enumerate(labels) if label >= 0]
    embedding = torch.sin(torch.arange(36.0)).reshape(6, 6)
    for step in range(2):
        student = (embedding + 0.1 * step).requires_grad_()
        targets = Targets(torch.tensor(ids), embedding=torch.cos(embedding))
        terms = method(Features((), student), None, targets, torch.tensor(labels), 1.0)
        rows = Targets(targets.ids[known], embedding=targets.embedding[known])
        others = alone(Features((), student[known]), None, rows, torch.tensor(labels)[known], 1.0)
        assert (
            terms["sdc"].item() == pytest.approx(others["sdc"].item(), abs=1e-6)
            and method.logs()["pairs"] == alone.logs()["pairs"]
        )
        (gradient,) = torch.autograd.grad(terms["sdc"], student, retain_graph=True)
        assert not gradient[[1, 4]].any()
        (gradient,) = torch.autograd.grad(terms["fcd"], student)
        assert gradient.abs().sum(1).min() > 0
    assert method.logs()["pairs"] == count and terms["sdc"] > 0
    states = method.state_dict(), alone.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    if pairs != "batch":
        assert set(method.bank.image[method.bank.image >= 0].tolist()) == {1, 3, 4, 6}


@pytest.mark.parametrize("pairs", ["both", "bank", "batch"])
def test_a_batch_without_any_class_has_no_pairs(pairs: str) -> None:
    method = ICDFace(SHAPES, **OPTIONS | {"pairs": pairs})
    call(method, [1, 2], [0, 0])
    embedding = STUDENT.float().requires_grad_()
    targets = Targets(torch.arange(4), embedding=TEACHER.float())
    terms = method(Features((), embedding), None, targets, torch.full((4,), -1), 1.0)
    assert terms["sdc"] == 0 and method.logs()["pairs"] == 0 and terms["fcd"] > 0
    sum(terms.values()).backward()
    assert embedding.grad.isfinite().all()
    if pairs != "batch":
        assert set(method.bank.image[method.bank.image >= 0].tolist()) == {1, 2}


def test_batch_pairs_use_other_images_of_the_person() -> None:
    method = ICDFace(SHAPES, **OPTIONS | {"pairs": "batch"})
    call(method, [1, 2, 2, 3, 4], [0, 0, 0, 0, 1])
    assert method.logs()["pairs"] == 10  # 1-2, 1-2', 1-3, 2-3, 2'-3, both ways
    assert not method.state_dict()


def test_the_batchs_own_pairs_count_together_with_the_banks() -> None:
    """The bank holds images 5 and 6 of person 0; the batch has 5, 7 and 8 of him, and one of person 1."""
    methods = {pairs: ICDFace(SHAPES, **OPTIONS | {"pairs": pairs}) for pairs in ("bank", "batch", "both")}
    for method in methods.values():
        call(method, [5, 6], [0, 0])
    terms = {pairs: call(method, [5, 7, 8, 9], [0, 0, 0, 1])["sdc"] for pairs, method in methods.items()}
    counts = {pairs: method.logs()["pairs"] for pairs, method in methods.items()}
    assert counts == {"bank": 1 + 2 + 2, "batch": 3 * 2, "both": 5 + 6}
    assert len({term.item() for term in terms.values()}) == 3


def test_both_kinds_of_pairs_make_one_histogram() -> None:
    """Two rows of one person against a bank with one more image: four similarities by hand."""
    method = ICDFace(SHAPES, **OPTIONS | {"pairs": "both"}).double()
    method.bank.student[0, 0], method.bank.teacher[0, 0] = UNIT_STUDENT[2], UNIT_TEACHER[2]
    method.bank.image[0, 0], method.bank.written[0, 0] = 9, 0
    targets = Targets(torch.tensor([1, 2]), embedding=TEACHER[:2])
    terms = method(Features((), STUDENT[:2]), None, targets, torch.tensor([0, 0]), 1.0)
    student, teacher = (
        torch.stack([e[0] @ e[2], e[1] @ e[2], e[0] @ e[1], e[1] @ e[0]]) for e in (UNIT_STUDENT, UNIT_TEACHER)
    )
    assert method.logs()["pairs"] == 4
    assert terms["sdc"].item() == exactly(3 * loop(student.tolist(), teacher.tolist(), 0.05, 50.0))


def test_similarity_term_waits_for_its_start() -> None:
    method = ICDFace(SHAPES, **OPTIONS)
    call(method, [1, 2], [0, 0])
    assert call(method, [1, 2], [0, 0], progress=0.49)["sdc"] == 0
    assert call(method, [1, 2, 3], [0, 0, 0], progress=0.5)["sdc"] > 0
