"""The number of processes changes the time, never a result."""

from __future__ import annotations

import os

import pytest

from lrfr.errors import UserError
from lrfr.parallel import limit_threads, parallel_map


def where(number: int, text: str) -> tuple[int, str, int]:
    return number, text, os.getpid()


def threads() -> tuple[str, int]:
    import torch

    return os.environ["OMP_NUM_THREADS"], torch.get_num_threads()


def refuse(number: int) -> int:
    if number == 2:
        raise UserError("faces: number 2 is bad; replace it.")
    return number


@pytest.fixture(autouse=True)
def threads_as_before(monkeypatch: pytest.MonkeyPatch):
    import torch

    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_the_order_of_the_tasks(jobs: int):
    tasks = [(n, f"task {n}") for n in range(7)]
    found = parallel_map(where, tasks, jobs, 1, "test")
    assert [(number, text) for number, text, _ in found] == tasks
    assert (os.getpid() in {pid for *_, pid in found}) == (jobs == 1)


def test_one_task_needs_no_process():
    assert parallel_map(where, [(1, "a")], 2, 1, "test") == [(1, "a", os.getpid())]


def test_no_task_gives_no_result():
    assert parallel_map(where, [], 2, 1, "test") == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_process_has_the_threads_of_the_study(jobs: int):
    assert parallel_map(threads, [()] * 3, jobs, 1, "test") == [("1", 1)] * 3


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_user_error_of_a_task_arrives_as_it_was(jobs: int):
    with pytest.raises(UserError, match="number 2 is bad; replace it"):
        parallel_map(refuse, [(n,) for n in range(4)], jobs, 1, "test")


def test_threads_reach_torch_and_the_environment():
    limit_threads(2)
    assert threads() == ("2", 2)
