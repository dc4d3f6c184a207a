"""Network states from files: no pickle, no surprise, one clear sentence about what is wrong."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lrfr.errors import UserError
from lrfr.gate.images import Damaged, refusing


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, or of a `.pt`/`.pth` state dict (read without running code from it).

    Raises UserError if the file is missing, is neither, or holds a value that is not finite.
    """
    with refusing(path, "a safetensors file or state dict", "give the path of a checkpoint; train or fetch it again"):
        pickled = Path(path).suffix in (".pt", ".pth")
        state = torch.load(path, map_location="cpu", weights_only=True) if pickled else load_file(path)
        for name, tensor in state.items():
            if not torch.isfinite(tensor).all():
                raise Damaged(f"tensor '{name}' holds values that are not finite")
    return state


def insert_state(module: nn.Module, state: dict[str, Tensor], what: str | Path) -> None:
    """Load a complete state, by name; `what` names its file in messages.

    Raises UserError naming the first tensor that another architecture has; the module is then unchanged.
    """
    own = module.state_dict()
    for name in [*own, *state]:
        expected, found = (tuple(tensors[name].shape) if name in tensors else "absent" for tensors in (own, state))
        if expected != found:
            reason = f"a checkpoint of another architecture: '{name}' should be {expected} and is {found}"
            raise UserError(f"{what}: {reason}; give one of the same network.")
    module.load_state_dict(state)
