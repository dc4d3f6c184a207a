"""Hostile or mismatching network states end in one sentence, and leave the network as it was."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lrfr.errors import UserError
from lrfr.gate.state import insert_state, read_state

MARK = "executed"


class Bomb:
    """Pickled so that reading it would write a file."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path(MARK),)


def header(entries: dict, data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


HOSTILE = {
    "empty": b"",
    "eight zeros": bytes(8),
    "huge header": struct.pack("<Q", 2**62) + b"{}",
    "no json": struct.pack("<Q", 4) + b"{{{{",
    "outside": header({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, bytes(4)),
    "overlap": header({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, bytes(4)),
    "wrong length": header({"w": {"dtype": "F32", "shape": [1000, 1000], "data_offsets": [0, 4]}}, bytes(4)),
    "unknown type": header({"w": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "trailing": header({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(9)),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_hostile_bytes_are_refused(tmp_path: Path, name: str, suffix: str):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(UserError, match="weights") as error:
        read_state(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_no_code_of_a_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str):
    monkeypatch.chdir(tmp_path)
    for write in (lambda p: p.write_bytes(pickle.dumps(Bomb())), lambda p: torch.save({"w": Bomb()}, p)):
        write(tmp_path / f"bomb{suffix}")
        with pytest.raises(UserError, match="bomb"):
            read_state(tmp_path / f"bomb{suffix}")
    assert not Path(MARK).exists()
    pickle.loads(pickle.dumps(Bomb()))
    assert Path(MARK).exists()  # the bomb is a real one


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_named(tmp_path: Path, value: float):
    save_file({"good": torch.ones(2), "bad": torch.tensor([1.0, value])}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="'bad' holds values that are not finite"):
        read_state(tmp_path / "x.safetensors")


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path):
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("folder.safetensors", "absent.safetensors"):
        with pytest.raises(UserError, match=name):
            read_state(tmp_path / name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.bool, torch.uint8])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_tensors_of_every_kind_come_back(tmp_path: Path, dtype: torch.dtype, suffix: str):
    state, path = (
        {"w": torch.arange(6).reshape(2, 3).to(dtype), "scalar": torch.tensor(1).to(dtype)},
        tmp_path / f"x{suffix}",
    )
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    found = read_state(path)
    assert found.keys() == state.keys() and all(
        torch.equal(found[n], t) and found[n].dtype == dtype for n, t in state.items()
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop("1.running_mean"), r"'1.running_mean' should be \(2,\) and is absent"),
        (lambda s: s.update({"2.weight": torch.zeros(1)}), r"'2.weight' should be absent and is \(1,\)"),
        (lambda s: s.update({"0.weight": torch.zeros(3, 2)}), r"'0.weight' should be \(2, 3\) and is \(3, 2\)"),
        (lambda s: s.update({"1.num_batches_tracked": torch.zeros(1)}), r"should be \(\) and is \(1,\)"),
        (lambda s: s.clear(), "'0.weight' should be .* absent"),
    ],
)
def test_a_state_of_another_architecture_changes_nothing(change, reason: str):
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    state = {name: tensor + 1 for name, tensor in net.state_dict().items()}
    change(state)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(UserError, match=f"other.safetensors: a checkpoint of another architecture: .*{reason}"):
        insert_state(net, state, "other.safetensors")
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
