"""From a written member back to a module."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from scalesearch.emit.config import read_config
from scalesearch.emit.weights import read_weights
from scalesearch.errors import EmitError
from scalesearch.nets.architecture import build


def load(path: str | Path) -> nn.Module:
    """The module of an emitted member, with its weights.

    Args:
        path: a member's folder or its `config.yaml`.

    Returns:
        A module in training mode, from images (batch, 3, resolution, resolution) to logits (batch, num_classes).
        Its weights come from `model.safetensors` beside the config, else from the seed that the config names.

    Raises:
        EmitError: a file is missing, damaged, or belongs to another network.
        SpecError: the config does not hold a network.
    """
    path = Path(path)
    file = path / "config.yaml" if path.is_dir() else path
    values, network = read_config(file)
    weights = values.get("weights", {})
    seed = weights.get("seed", 0) if isinstance(weights, dict) else None
    if not isinstance(seed, int):
        raise EmitError(f"{file}: weights.seed = {seed!r}", mend="it must be a whole number")
    module = build(network, seed=seed)
    stored = file.with_name("model.safetensors")
    if stored.is_file():
        read_weights(stored, network, module)
    return module
