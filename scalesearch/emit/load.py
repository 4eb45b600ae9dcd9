"""From a written member back to a module."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from scalesearch.blueprint import Blueprint
from scalesearch.emit.config import read_config
from scalesearch.emit.weights import read_weights
from scalesearch.errors import EmitError
from scalesearch.nets.architecture import build


def load(path: str | Path, *, builder: str | None = None) -> nn.Module:
    """The module of an emitted member, with its weights.

    Args:
        path: a member's folder or its `config.yaml`.
        builder: `package.module:function`, where such a one makes the network: what a file names is never imported.

    Returns:
        A module in training mode, from images (batch, 3, resolution, resolution) to logits (batch, num_classes).
        Its weights come from `model.safetensors` beside the config, else from the seed that the config names.

    Raises:
        EmitError: a file is missing, damaged, or belongs to another network, or to another builder than is given.
        SpecError: the config does not hold a network.
    """
    path = Path(path)
    file = path / "config.yaml" if path.is_dir() else path
    values, network = read_config(file)
    weights = values.get("weights", {})
    seed = weights.get("seed", 0) if isinstance(weights, dict) else None
    if not isinstance(seed, int):
        raise EmitError(f"{file}: weights.seed = {seed!r}", mend="it must be a whole number")
    made_by = network.builder if isinstance(network, Blueprint) else None
    if made_by != builder:
        mend = f"if you trust that code, load it with builder={made_by!r}" if made_by else "load it without builder"
        raise EmitError(f"{file}: the network is made by {made_by or 'no builder'}", mend=mend)
    module = build(network, seed=seed)
    stored = file.with_name("model.safetensors")
    if stored.is_file():
        read_weights(stored, network, module)
    return module
