"""The state of a training after an epoch, as one safetensors file: written whole or not at all, never unpickled."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from scalesearch.files import write_whole
from scalesearch.recipe import EpochResult

Results = list[list[EpochResult]]
"""Of each epoch, the result of each seed."""


def write_checkpoint(path: Path, tensors: dict[str, Tensor], results: Results, identity: str) -> None:
    """Write the tensors with the results so far; a reader sees the old file or the new one, nothing between.

    Args:
        path: the file; a temporary one stands beside it meanwhile.
        tensors: the whole state, on any device.
        results: of each epoch so far, the result of each seed.
        identity: what the state belongs to; `read_checkpoint` must be given the same.
    """
    rows = json.dumps([[asdict(result) for result in epoch] for epoch in results])
    content = save(
        {name: value.contiguous() for name, value in tensors.items()}, {"results": rows, "identity": identity}
    )
    write_whole(path, content)


def read_checkpoint(path: Path, identity: str) -> tuple[dict[str, Tensor], Results] | None:
    """The tensors and results of a checkpoint; None if there is none, it is damaged, or it is another trial's."""
    try:
        with safe_open(path, framework="pt") as file:
            described = file.metadata() or {}
            if described.get("identity") != identity:
                return None
            results = [[EpochResult(**row) for row in epoch] for epoch in json.loads(described["results"])]
            return {name: file.get_tensor(name) for name in file.keys()}, results  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
