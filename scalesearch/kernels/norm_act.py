"""Batch norm, activation and squeeze-excite of a training step, in as few reads and writes of the map as they take.

| | forward | backward |
|---|---|---|
| `norm_act` | statistics: 1 read; apply: 1 read, 1 write | sums: 2 reads; gradient: 2 reads, 1 write |
| `norm_act_gated` | the same and 1 read to pool | the same |

Only the map itself and numbers per channel (and per image where gated) are kept for the backward pass. Maps are
(batch, channels, h, w) in bfloat16, float16 or float32, and are made channels_last; everything per channel is float32.
Nothing waits for the device, so a CUDA graph can capture it after one warm-up call has compiled the kernels.
"""

from __future__ import annotations

import functools
import math
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

OPTIONS = {"enable_fp_fusion": True}
"""Of each launch. Triton 3.9 warns where a*b + c is not said to be allowed as one operation."""
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
WIDTHS = (128, 64, 32, 16)
ELEMENTS = 2048
"""Elements of a tile: 16 for each thread of 4 warps, two loads of 16 bytes in bfloat16."""
PROGRAMS = 2048
"""Most programs that share a pass by rows: two waves of 8 on each of about 130 multiprocessors."""
PARTS = 1024
"""Most parts of the rows: as many as `passes.finalise` joins in one tile."""


@functools.cache
def available(device: torch.device) -> bool:
    """Whether the kernels run on a device: a CUDA device that Triton compiles for, or the CPU under its interpreter.

    The interpreter (TRITON_INTERPRET=1 in the environment) is for tests: it is far slower than torch.
    """
    try:
        import triton

        from scalesearch.kernels import passes
    except ImportError:
        return False
    if device.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0) and _launches()
    return device.type == "cpu" and not isinstance(passes.apply, triton.JITFunction)


def _launches() -> bool:
    """Triton's first launch compiles C against Python's headers and the driver: not every machine can."""
    from triton.runtime import driver

    try:
        return driver.active is not None
    except (RuntimeError, OSError, ImportError, AssertionError, subprocess.SubprocessError):
        return False


def accepts(x: Tensor, norm: nn.Module) -> bool:
    """Whether the kernels can do what `norm` does to a map: batch norm in training, as `torch.nn.BatchNorm2d` has it.

    Needs a momentum, running statistics and float32 parameters, and more than one row; else the plain path is the one.
    """
    return (
        type(norm) is nn.BatchNorm2d
        and norm.training
        and norm.affine
        and norm.momentum is not None
        and norm.running_mean is not None
        and norm.weight.dtype == norm.running_mean.dtype == torch.float32
        and x.ndim == 4
        and x.dtype in DTYPES
        and x.numel() > x.shape[1]
        and available(x.device)
    )


def norm_act(x: Tensor, norm: nn.BatchNorm2d, activation: str = "") -> Tensor:
    """`activation(norm(x))` of a map that `accepts` takes, in its dtype; updates the running statistics of `norm`.

    `activation` is a key of `nets.blocks.ACTIVATIONS`, or empty for none.
    """
    with torch.cuda.device_of(x):
        return _NormAct.apply(x, norm.weight, norm.bias, norm, activation)


def norm_act_gated(
    x: Tensor, norm: nn.BatchNorm2d, activation: str, *, mlp: Callable[[Tensor], Tensor], parameters: tuple[Tensor, ...]
) -> Tensor:
    """`y * mlp(mean of y over h and w)` with `y = activation(norm(x))`, which is never written.

    `mlp` takes and returns (batch, channels, 1, 1), is given float32, and must have no tensors that need gradients but
    `parameters`. Everything else as in `norm_act`.
    """
    recording = torch.is_grad_enabled()
    with torch.cuda.device_of(x):
        return _NormActGated.apply(x, norm.weight, norm.bias, norm, activation, mlp, recording, *parameters)


