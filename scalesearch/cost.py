"""What a network costs, in closed form: a fold over the same stage list that builds it.

One multiply-add counts 1; macs = convolutions and linear layers, no bias, eval mode, batch 1 (what the
EfficientNet paper calls FLOPs). `batch_norm` and `adaptive_avg_pool2d` follow fvcore's conventions (2 per
element in eval mode; 1 per input element) and are kept apart. Knows nothing of torch; `nets.measure` is the
independent second way to the same numbers.

Odd kernels with symmetric padding give ceil(side / stride), and ceil(ceil(n / a) / b) = ceil(n / ab): the map
behind a cumulative stride s has ceil(resolution / s)² pixels. So each layer is a number per pixel and a stride.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from scalesearch.scaling import Rounding, round_width
from scalesearch.spec import Network, Stage

POOLED = 0
"""The `stride` of a layer behind global pooling: its map is one pixel at any resolution."""


OPERATORS = ("conv", "linear", "batch_norm", "adaptive_avg_pool2d")
"""What is counted, under fvcore's names."""


class Layer(NamedTuple):
    """One operator of the network, its work given per pixel of the map it runs on."""

    operator: str
    """`conv`, `linear`, `batch_norm` or `adaptive_avg_pool2d`."""
    stride: int
    """Cumulative stride of the map; `POOLED` = one pixel."""
    work: int
    """Multiply-adds (fvcore's unit for norm and pooling) per pixel."""
    params: int
    """Trainable parameters."""
    activations: int
    """Output elements of convolutions and linear layers per pixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one image costs in a forward pass, by operator, and what the network holds."""

    conv: int = 0
    linear: int = 0
    batch_norm: int = 0
    adaptive_avg_pool2d: int = 0
    params: int = 0
    """Trainable parameters; running statistics are not included."""
    activations: int = 0
    """Output elements of every convolution and linear layer."""

    @property
    def macs(self) -> int:
        """Multiply-adds of convolutions and linear layers, no bias: the project's measure of compute."""
        return self.conv + self.linear

    @property
    def fvcore_total(self) -> int:
        """The total that fvcore prints in eval mode: macs + batch norm + pooling."""
        return self.macs + self.batch_norm + self.adaptive_avg_pool2d

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in Cost.__slots__})


