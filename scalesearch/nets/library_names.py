"""What torchvision and timm call the layers of a network.

A naming yields the name of every layer with weights, in the order in which our modules hold them. It looks at what
the blocks are made of, so a scaled network is named like the one it was scaled from.

Source: pytorch/vision, torchvision/models/{resnet,efficientnet,mobilenetv2,mobilenetv3,mnasnet}.py;
    huggingface/pytorch-image-models, timm/models/{resnet,efficientnet,mobilenetv3}.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise
from typing import Any, Literal

from scalesearch.families import FAMILIES
from scalesearch.nets.network import stage_arguments
from scalesearch.spec import Network, Stage

Library = Literal["torchvision", "timm"]
Naming = Callable[[Network], Iterator[str]]
Arguments = dict[str, Any]
POINTWISE = "conv_head"
"""timm's name of a 1x1 convolution behind the pooling, which is a linear layer of ours."""


def naming(network: Network, library: Library) -> Naming | None:
    """The naming of a library for networks of this kind; None = it has none of this kind."""
    kinds, head = {stage.block for stage in network.stages}, network.head
    if kinds in ({"basic"}, {"bottleneck"}):
        plain = network.padding == "symmetric" and network.activation == "relu" and not head.width and not head.hidden
        return _resnet if plain else None
    if library == "timm":
        return _timm if kinds <= {"mbconv", "separable"} else None
    if kinds != {"mbconv"} or not head.width or network.padding == "same":
        return None
    return _mobile(network)


def _mobile(network: Network) -> Naming | None:
    """The naming of torchvision for inverted residuals: its classes differ in the activation."""
    stages, hidden = network.stages, network.head.hidden
    squeezed = {stage.se_ratio > 0 for stage in stages}
    if network.activation == "hardswish" and hidden:
        return _mobilenet_v3
    if network.activation == "silu" and squeezed == {True} and not hidden:
        return _efficientnet
    if hidden or squeezed != {False}:
        return None
    if network.activation == "relu6" and all(stage.kernel == 3 for stage in stages):
        return _mobilenet_v2
    expanded = [stage.expansion != 1 for stage in stages]
    if network.activation == "relu" and stages[0].depth == 1 and not expanded[0] and all(expanded[1:]):
        return _mnasnet
    return None


def norm_eps(network: Network, library: Library) -> float:
    """What the batch norms of a library's own network of this kind add to the variance.

    Source: torchvision, efficientnet.py (1e-3 in efficientnet_b5 to b7, whose heads have 2048 channels and more) and
        mobilenetv3.py; timm, _efficientnet_builder.py, BN_EPS_TF_DEFAULT; else torch's default.

    >>> from scalesearch.families import find_base
    >>> [norm_eps(find_base(name).network, "torchvision") for name in ("b4", "b5", "mobilenet_v3_large")]
    [1e-05, 0.001, 0.001]
    >>> [norm_eps(find_base(name).network, "timm") for name in ("b5", "tf_b5", "mobilenet_v3_large")]
    [1e-05, 0.001, 1e-05]
    """
    if library == "timm":
        from_tensorflow = network.padding == "same"
    else:
        chosen = naming(network, library)
        from_tensorflow = chosen is _mobilenet_v3 or (chosen is _efficientnet and network.head.width >= 2048)
    return 1e-3 if from_tensorflow else 1e-5


def _resnet(network: Network) -> Iterator[str]:
    """ResNets, which torchvision and timm name alike."""
    yield from ("conv1", "bn1")
    for index, position, arguments in _blocks(network):
        block = f"layer{index + 1}.{position}"
        for number in (1, 2, 3) if "hidden" in arguments else (1, 2):
            yield from (f"{block}.conv{number}", f"{block}.bn{number}")
        if arguments["stride"] > 1 or arguments["inputs"] != arguments["outputs"]:
            yield from (f"{block}.downsample.0", f"{block}.downsample.1")
    yield "fc"


def _efficientnet(network: Network) -> Iterator[str]:
    """EfficientNets of torchvision: a number per stage and one per block."""
    yield from _pair("features.0")
    for index, position, arguments in _blocks(network):
        yield from _numbered(f"features.{index + 1}.{position}.block", arguments)
    yield from (*_pair(f"features.{len(network.stages) + 1}"), "classifier.1")


def _mobilenet_v3(network: Network) -> Iterator[str]:
    """MobileNetV3 of torchvision: one number per block, a linear layer before the classifier."""
    yield from _pair("features.0")
    for number, (_, _, arguments) in enumerate(_blocks(network), start=1):
        yield from _numbered(f"features.{number}.block", arguments)
    yield from (*_pair(f"features.{network.depth + 1}"), "classifier.0", "classifier.3")


