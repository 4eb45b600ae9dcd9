"""From a `Network` value to a torch module: the builder flattens the value into plain arguments of `blocks`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from scalesearch.cost import hidden_width, squeezed_width
from scalesearch.nets import blocks
from scalesearch.spec import Network, Stage


def block_arguments(network: Network, stage: Stage, index: int, inputs: int, stride: int) -> dict[str, Any]:
    """Arguments of the function of `blocks` named by `stage.block`, for the block with running `index`."""
    arguments: dict[str, Any] = {
        "inputs": inputs,
        "outputs": stage.width,
        "kernel": stage.kernel,
        "stride": stride,
        **common(network),
        "activation": stage.activation or network.activation,
    }
    if stage.block in ("mbconv", "bottleneck"):
        arguments["hidden"] = hidden_width(network, stage, inputs)
    if stage.block == "bottleneck" and stage.groups > 1:
        arguments["groups"] = stage.groups
    if stage.block == "mbconv":
        arguments["squeeze"] = squeeze_arguments(network, stage, inputs)
    if stage.block != "separable":
        # survival falls linearly with the running index. Source: arXiv:1603.09382, section 3
        arguments["drop_path"] = round(network.drop_path * index / network.depth, 6)
    return arguments


def stage_arguments(network: Network) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """For each stage, the block's name and the arguments of each of its blocks."""
    index, inputs = 0, network.stem.width
    for stage in network.stages:
        rows = []
        for position in range(stage.depth):
            stride = stage.stride if position == 0 else 1
            rows.append(block_arguments(network, stage, index, inputs, stride))
            index, inputs = index + 1, stage.width
        yield stage.block, rows


def squeeze_arguments(network: Network, stage: Stage, inputs: int) -> dict[str, Any] | None:
    """Arguments of `blocks.SqueezeExcite` but its channels; None for a stage without it."""
    squeezed = squeezed_width(network, stage, inputs)
    if not squeezed:
        return None
    how = network.squeeze_excite
    return {
        "squeezed": squeezed,
        "activation": how.activation or stage.activation or network.activation,
        "gate": how.gate,
    }


def common(network: Network) -> dict[str, Any]:
    """What every convolution of a network shares."""
    return {
        "activation": network.activation,
        "norm": (network.norm_eps, network.norm_momentum),
        "padding": network.padding,
    }


def head_arguments(network: Network) -> dict[str, Any]:
    """Arguments of `blocks.Head`."""
    return {
        "inputs": network.stages[-1].width,
        "classes": network.num_classes,
        "width": network.head.width,
        "hidden": network.head.hidden,
        "dropout": network.head.dropout,
        **common(network),
    }


def stem_arguments(network: Network) -> dict[str, Any]:
    """Arguments of `blocks.Stem`."""
    return {
        "inputs": 3,
        "outputs": network.stem.width,
        "kernel": network.stem.kernel,
        "stride": network.stem.stride,
        "pool": network.stem.pool,
        **common(network),
    }


def assemble(network: Network) -> blocks.ConvNet:
    """The module with torch's default weights, on torch's default device."""
    stages = [nn.Sequential(*(getattr(blocks, name)(**row) for row in rows)) for name, rows in stage_arguments(network)]
    return blocks.ConvNet(blocks.stem(**stem_arguments(network)), stages, blocks.Head(**head_arguments(network)))


def shaped(network: Network) -> blocks.ConvNet:
    """The module of a network on the CPU, its weights whatever the memory holds: to be counted, or loaded into."""
    with torch.device("meta"):
        module = assemble(network)
    return module.to_empty(device="cpu")


def build(network: Network, *, seed: int = 0) -> blocks.ConvNet:
    """The module of a network on the CPU in training mode, every weight set from `seed`.

    Takes images of shape (batch, 3, resolution, resolution) and returns logits of shape (batch, num_classes).
    """
    module = shaped(network)
    blocks.initialise(module, seed)
    return module
