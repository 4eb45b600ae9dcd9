"""Modules that a user's builder makes: found, counted on meta tensors, built from a seed.

Counts are those of torch's FlopCounterMode: every convolution and matrix product, attention included. Element-wise
products count as nothing, in every network of this project. An operator that multiplies matrices and would count as
nothing is refused, never lost.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, cast

import numpy
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from scalesearch.blueprint import Blueprint, Counted
from scalesearch.errors import ScalingError, SpecError

NATIVE_SIDE = 224
"""Of a builder whose `resolution` has no default [px]."""
CONVOLUTIONS = ("convolution", "_convolution")
UNCOUNTED = (
    "mv", "dot", "vdot", "addmv", "addr", "addbmm", "bilinear", "_trilinear", "cdist", "_cdist_forward", "conv_tbc",
    "_thnn_fused_lstm_cell", "_cudnn_rnn", "mkldnn_rnn_layer", "matrix_exp", "kron", "triangular_solve",
)  # fmt: skip
UNCOUNTED_KINDS = ("linalg_", "_linalg_", "cholesky", "_cholesky", "_fft_", "_sparse_", "sparse_", "_pdist", "lu_")
"""Operators that multiply matrices and that FlopCounterMode has no formula for, and how the names of others begin."""
COUNTED_LIBRARIES = ("aten", "prim", "prims")
"""What operators of other libraries do, such as a deformable convolution, nothing here can see."""


class _Seen(TorchDispatchMode):
    """Output elements of everything that has a formula, and the names of what should have one."""

    def __init__(self) -> None:
        super().__init__()
        self.activations = 0
        self.uncounted: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            first = out[0] if isinstance(out, tuple | list) else out
            self.activations += first.numel()
        elif _multiplies_uncounted(func.namespace, packet.__name__):
            self.uncounted.add(packet.__name__)
        return out


def _multiplies_uncounted(library: str, name: str) -> bool:
    return library not in COUNTED_LIBRARIES or name in UNCOUNTED or name.startswith(UNCOUNTED_KINDS)


def find_builder(text: str) -> Callable[..., nn.Module]:
    """The callable of `package.module:function`, from the current folder or the installed packages.

    Raises:
        SpecError: there is none, or its module cannot be imported.
    """
    place, _, name = text.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(place)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # noqa: BLE001  the user's code: whatever it raises while it is imported
        raise SpecError(f"--base {text}: {said(error)}", mend="give an importable package.module:function") from None
    if not callable(found):
        raise SpecError(f"--base {text} is not callable", mend="give a function(*, depth, width, resolution)")
    return cast("Callable[..., nn.Module]", found)


def native_side(text: str) -> int:
    """The default of the builder's `resolution`, else 224 [px].

    Raises:
        SpecError: it does not take depth, width and resolution by name.
    """
    build = find_builder(text)
    try:
        parameters = inspect.signature(build).parameters
    except ValueError:  # a builtin without a signature
        return NATIVE_SIDE
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    missing = [name for name in ("depth", "width", "resolution") if name not in parameters]
    if missing and not takes_any:
        raise SpecError(f"--base {text} takes no {', '.join(missing)}", mend="it is called by those three names")
    default = parameters["resolution"].default if "resolution" in parameters else None
    return default if isinstance(default, int) and default > 0 else NATIVE_SIDE


def count_built(text: str, depth: float, width: float, resolution: int) -> Counted:
    """What a builder makes of multipliers and a side, counted on meta tensors; its fault if it makes nothing.

    Raises:
        SpecError: there is no such builder, or it makes no classifier of square images.
        ScalingError: an operator multiplies and cannot be counted.
    """
    find_builder(text)  # its faults are not those of one network
    asked = {"depth": depth, "width": width, "resolution": resolution}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module, params = _on_meta(text, asked)
            seen, output, flops = _Seen(), None, FlopCounterMode(display=False)
            with torch.no_grad(), torch.device("meta"), flops, seen:
                output = module(torch.empty(1, 3, resolution, resolution))
        except SpecError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001  the user's code
            return Counted(**asked, fault=type(error).__name__, reason=f"{text}: {said(error)}")
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != 1:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise SpecError(
            f"{text} gives {found} for one image", mend="it must make a classifier: (batch, classes) logits"
        )
    recurrent = {type(one).__name__ for one in module.modules() if isinstance(one, nn.RNNBase | nn.RNNCellBase)}
    if uncounted := seen.uncounted | recurrent:
        fault = f"{text} uses {', '.join(sorted(uncounted))}, which multiplies and would count as nothing"
        raise ScalingError(fault, mend="write it as a convolution, a linear layer or a matrix product")
    by_operator = {packet.__name__: total // 2 for packet, total in flops.get_flop_counts()["Global"].items()}
    conv = sum(macs for name, macs in by_operator.items() if name in CONVOLUTIONS)
    return Counted(
        **asked,
        conv=conv,
        linear=sum(by_operator.values()) - conv,
        params=params,
        activations=seen.activations,
        num_classes=output.shape[1],
        shapes=shapes_digest(module.state_dict()),
    )


def _on_meta(text: str, asked: dict[str, Any]) -> tuple[nn.Module, int]:
    """In eval mode, without memory for weights where the builder allows it; and its trainable parameters.

    They are counted before the move, which parts weights that two layers share.
    """
    module: nn.Module | None = None
    with suppress(Exception, SystemExit), torch.device("meta"):
        module = _built(text, asked)
    module = _built(text, asked) if module is None else module
    params = sum(weight.numel() for weight in module.parameters() if weight.requires_grad)
    return module.to("meta").eval(), params


def _built(text: str, asked: dict[str, Any]) -> nn.Module:
    module: object = find_builder(text)(**asked)
    if not isinstance(module, nn.Module):
        raise SpecError(f"{text} returns a {type(module).__name__}", mend="it must return a torch.nn.Module")
    if any(isinstance(one, LazyModuleMixin) for one in module.modules()):
        raise SpecError(f"{text} has lazy layers", mend="give them their input channels")
    return module


def shapes_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names and shapes of parameters and buffers."""
    rows = sorted((name, tuple(value.shape)) for name, value in state.items())
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def build_blueprint(blueprint: Blueprint, *, seed: int) -> nn.Module:
    """The module that a builder makes, on the CPU in training mode, with its own initialisation under `seed`.

    Raises:
        SpecError: the builder makes another network than it did when it was counted.
    """
    with seeded(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asked = {"depth": blueprint.depth, "width": blueprint.width, "resolution": blueprint.resolution}
        module = _built(blueprint.builder, asked)
    if shapes_digest(module.state_dict()) != blueprint.shapes:
        raise SpecError(
            f"{blueprint.builder} makes another network than it was counted as", mend="restore it, or start a new run"
        )
    return module.train()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The random numbers of torch, numpy and the standard library from a seed, and as they were behind it."""
    states = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        numpy.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            numpy.random.set_state(states[1])


def said(error: BaseException) -> str:
    """What the user's code raised, in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