def _mobilenet_v2(network: Network) -> Iterator[str]:
    """MobileNetV2 of torchvision: one number per block, the last convolution and norm of a block not nested."""
    yield from _pair("features.0")
    for number, (_, _, arguments) in enumerate(_blocks(network), start=1):
        block, last = f"features.{number}.conv", len(_parts(arguments)) - 1
        for part in range(last):
            yield from _pair(f"{block}.{part}")
        yield from (f"{block}.{last}", f"{block}.{last + 1}")
    yield from (*_pair(f"features.{network.depth + 1}"), "classifier.1")


def _mnasnet(network: Network) -> Iterator[str]:
    """MNASNet of torchvision: stem, first block and head are not nested; every third number is an activation."""
    yield from ("layers.0", "layers.1")
    for index, position, arguments in _blocks(network):
        block, first = (f"layers.{index + 7}.{position}.layers", 0) if index else ("layers", 3)
        for part in range(len(_parts(arguments))):
            yield from (f"{block}.{first + 3 * part}", f"{block}.{first + 3 * part + 1}")
    end = len(network.stages) + 7
    yield from (f"layers.{end}", f"layers.{end + 1}", "classifier.1")


def _timm(network: Network) -> Iterator[str]:
    """EfficientNets and MobileNets of timm: a hidden layer makes the head's convolution a block of its own."""
    yield from ("conv_stem", "bn1")
    rows, blocks = _timm_rows(network), Counter[int]()
    for index, _, arguments in _blocks(network):
        row = rows[index]
        yield from (f"blocks.{row}.{blocks[row]}.{layer}" for layer in _timm_block(arguments))
        blocks[row] += 1
    if network.head.width:
        last = f"blocks.{rows[-1] + 1}.0"
        yield from (f"{last}.conv", f"{last}.bn1") if network.head.hidden else ("conv_head", "bn2")
    if network.head.hidden:
        yield POINTWISE
    yield "classifier"


def _timm_block(arguments: Arguments) -> tuple[str, ...]:
    parts = _parts(arguments)
    squeeze = ("se.conv_reduce", "se.conv_expand") if "squeeze" in parts else ()
    if "expand" in parts:
        return ("conv_pw", "bn1", "conv_dw", "bn2", *squeeze, "conv_pwl", "bn3")
    return ("conv_dw", "bn1", *squeeze, "conv_pw", "bn2")


def _timm_rows(network: Network) -> list[int]:
    """The stage of timm for each of ours: it begins where stride or width changes, before any scaling."""
    drawn = next((one for one in _shipped() if _drawing(one) == _drawing(network)), network)
    begins = [stage.stride > 1 or stage.width != before.width for before, stage in pairwise(drawn.stages)]
    return list(accumulate(begins, initial=0))


def _shipped() -> Iterator[Network]:
    return (network for family in FAMILIES.values() for network in family.networks.values())


def _drawing(network: Network) -> list[tuple[Any, ...]]:
    """What scaling leaves of the stages."""

    def kept(stage: Stage) -> tuple[Any, ...]:
        return stage.block, stage.kernel, stage.stride, stage.expansion, stage.se_ratio, stage.activation

    return [kept(stage) for stage in network.stages]


def _blocks(network: Network) -> Iterator[tuple[int, int, Arguments]]:
    """Stage, position in it and arguments of every block."""
    for index, (_, rows) in enumerate(stage_arguments(network)):
        for position, arguments in enumerate(rows):
            yield index, position, arguments


def _parts(arguments: Arguments) -> list[str]:
    """What an `mbconv` or `separable` block is made of."""
    expand = ["expand"] if arguments.get("hidden", arguments["inputs"]) != arguments["inputs"] else []
    squeeze = ["squeeze"] if arguments.get("squeeze") else []
    return [*expand, "depthwise", *squeeze, "project"]


def _numbered(block: str, arguments: Arguments) -> Iterator[str]:
    """Names like `block.0.0`, `block.0.1`, `block.1.fc1`."""
    for number, part in enumerate(_parts(arguments)):
        place = f"{block}.{number}"
        yield from (f"{place}.fc1", f"{place}.fc2") if part == "squeeze" else _pair(place)


def _pair(place: str) -> tuple[str, str]:
    """A convolution and its norm in a sequence of their own."""
    return f"{place}.0", f"{place}.1"