def pixels(resolution: int, stride: int) -> int:
    """Pixels of the map behind a cumulative `stride` for an input of side `resolution` [px].

    >>> pixels(224, 32), pixels(225, 32), pixels(224, POOLED)
    (49, 64, 1)
    """
    return 1 if stride == POOLED else (-(-resolution // stride)) ** 2


def _conv(stride: int, inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> tuple[Layer, Layer]:
    weights = inputs // groups * kernel * kernel * outputs
    return (
        Layer("conv", stride, weights, weights, outputs),
        Layer("batch_norm", stride, 2 * outputs, 2 * outputs, 0),
    )


def _squeeze_excite(stride: int, channels: int, squeezed: int) -> tuple[Layer, ...]:
    weights = channels * squeezed
    return (
        Layer("adaptive_avg_pool2d", stride, channels, 0, 0),
        Layer("conv", POOLED, weights, weights + squeezed, squeezed),
        Layer("conv", POOLED, weights, weights + channels, channels),
    )


def _mbconv(network: Network, stage: Stage, inputs: int, before: int, after: int) -> tuple[Layer, ...]:
    hidden = hidden_width(network, stage, inputs)
    expand = _conv(before, inputs, hidden) if hidden != inputs else ()
    depthwise = _conv(after, hidden, hidden, stage.kernel, groups=hidden)
    squeezed = squeezed_width(network, stage, inputs)
    squeeze = _squeeze_excite(after, hidden, squeezed) if squeezed else ()
    return (*expand, *depthwise, *squeeze, *_conv(after, hidden, stage.width))


def _separable(network: Network, stage: Stage, inputs: int, before: int, after: int) -> tuple[Layer, ...]:
    return (*_conv(after, inputs, inputs, stage.kernel, groups=inputs), *_conv(after, inputs, stage.width))


def _shortcut(stage: Stage, inputs: int, before: int, after: int) -> tuple[Layer, ...]:
    return _conv(after, inputs, stage.width) if before != after or inputs != stage.width else ()


def _basic(network: Network, stage: Stage, inputs: int, before: int, after: int) -> tuple[Layer, ...]:
    return (
        *_conv(after, inputs, stage.width, stage.kernel),
        *_conv(after, stage.width, stage.width, stage.kernel),
        *_shortcut(stage, inputs, before, after),
    )


def _bottleneck(network: Network, stage: Stage, inputs: int, before: int, after: int) -> tuple[Layer, ...]:
    hidden = hidden_width(network, stage, inputs)
    return (
        *_conv(before, inputs, hidden),
        *_conv(after, hidden, hidden, stage.kernel, groups=stage.groups),
        *_conv(after, hidden, stage.width),
        *_shortcut(stage, inputs, before, after),
    )


BLOCK_LAYERS = {"mbconv": _mbconv, "separable": _separable, "basic": _basic, "bottleneck": _bottleneck}


def hidden_width(network: Network, stage: Stage, inputs: int) -> int:
    """Channels inside a block of `network` whose input has `inputs` channels."""
    if stage.block == "bottleneck":
        return max(1, round(stage.expansion * stage.width))
    hidden = stage.expansion * inputs
    # an expansion of 1 keeps its input, whatever the divisor: the block has no expanding convolution
    if network.hidden_divisor == 1 or stage.expansion == 1:
        return max(1, round(hidden))
    return round_width(hidden, Rounding(divisor=network.hidden_divisor))


def squeezed_width(network: Network, stage: Stage, inputs: int) -> int:
    """Channels that a block's squeeze-excite squeezes to; 0 where it has none.

    Source:
        tensorflow/tpu, efficientnet_model.py (cut to a whole number, of the input); arXiv:1905.02244, section 5.3
        (a quarter of the hidden channels), rounded as in pytorch/vision, mobilenetv3.py.
    """
    if not stage.se_ratio:
        return 0
    how = network.squeeze_excite
    squeezed = stage.se_ratio * (inputs if how.of == "input" else hidden_width(network, stage, inputs))
    return max(1, int(squeezed)) if how.divisor == 1 else round_width(squeezed, Rounding(divisor=how.divisor))


class Part(NamedTuple):
    """A named piece of the network: the stem, the first block of a stage, the blocks that repeat it, or the head."""

    name: str
    """`stem`, `stages.<i>` or `head`."""
    times: int
    """How often its layers follow each other: 1 but for what repeats a stage's first block."""
    repeats: bool
    """Whether it repeats the first block of its stage."""
    layers: tuple[Layer, ...]


def parts(network: Network) -> Iterator[Part]:
    """The network as stem, first and repeated blocks of every stage, and head, in the order of the data."""
    stem, inputs = network.stem, network.stem.width
    yield Part("stem", 1, False, _conv(stem.stride, 3, inputs, stem.kernel))
    stride = stem.stride * stem.pool
    for index, stage in enumerate(network.stages):
        layers = BLOCK_LAYERS[stage.block]
        first = layers(network, stage, inputs, stride, stride * stage.stride)
        stride, inputs = stride * stage.stride, stage.width
        yield Part(f"stages.{index}", 1, False, first)
        if stage.depth > 1:
            yield Part(f"stages.{index}", stage.depth - 1, True, layers(network, stage, inputs, stride, stride))
    yield Part("head", 1, False, _head(network, inputs, stride))


def _head(network: Network, inputs: int, stride: int) -> tuple[Layer, ...]:
    head = network.head
    pooled = head.width or inputs
    widen = _conv(stride, inputs, head.width) if head.width else ()
    hidden = (_linear(pooled, head.hidden),) if head.hidden else ()
    pool = Layer("adaptive_avg_pool2d", stride, pooled, 0, 0)
    return (*widen, pool, *hidden, _linear(head.hidden or pooled, network.num_classes))


def _linear(inputs: int, outputs: int) -> Layer:
    return Layer("linear", POOLED, inputs * outputs, inputs * outputs + outputs, outputs)


def _total(pieces: Iterable[Part], resolution: int) -> Cost:
    work: dict[str, int] = dict.fromkeys(OPERATORS, 0)
    params = activations = 0
    for _, times, _, layers in pieces:
        for operator, stride, layer_work, layer_params, layer_activations in layers:
            area = times * pixels(resolution, stride)
            work[operator] += layer_work * area
            params += layer_params * times
            activations += layer_activations * area
    return Cost(**work, params=params, activations=activations)


def count(network: Network) -> Cost:
    """The cost of a network in closed form.

    >>> from scalesearch.families import FAMILIES
    >>> count(FAMILIES["efficientnet"].baseline).macs
    385814752
    """
    return _total(parts(network), network.resolution)


def count_parts(network: Network) -> dict[str, Cost]:
    """The cost of stem, each stage and head, by name; the values add up to `count`."""
    found: dict[str, Cost] = {}
    for part in parts(network):
        cost = _total((part,), network.resolution)
        found[part.name] = found[part.name] + cost if part.name in found else cost
    return found
