"""The same network with batch norm, activation and squeeze-excite through the kernels in training."""

from __future__ import annotations

import copy
from collections import OrderedDict
from functools import partial

from torch import Tensor, nn

from scalesearch.kernels.norm_act import accepts, norm_act, norm_act_gated
from scalesearch.nets.blocks import ACTIVATIONS, ConvNorm, SqueezeExcite

NAMES = {layer: name for name, layer in ACTIVATIONS.items()}


def _gate(squeeze: SqueezeExcite, pooled: Tensor) -> Tensor:
    return squeeze.gate(squeeze.excite(squeeze.activation(squeeze.squeeze(pooled))))


class FusedConvNorm(ConvNorm):
    """The layers of a `ConvNorm`; where the kernels accept its map, they do what comes after the convolution.

    With a `squeeze`, the squeeze-excite behind it is applied too.
    """

    def __init__(self, plain: ConvNorm) -> None:
        nn.Sequential.__init__(self, OrderedDict(plain.named_children()))
        self.training = plain.training

    def forward(self, input: Tensor, squeeze: SqueezeExcite | None = None) -> Tensor:
        """(batch, inputs, h, w) -> (batch, outputs, h / stride, w / stride)."""
        x, layers = input, list(self)
        activation = NAMES.get(type(layers[-1]), "")
        first = len(layers) - (2 if activation else 1)
        for layer in layers[:first]:
            x = layer(x)
        norm = layers[first]
        if accepts(x, norm):
            return self._through_kernels(x, norm, activation, squeeze)
        for layer in layers[first:]:
            x = layer(x)
        return x if squeeze is None else squeeze(x)

    @staticmethod
    def _through_kernels(x: Tensor, norm: nn.Module, activation: str, squeeze: SqueezeExcite | None) -> Tensor:
        assert isinstance(norm, nn.BatchNorm2d)  # that is what `accepts` takes
        if squeeze is None:
            return norm_act(x, norm, activation)
        parameters = tuple(squeeze.parameters())
        return norm_act_gated(x, norm, activation, mlp=partial(_gate, squeeze), parameters=parameters)


class FusedSequential(nn.Sequential):
    """A sequence in which a squeeze-excite is done by the convolution before it, so that its map is never written."""

    def forward(self, input: Tensor) -> Tensor:
        """What the layers do one after the other."""
        x, layers, done = input, list(self), False
        for layer, following in zip(layers, [*layers[1:], None], strict=True):
            if done:
                done = False
            elif isinstance(layer, FusedConvNorm) and type(following) is SqueezeExcite:
                x, done = layer(x, following), True
            else:
                x = layer(x)
        return x


def fuse(module: nn.Module) -> nn.Module:
    """The network with every `ConvNorm`, and every squeeze-excite behind one, through `scalesearch.kernels`.

    Layers, parameters, buffers and their names are those of `module`, which stays as it is and shares them. The plain
    path runs where `kernels.norm_act.accepts` says so: evaluation, a cumulative mean, a device without the kernels.
    Hooks of norms, activations and gates are not called on the way through the kernels. A network without a `ConvNorm`
    is returned itself.
    """
    if type(module) is ConvNorm:
        return FusedConvNorm(module)
    children = {name: None if child is None else fuse(child) for name, child in module._modules.items()}
    if all(children[name] is child for name, child in module._modules.items()):
        return module
    twin = FusedSequential() if type(module) is nn.Sequential else copy.copy(module)
    twin.__dict__.update(module.__dict__, _modules=children)
    return twin
