"""Safetensors + JSON on disk: written atomically, read without pickle, never picked up by a changed study.

Released weights are one safetensors file. A resumable state lives in an undeclared, git-ignored folder whose name is a hash of
everything that shapes the training (parameters, code, data, seed), so a changed parameter never meets an old state.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lrfr.data.files import atomic_file, atomic_folder
from lrfr.errors import UserError


def save_tensors(path: str | Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors to one safetensors file; the same tensors give the same bytes."""
    with atomic_file(Path(path)) as temporary:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, str(temporary))


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises
    ------
    UserError
        if it is missing, is no safetensors file, or holds a value that is not finite.
    """
    try:
        tensors = load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error}); run `dvc repro` or give another path.") from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(f"{path}: tensor '{name}' holds values that are not finite; the file is damaged or its training diverged.")
    return tensors


def load_into(module: nn.Module, tensors: dict[str, Tensor], what: str | Path) -> None:
    """Load a complete state; refuse another architecture by naming the first tensor that differs."""
    own = module.state_dict()
    for name in [*own, *tensors]:
        if name not in tensors or name not in own or own[name].shape != tensors[name].shape:
            expected = tuple(own[name].shape) if name in own else "none"
            found = tuple(tensors[name].shape) if name in tensors else "none"
            raise UserError(f"{what}: a checkpoint of another architecture: '{name}' should be {expected} but is {found}; check params.yaml.")
    module.load_state_dict(tensors)


def resume_folder(key: dict[str, Any]) -> Path:
    """Where the state of one training lives: `LRFR_CACHE` or `.cache`, then a hash of the key."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return Path(os.environ.get("LRFR_CACHE", ".cache")) / "checkpoints" / digest


def save_state(folder: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, progress: dict[str, Any]) -> None:
    """Everything that training needs to go on bit for bit: weights, banks, optimiser moments, and the log so far."""
    tensors = {f"{name}/{key}": t for name, module in modules.items() for key, t in module.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in moments.items()}
    with atomic_folder(folder) as temporary:
        save_tensors(temporary / "state.safetensors", tensors)
        (temporary / "progress.json").write_text(json.dumps(progress), encoding="utf-8")


def load_state(folder: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Restore what `save_state` wrote and return its `progress`; None where there is nothing."""
    if not (folder / "progress.json").exists():
        return None
    tensors = load_tensors(folder / "state.safetensors")
    for name, module in modules.items():
        prefix = f"{name}/"
        load_into(module, {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}, folder)
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            moments.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return json.loads((folder / "progress.json").read_text(encoding="utf-8"))
