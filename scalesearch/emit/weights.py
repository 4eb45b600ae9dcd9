"""Weights of a member: their digest, and safetensors files read back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from scalesearch.errors import EmitError
from scalesearch.files import write_whole


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over every tensor of the module with its name, in name order."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_weights(path: Path, module: nn.Module) -> None:
    """Write the state dict and compare what reads back, tensor by tensor.

    Raises:
        EmitError: a tensor differs.
    """
    state = {name: value.contiguous() for name, value in module.state_dict().items()}
    write_whole(path, save(state))
    stored = load_file(path)
    for name, value in state.items():
        if not torch.equal(stored[name], value):
            raise EmitError(f"{path}: {name} does not read back", mend="check the disk")


def read_weights(path: Path, module: nn.Module) -> None:
    """Load a safetensors file into a module of the same names and shapes.

    Raises:
        EmitError: the file is damaged or belongs to another network.
    """
    try:
        module.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise EmitError(
            f"{path}: {' '.join(str(error).split())[:300]}", mend="give the file written beside config.yaml"
        ) from None
