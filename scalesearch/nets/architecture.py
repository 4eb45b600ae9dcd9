"""Either kind of network as a module, and its confirmed cost."""

from __future__ import annotations

from torch import nn

from scalesearch.blueprint import Architecture, Blueprint
from scalesearch.cost import Cost
from scalesearch.nets.builder import build_blueprint
from scalesearch.nets.measure import measure as measure_network
from scalesearch.nets.measure import measure_blueprint
from scalesearch.nets.network import build as build_network


def build(network: Architecture, *, seed: int = 0) -> nn.Module:
    """The module of a network on the CPU in training mode, every weight set from `seed`.

    Takes images of shape (batch, 3, resolution, resolution) and returns logits of shape (batch, num_classes).
    """
    if isinstance(network, Blueprint):
        return build_blueprint(network, seed=seed)
    return build_network(network, seed=seed)


def measure(network: Architecture, counted: Cost, module: nn.Module | None = None) -> Cost:
    """The cost of a network by fvcore, once it equals what was counted.

    Raises:
        CostMismatchError: the two counts differ.
    """
    if isinstance(network, Blueprint):
        return measure_blueprint(network, counted, module)
    return measure_network(network, module)
