"""Weights of a member: their digest, safetensors files read back, and weights of others to start from."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from scalesearch.blueprint import Architecture
from scalesearch.errors import EmitError
from scalesearch.files import write_whole
from scalesearch.nets.naming import ours
from scalesearch.spec import Network

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
INSIDE = ("state_dict", "model", "model_state", "state_dict_ema")
"""Keys under which training programs keep the state dict in a checkpoint."""
EPSILON = "norm_eps"
"""Key of the norms' epsilon in the metadata of our files."""
DIGEST = "scalesearch_sha256"
"""Key, in the same, of a digest of the tensors and of what else is said of them."""
PARALLEL = "module."
"""What torch's DataParallel puts before every name."""


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over every tensor of the module with its name, in name order."""
    return _digest(module.state_dict(), {})


def _digest(state: Mapping[str, Tensor], told: Mapping[str, str]) -> str:
    digest = hashlib.sha256("".join(f"{key}={value}\n" for key, value in sorted(told.items())).encode())
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_weights(path: Path, tensors: dict[str, Tensor], network: Architecture) -> None:
    """Write a state dict and compare what reads back, tensor by tensor.

    The epsilon of the norms, without which the weights compute something else, stands in the file's metadata, and so
    does a digest: safetensors itself would not see a bit that was flipped.

    Raises:
        EmitError: a tensor differs.
    """
    state = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    told = {"format": "pt", **({EPSILON: repr(network.norm_eps)} if isinstance(network, Network) else {})}
    write_whole(path, save(state, metadata={**told, DIGEST: _digest(state, told)}))
    stored = load_file(path)
    for name, value in state.items():
        if stored[name].numpy().tobytes() != value.numpy().tobytes():
            raise EmitError(f"{path}: {name} does not read back", mend="check the disk")


def is_written(path: Path) -> bool:
    """Whether a file of weights holds what `write_weights` wrote."""
    try:
        return path.is_file() and DIGEST in _metadata(path) and bool(_whole(path))  # a pipe would be waited for
    except (OSError, SafetensorError, EmitError):
        return False


def _whole(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, held to the digest that it names; files of others name none."""
    state, told = load_file(path), _metadata(path)
    digest = told.pop(DIGEST, None)
    if digest is not None and digest != _digest(state, told):
        raise EmitError(
            f"{path}: damaged, or trained on: its tensors are not those of its {DIGEST}",
            mend="restore it, or leave that key out of the metadata of trained weights",
        )
    return state


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
        return file.metadata() or {}


def read_weights(path: Path, network: Architecture, module: nn.Module) -> None:
    """Load a safetensors file into a module of the same shapes, whosever names it has.

    Raises:
        EmitError: the file is damaged or belongs to another network.
    """
    try:
        state = _whole(path)
        module.load_state_dict(ours(network, state) if isinstance(network, Network) else state)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise EmitError(
            f"{path}: {' '.join(str(error).split())[:300]}", mend="give the file written beside config.yaml"
        ) from None


def read_epsilon(path: Path) -> float | None:
    """The epsilon of the norms that a file of ours names; None for files of others."""
    if path.suffix.lower() != ".safetensors":
        return None
    try:
        return float(_metadata(path).get(EPSILON, ""))
    except ValueError:
        return None


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name; nothing in the file is run.

    Args:
        path: a `.safetensors` file, or a `.pth`, `.pt` or `.bin` that torch saved: a state dict, or a checkpoint
            that holds one under a usual key.

    Raises:
        EmitError: the file is missing, damaged, or holds something else.
    """
    if not path.is_file():
        raise EmitError(f"{path}: no such file", mend="check the path")
    if path.suffix.lower() not in SUFFIXES:
        raise EmitError(f"{path}: not a weights file", mend=f"give a file that ends in {', '.join(SUFFIXES)}")
    try:
        content = _content(path)
    except EmitError:
        raise
    except PermissionError:
        raise EmitError(f"{path}: not readable", mend="allow reading it") from None
    except Exception as error:  # noqa: BLE001  a damaged file makes the readers fail in any way they can
        raise EmitError(
            f"{path}: damaged, or it holds more than tensors ({type(error).__name__})",
            mend="give a state dict alone, saved by safetensors or torch.save",
        ) from None
    state = _state(path, content)
    parallel = all(name.startswith(PARALLEL) for name in state)
    return {name.removeprefix(PARALLEL): value for name, value in state.items()} if parallel else state


def _content(path: Path) -> object:
    if path.suffix.lower() == ".safetensors":
        return _whole(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of formats that are refused anyway
        return torch.load(path, map_location="cpu", weights_only=True)


def _state(path: Path, content: object) -> dict[str, Tensor]:
    """The one state dict in what a file held."""
    held = cast("dict[Any, Any]", content) if isinstance(content, dict) else {}
    inside = [key for key in INSIDE if isinstance(held.get(key), dict)]
    if len(inside) > 1:
        raise EmitError(f"{path}: holds {' and '.join(inside)}", mend="save one of them alone")
    state = held[inside[0]] if inside else held
    if not state or not all(isinstance(key, str) and _is_plain(value) for key, value in state.items()):
        raise EmitError(f"{path}: holds no state dict", mend="save model.state_dict()")
    return dict(state)


def _is_plain(value: object) -> bool:
    """Whether it is a tensor that copies into any other; neither sparse nor without memory."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
