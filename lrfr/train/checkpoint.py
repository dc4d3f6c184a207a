"""Safetensors + JSON on disk: written atomically, never picked up by a changed study.

A resumable state lives in a git-ignored folder whose name is a hash of everything that shapes the training (parameters,
code, data, seed), so a changed parameter never meets an old state.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from lrfr.files import atomic_file, atomic_folder
from lrfr.gate.state import insert_state, read_state


def save_tensors(path: str | Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors to one safetensors file; the same tensors give the same bytes."""
    with atomic_file(Path(path)) as temporary:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, str(temporary))


def resume_folder(key: dict[str, Any]) -> Path:
    """Where the state of one training lives: `LRFR_CACHE` or `.cache`, then a hash of the key."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return Path(os.environ.get("LRFR_CACHE", ".cache")) / "checkpoints" / digest


def save_state(folder: Path, modules: dict[str, nn.Module], optimizer: Optimizer, progress: dict[str, Any]) -> None:
    """Everything that training needs to go on bit for bit: weights, banks, optimiser moments, and the log so far."""
    tensors = {f"{name}/{key}": t for name, module in modules.items() for key, t in module.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in moments.items()}
    with atomic_folder(folder) as temporary:
        save_tensors(temporary / "state.safetensors", tensors)
        (temporary / "progress.json").write_text(json.dumps(progress), encoding="utf-8")


def load_state(folder: Path, modules: dict[str, nn.Module], optimizer: Optimizer) -> dict[str, Any] | None:
    """Restore what `save_state` wrote and return its `progress`; None where there is nothing."""
    if not (folder / "progress.json").exists():
        return None
    tensors = read_state(folder / "state.safetensors")
    for name, module in modules.items():
        own = {key.removeprefix(f"{name}/"): t for key, t in tensors.items() if key.startswith(f"{name}/")}
        insert_state(module, own, folder)
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            moments.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return json.loads((folder / "progress.json").read_text(encoding="utf-8"))
