"""The state of a training between two steps, in two files: written whole, checked to the last bit, never unpickled.

A file is a SHA-256 in hexadecimal, a line end, and the safetensors that it is of: a text about them, and all tensors of
one kind as one, because safetensors takes as long for each of them as for a megabyte.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from scalesearch.files import generations, whole_file
from scalesearch.recipe import EpochResult

Results = list[list[EpochResult]]
"""Of each epoch, the result of each seed."""
ABOUT = "about"
"""Name of the text, as UTF-8 in a tensor of bytes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """Where a training stands."""

    tensors: Mapping[str, Tensor]
    """The whole state, on any device; read back on the CPU."""
    results: Results
    """Of the epochs that are evaluated."""
    step: int
    """Steps trained, of all epochs."""


def write_checkpoint(path: Path, checkpoint: Checkpoint, identity: str) -> None:
    """Write a checkpoint, and keep the one before beside it.

    Args:
        path: of the file; a reader sees the old one or the new one, nothing between.
        checkpoint: what to write.
        identity: what the state belongs to; `read_checkpoint` must be given the same.

    Raises:
        OSError: it cannot be written; what was there is still there.
    """
    results = [[asdict(result) for result in epoch] for epoch in checkpoint.results]
    content = wrapped(checkpoint.tensors, identity=identity, results=results, step=checkpoint.step)
    newest, before = generations(path)
    with whole_file(newest, before=before if is_whole(newest) else None) as file:  # no damaged one over a whole one
        file.write(_seal(content))
        file.write(content)


def read_checkpoint(path: Path, identity: str) -> Checkpoint | None:
    """The newest checkpoint that is whole; None if there is none, or they are damaged or of another training."""
    found = (_read(generation, identity) for generation in generations(path))
    return next((one for one in found if one is not None), None)


def _read(path: Path, identity: str) -> Checkpoint | None:
    try:
        content = _content(path)
        if content is None:
            return None
        about, tensors = unwrapped(content)
        if about["identity"] != identity:
            return None
        results = [[_result(**row) for row in epoch] for epoch in about["results"]]
        return Checkpoint(tensors=tensors, results=results, step=int(about["step"]))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
        return None


def wrapped(tensors: Mapping[str, Tensor], **about: Any) -> bytes:
    """Tensors, on any device, and what is said about them."""
    layout, packed = _packed(tensors)
    text = torch.frombuffer(bytearray(json.dumps({**about, "layout": layout}).encode()), dtype=torch.uint8)
    return save({ABOUT: text, **packed})


def unwrapped(content: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What is said about tensors, and these, on the CPU."""
    packed = load(content)
    about = json.loads(packed[ABOUT].numpy().tobytes())
    return about, _unpacked(about["layout"], packed)


def damaged(path: Path) -> list[Path]:
    """Files of a checkpoint that are there and not whole."""
    return [one for one in generations(path) if one.is_file() and not is_whole(one)]


def is_whole(path: Path) -> bool:
    """Whether a file of a checkpoint is there, to the last bit."""
    return _content(path) is not None


def _result(*, epoch: int, train_loss: float, accuracy: float, loss: float) -> EpochResult:
    if type(epoch) is not int or any(type(one) is not float for one in (train_loss, accuracy, loss)):
        raise TypeError("no result of an epoch")
    return EpochResult(epoch=epoch, train_loss=train_loss, accuracy=accuracy, loss=loss)


def _content(path: Path) -> bytes | None:
    """What a file holds behind its seal; None if it cannot be read or is damaged."""
    if not path.is_file():  # a pipe would be waited for
        return None
    try:
        seal, _, content = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return content if seal + b"\n" == _seal(content) else None


def _seal(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n"


def _packed(tensors: Mapping[str, Tensor]) -> tuple[list[Any], dict[str, Tensor]]:
    """Which tensors lie in which kind, with their shapes; and of each kind all of them behind each other."""
    layout: list[Any] = []
    kinds: dict[str, list[Tensor]] = {}
    for name, value in tensors.items():
        kind = f"{value.dtype} {value.device.type}"
        kinds.setdefault(kind, []).append(value.reshape(-1))
        layout.append([name, kind, list(value.shape)])
    return layout, {kind: torch.cat(values).cpu() for kind, values in kinds.items()}


def _unpacked(layout: list[Any], packed: dict[str, Tensor]) -> dict[str, Tensor]:
    starts = dict.fromkeys(packed, 0)
    found: dict[str, Tensor] = {}
    for name, kind, shape in layout:
        end = starts[kind] + math.prod(shape)
        found[name] = packed[kind][starts[kind] : end].view(shape)
        starts[kind] = end
    return found
