"""The second way to a network's cost: fvcore on the built module.

fvcore traces a real forward pass: eval mode, batch 1, real tensors (it fails on meta tensors), no gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from scalesearch.cost import OPERATORS, Cost, count_parts
from scalesearch.errors import CostMismatchError
from scalesearch.nets.network import build
from scalesearch.spec import Network

with warnings.catch_warnings():  # fvcore decorates with torch.jit.script, which newer torch deprecates
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: a single pass gains little from more, and on a busy machine they wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def measure_parts(network: Network, module: nn.Module | None = None) -> dict[str, Cost]:
    """The cost of stem, each stage and head by fvcore, in `count_parts`' form.

    Args:
        network: the value; its resolution is the side of the traced image [px].
        module: the built network, where it exists already; its mode is restored.
    """
    module = build(network) if module is None else module
    was_training = module.training
    module.eval()
    image = torch.zeros(1, 3, network.resolution, network.resolution)
    with one_thread(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warnings of torch.jit, which fvcore is built on
        flops = FlopCountAnalysis(module, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        outputs = (
            ActivationCountAnalysis(module, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        )
        work, activations = flops.by_module_and_operator(), outputs.by_module()
    module.train(was_training)
    found = {}
    for name in ("stem", *(f"stages.{i}" for i in range(len(network.stages))), "head"):
        counted = {operator: int(work[name].get(operator, 0)) for operator in OPERATORS}
        params = sum(weight.numel() for weight in module.get_submodule(name).parameters())
        found[name] = Cost(**counted, params=params, activations=int(activations[name]))
    return found


def measure(network: Network, module: nn.Module | None = None) -> Cost:
    """The cost of a network by fvcore, once it equals the closed form in every operator of every part.

    Raises:
        CostMismatchError: the two counts differ; names the first part and quantity that do.
    """
    measured, counted = measure_parts(network, module), count_parts(network)
    for part, cost in measured.items():
        for quantity in Cost.__slots__:
            if getattr(cost, quantity) != getattr(counted[part], quantity):
                raise CostMismatchError(
                    part=part,
                    quantity=quantity,
                    counted=getattr(counted[part], quantity),
                    measured=getattr(cost, quantity),
                )
    return sum(measured.values(), Cost())