@dataclass(frozen=True)
class Tiling:
    """How a map of `segments` x `length` rows of `channels` is shared among programs; the words of `passes`."""

    segments: int
    length: int
    channels: int
    rows: int
    width: int
    span: int

    @classmethod
    def of(cls, channels: int, *, length: int, segments: int = 1) -> Tiling:
        """Wide tiles, unless narrow ones leave fewer lanes idle, and as many parts as keep a large GPU busy."""
        width = min(WIDTHS, key=lambda one: math.ceil(channels / one) * (one + 8))  # 8: a block's cost beside its lanes
        rows = min(ELEMENTS // width, 1 << (length - 1).bit_length())
        parts = PROGRAMS // (segments * math.ceil(channels / width))
        span = rows * math.ceil(math.ceil(length / rows) / max(1, min(PARTS, parts)))
        return cls(segments, length, channels, rows, width, span)

    @property
    def parts(self) -> int:
        """Parts of a segment."""
        return math.ceil(self.length / self.span)

    def launch(self, name: str, *arguments: Any, **flags: Any) -> None:
        """Start a kernel of `passes` with a program for each part and block of channels."""
        from scalesearch.kernels import passes

        vector = math.gcd(self.channels, 8)
        grid = (self.segments * self.parts * math.ceil(self.channels / self.width),)
        sizes = (self.length, self.channels // vector, self.span, self.parts)
        shape = {"VECTOR": vector, "ROWS": self.rows, "WIDTH": self.width}
        getattr(passes, name)[grid](*arguments, *sizes, **shape, **flags, **OPTIONS)


@dataclass(frozen=True)
class Normed:
    """A map (batch, channels, h, w), channels_last, with what normalises it per channel: float32, (channels,)."""

    x: Tensor
    mean: Tensor
    inverse: Tensor
    weight: Tensor
    bias: Tensor
    activation: str

    @classmethod
    def of(cls, x: Tensor, norm: nn.BatchNorm2d, activation: str) -> Normed:
        """Take the statistics of a map, and update the running ones."""
        x = x.contiguous(memory_format=torch.channels_last)
        tiling = Tiling.of(x.shape[1], length=x.numel() // x.shape[1])
        parts = torch.empty((2, tiling.parts, tiling.channels), dtype=torch.float32, device=x.device)
        tiling.launch("statistics", x, *parts)
        mean, inverse = _joined(x, norm, tiling, parts)
        return cls(x, mean, inverse, norm.weight, norm.bias, activation)

    @property
    def per_channel(self) -> tuple[Tensor, ...]:
        """What every pass reads of a channel."""
        return self.mean, self.inverse, self.weight, self.bias

    @property
    def pixels(self) -> int:
        """Pixels of an image's map."""
        return self.x.shape[2] * self.x.shape[3]

    def tiling(self, gated: bool) -> Tiling:
        """A segment per image where `gated`, else one of all rows."""
        batch, channels = self.x.shape[:2]
        if gated:
            return Tiling.of(channels, length=self.pixels, segments=batch)
        return Tiling.of(channels, length=batch * self.pixels)

    def apply(self, gate: Tensor | None = None) -> Tensor:
        """The activated map, times a gate (batch, channels) if there is one."""
        out = torch.empty_like(self.x)
        flags = {"GATED": gate is not None, "ACTIVATION": self.activation}
        self.tiling(gate is not None).launch("apply", self.x, out, *self.per_channel, gate, **flags)
        return out

    def sums(self, dy: Tensor | None, *, per_image: bool) -> Tensor:
        """Sums of slope and slope times normalised x, and with `per_image` of y, each times `dy` if there is one.

        (2, 1, channels) over the whole map, or (3, batch, channels).
        """
        tiling = self.tiling(per_image)
        shape = (2 + per_image, tiling.segments, tiling.parts, tiling.channels)
        out = torch.empty(shape, dtype=torch.float32, device=self.x.device)
        flags = {"WEIGHTED": dy is not None, "VALUES": per_image, "ACTIVATION": self.activation}
        tiling.launch("sums", self.x, dy, out, *self.per_channel, **flags)
        return out.sum(2) if tiling.parts > 1 else out.squeeze(2)

    def gradient(
        self, dy: Tensor, slopes: Tensor, *, gate: Tensor | None = None, share: Tensor | None = None
    ) -> Tensor:
        """The gradient of x, from (2, channels) gradients of bias and weight; `passes.gradient` says the rest."""
        dx = torch.empty_like(self.x)
        one_row = self.x.shape[1] / self.x.numel()
        flags = {"GATED": gate is not None, "ACTIVATION": self.activation}
        inputs = (self.x, dy, dx, *self.per_channel, slopes, gate, share, one_row)
        self.tiling(gate is not None).launch("gradient", *inputs, **flags)
        return dx


def _joined(x: Tensor, norm: nn.BatchNorm2d, tiling: Tiling, parts: Tensor) -> Tensor:
    """Mean and 1/deviation (2, channels) from the statistics (2, parts, channels) of the parts of a map."""
    from scalesearch.kernels import passes

    finalise: Any = passes.finalise
    width, length = 8, tiling.length
    out = torch.empty((2, tiling.channels), dtype=torch.float32, device=x.device)
    running = (norm.running_mean, norm.running_var, norm.num_batches_tracked)
    sizes = (length, tiling.channels, tiling.span, tiling.parts)
    factors = (1 / length, length / (length - 1), norm.momentum, norm.eps)
    grid = (math.ceil(tiling.channels / width),)
    flags = {"PARTS": PARTS, "WIDTH": width, "num_warps": 8, **OPTIONS}
    finalise[grid](x, *parts, *out, *running, *sizes, *factors, **flags)
    return out


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d, activation: str) -> Tensor:
        normed = Normed.of(x, norm, activation)
        ctx.save_for_backward(normed.x, normed.mean, normed.inverse, weight, bias)
        ctx.activation = activation
        return normed.apply()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        normed = Normed(*ctx.saved_tensors, activation=ctx.activation)
        dy = grad_outputs[0].contiguous(memory_format=torch.channels_last)
        slopes = normed.sums(dy, per_image=False).squeeze(1)
        return normed.gradient(dy, slopes), slopes[1], slopes[0], None, None


class _NormActGated(torch.autograd.Function):
    """The gate's own graph is built in `forward` and walked in `backward`: it is small, and holds no map."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm: nn.BatchNorm2d,
        activation: str,
        mlp: Callable[[Tensor], Tensor],
        recording: bool,
        *parameters: Tensor,
    ) -> Tensor:
        normed = Normed.of(x, norm, activation)
        sums = normed.sums(None, per_image=True)
        pooled = (sums[2] / normed.pixels)[:, :, None, None].requires_grad_(recording)
        with torch.set_grad_enabled(recording):
            gate = mlp(pooled)
        opening = gate.detach().flatten(1).float().contiguous()
        ctx.save_for_backward(normed.x, normed.mean, normed.inverse, weight, bias, sums[:2], opening)
        needed = zip(parameters, ctx.needs_input_grad[7:], strict=True)
        ctx.activation, ctx.gate = activation, gate
        ctx.leaves = [pooled, *(one for one, wanted in needed if wanted)]
        return normed.apply(opening)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        *saved, ungated, opening = ctx.saved_tensors
        normed = Normed(*saved, activation=ctx.activation)
        dz = grad_outputs[0].contiguous(memory_format=torch.channels_last)
        sums = normed.sums(dz, per_image=True)
        dgate = sums[2].to(ctx.gate.dtype).view_as(ctx.gate)
        dpooled, *found = torch.autograd.grad(ctx.gate, ctx.leaves, dgate, retain_graph=True)
        share = (dpooled.flatten(1) / normed.pixels).contiguous()
        # dy = dz * gate + share, so the sums of its slopes follow from those per image: the map is not read again
        slopes = torch.addcmul(sums[:2] * opening, ungated, share).sum(1)
        dx = normed.gradient(dz, slopes, gate=opening, share=share)
        gradients = iter(found)
        own = (next(gradients) if wanted else None for wanted in ctx.needs_input_grad[7:])
        return dx, slopes[1], slopes[0], None, None, None, None, *own
