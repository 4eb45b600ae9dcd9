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
        "activation": network.activation,
        "norm": (network.norm_eps, network.norm_momentum),
    }
    if stage.block in ("mbconv", "bottleneck"):
        arguments["hidden"] = hidden_width(stage, inputs)
    if stage.block == "mbconv":
        arguments["squeezed"] = squeezed_width(stage, inputs) if stage.se_ratio else 0
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


def head_arguments(network: Network) -> dict[str, Any]:
    """Arguments of `blocks.Head`."""
    return {
        "inputs": network.stages[-1].width,
        "classes": network.num_classes,
        "width": network.head.width,
        "dropout": network.head.dropout,
        "activation": network.activation,
        "norm": (network.norm_eps, network.norm_momentum),
    }


def stem_arguments(network: Network) -> dict[str, Any]:
    """Arguments of the stem's `blocks.ConvNorm`."""
    return {
        "inputs": 3,
        "outputs": network.stem.width,
        "kernel": network.stem.kernel,
        "stride": network.stem.stride,
        "activation": network.activation,
        "norm": (network.norm_eps, network.norm_momentum),
    }


def assemble(network: Network) -> blocks.ConvNet:
    """The module with torch's default weights, on torch's default device."""
    stem: nn.Module = blocks.ConvNorm(**stem_arguments(network))
    if network.stem.pool > 1:
        stem = nn.Sequential(stem, nn.MaxPool2d(3, network.stem.pool, padding=1))
    stages = [nn.Sequential(*(getattr(blocks, name)(**row) for row in rows)) for name, rows in stage_arguments(network)]
    return blocks.ConvNet(stem, stages, blocks.Head(**head_arguments(network)))


def build(network: Network, *, seed: int = 0) -> blocks.ConvNet:
    """The module of a network on the CPU in training mode, every weight set from `seed`.

    Takes images of shape (batch, 3, resolution, resolution) and returns logits of shape (batch, num_classes).
    """
    with torch.device("meta"):
        module = assemble(network)
    module.to_empty(device="cpu")
    blocks.initialise(module, seed)
    return module
