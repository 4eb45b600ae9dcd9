"""Several networks of one architecture as one module: their layers side by side, their operations shared.

Network k of K owns the k-th of K equal parts of every channel axis. So each tensor of the stack is the concatenation of
the networks' tensors along their first axis, under the names it has in one of them; a tensor without axes is shared.
This holds for weights, gradients, running statistics, averages and the state of an optimizer alike.

Source: horizontal fusion, arXiv:2102.02344, section 3.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from scalesearch.errors import SpecError
from scalesearch.nets import blocks


class StackedConv2d(nn.Conv2d):
    """K convolutions of one shape, each on its own channels: (batch, K * inputs, h, w) -> (batch, K * outputs, ...)."""

    def __init__(self, one: nn.Conv2d, count: int) -> None:
        super().__init__(
            count * one.in_channels,
            count * one.out_channels,
            one.kernel_size,  # type: ignore[arg-type]
            stride=one.stride,  # type: ignore[arg-type]
            padding=one.padding,  # type: ignore[arg-type]
            dilation=one.dilation,  # type: ignore[arg-type]
            groups=count * one.groups,
            bias=one.bias is not None,
            padding_mode=one.padding_mode,
        )
        self.count = count
        self.mixes_channels_alone = one.kernel_size == (1, 1) and one.padding == (0, 0) and one.groups == 1

    def forward(self, input: Tensor) -> Tensor:
        """All convolutions at once."""
        # cuDNN is slow at groups that are not depthwise; oneDNN's are faster than products and than single calls
        if self.mixes_channels_alone and input.is_cuda:
            return self.as_products(input)
        return super().forward(input)

    def as_products(self, input: Tensor) -> Tensor:
        """The same for kernels of 1x1, as one batched matrix product."""
        rows, columns = self.stride
        pixels = input[:, :, ::rows, ::columns].permute(0, 2, 3, 1)
        mixed = _products(pixels.unflatten(3, (self.count, -1)).flatten(0, 2), self.weight.flatten(1), self.bias)
        return mixed.reshape(*pixels.shape[:3], -1).permute(0, 3, 1, 2)


class StackedLinear(nn.Linear):
    """K linear layers of one shape, each on its own features: (batch, K * inputs) -> (batch, K, outputs).

    The networks' axis of what another one gave is taken as well: (batch, K, inputs) -> (batch, K, outputs).
    """

    def __init__(self, one: nn.Linear, count: int) -> None:
        super().__init__(one.in_features, count * one.out_features, bias=one.bias is not None)
        self.count = count

    def forward(self, input: Tensor) -> Tensor:
        """All layers at once."""
        return _products(input.reshape(len(input), self.count, -1), self.weight, self.bias)


def _products(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(rows, K, inputs) by (K * outputs, inputs), and (K * outputs,) added -> (rows, K, outputs)."""
    count, inputs = x.shape[1:]
    factors = x.transpose(0, 1), weight.view(count, -1, inputs).transpose(1, 2)
    products = torch.bmm(*factors) if bias is None else torch.baddbmm(bias.view(count, 1, -1), *factors)
    return products.transpose(0, 1)


def _norms(one: nn.BatchNorm2d, count: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(count * one.num_features, eps=one.eps, momentum=one.momentum)


SEPARATE: Mapping[type[nn.Module], Callable[[Any, int], nn.Module]] = {
    nn.Conv2d: StackedConv2d,
    nn.Linear: StackedLinear,
    nn.BatchNorm2d: _norms,
}
"""What stands for K layers that have weights."""

CHANNELWISE = frozenset(
    {
        *(blocks.ConvNet, blocks.Head, blocks.Residual, blocks.SqueezeExcite, blocks.ConvNorm, blocks.SamePad),
        *(nn.Sequential, nn.ModuleList, nn.Identity, nn.Dropout, nn.AdaptiveAvgPool2d, nn.MaxPool2d),
        *(blocks.ACTIVATIONS.values()),
        *(blocks.GATES.values()),
    }
)
"""Modules that mix no channels themselves: they stand in a stack as they are."""


def stackable(module: nn.Module) -> bool:
    """Whether a module is of `network.build`'s kind and draws no random numbers: no dropout, no stochastic depth.

    A stack would draw other numbers than its networks would alone.
    """
    return type(module) is blocks.ConvNet and all(_stacks(layer) for layer in module.modules())


def _stacks(layer: nn.Module) -> bool:
    random = (isinstance(layer, nn.Dropout) and layer.p) or (isinstance(layer, blocks.Residual) and layer.drop_path)
    return not random and (type(layer) in SEPARATE or type(layer) in CHANNELWISE)


def stack(modules: Sequence[nn.Module]) -> blocks.ConvNet:
    """K networks of one architecture as one: (batch, K * 3, resolution, resolution) -> (batch, K, classes).

    Images of network k are the channels 3k, 3k + 1, 3k + 2, its logits `logits[:, k]`; nothing passes from one network
    to another, forward or backward. The stack holds copies, and is on the device and in the mode of the first module.

    Raises:
        SpecError: a module that is not `stackable`, or modules that are not alike.
    """
    if not all(stackable(module) for module in modules):
        raise SpecError("a network that cannot be stacked", mend="train it by itself; see stacked.stackable")
    if len({repr(module) for module in modules}) != 1:
        raise SpecError("networks that are not alike cannot be stacked", mend="stack the seeds of one network")
    stacked = cast(blocks.ConvNet, copy.deepcopy(modules[0]))
    with torch.device("meta"):  # takes no random numbers
        for name, layer in list(stacked.named_modules()):
            if type(layer) in SEPARATE:
                stacked.set_submodule(name, SEPARATE[type(layer)](layer, len(modules)).train(layer.training))
    stacked.load_state_dict(joined([module.state_dict() for module in modules]), assign=True)
    return stacked


def joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of a stack from those of its networks, of the modules or of their optimizers: copies.

    Raises:
        SpecError: a shared tensor differs, such as the number of steps taken.
    """
    return {name: _joined(name, [part[name] for part in parts]) for name in parts[0]}


def _joined(name: str, tensors: Sequence[Tensor]) -> Tensor:
    if tensors[0].ndim:
        return torch.cat(list(tensors))
    if len({tensor.item() for tensor in tensors}) != 1:
        raise SpecError(f"networks that differ in {name} cannot be stacked", mend="stack networks of the same age")
    return tensors[0].clone()


def unstack(tensors: Mapping[str, Tensor], index: int, *, count: int) -> dict[str, Tensor]:
    """The tensors of network `index` of `count` from those of the stack, as views; the inverse of `joined`."""
    return {name: tensor.tensor_split(count)[index] if tensor.ndim else tensor for name, tensor in tensors.items()}
