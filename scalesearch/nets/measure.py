"""The second way to a network's cost: fvcore on the built module.

fvcore traces a real forward pass: eval mode, batch 1, real tensors (it fails on meta tensors), no gradients.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from scalesearch.blueprint import Blueprint
from scalesearch.cost import OPERATORS, Cost, count_parts
from scalesearch.errors import CostMismatchError, ScalingError
from scalesearch.nets.builder import build_blueprint, said
from scalesearch.nets.network import shaped
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
    module = shaped(network) if module is None else module
    was_training = module.training
    flops, outputs = _analyses(module, network.resolution)
    with _quiet():
        work, activations = flops.by_module_and_operator(), outputs.by_module()
    module.train(was_training)
    found = {}
    for name in ("stem", *(f"stages.{i}" for i in range(len(network.stages))), "head"):
        counted = {operator: int(work[name].get(operator, 0)) for operator in OPERATORS}
        params = sum(weight.numel() for weight in module.get_submodule(name).parameters())
        found[name] = Cost(**counted, params=params, activations=int(activations[name]))
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """One thread, no gradients, and none of the tracing warnings of torch.jit, which fvcore is built on.

    And none of torch's fused attention layers, which fvcore counts as nothing.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with one_thread(), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _analyses(module: nn.Module, resolution: int) -> tuple[FlopCountAnalysis, ActivationCountAnalysis]:
    module.eval()
    image = torch.zeros(1, 3, resolution, resolution)
    flops, outputs = FlopCountAnalysis(module, image), ActivationCountAnalysis(module, image)
    for analysis in (flops, outputs):
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return flops, outputs


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


def measure_blueprint(blueprint: Blueprint, counted: Cost, module: nn.Module | None = None) -> Cost:
    """The cost of a builder's network, once fvcore's multiply-adds equal those counted.

    fvcore counts a few operators as nothing that multiply; they get a formula here.

    Raises:
        CostMismatchError: fvcore counts another number.
    """
    module = build_blueprint(blueprint, seed=0) if module is None else module
    was_training = module.training
    flops, _ = _analyses(module, blueprint.resolution)
    flops.set_op_handle(**MULTIPLYING)
    asked = f"depth={blueprint.depth:g}, width={blueprint.width:g}, resolution={blueprint.resolution}"
    where = f"{blueprint.builder}({asked})"
    try:
        with _quiet():
            found = flops.by_operator()
    except Exception as error:  # noqa: BLE001  the user's code
        fault = f"{where} fails when fvcore traces it: {said(error)}"
        raise ScalingError(fault, mend="make it run in fp32 on a CPU") from None
    module.train(was_training)
    macs = int(sum(value for name, value in found.items() if name not in NOT_MULTIPLYING))
    if macs != counted.macs:
        raise CostMismatchError(part=where, quantity="macs", counted=counted.macs, measured=macs)
    return counted


def _shape(value: Any) -> list[int]:
    return value.type().sizes()


def _same_convolution(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Of a convolution whose padding is a word, such as `same`."""
    return Counter({"conv": math.prod(_shape(inputs[1])) * math.prod([_shape(outputs[0])[0], *_shape(outputs[0])[2:]])})


def _attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Of softmax(query · key) · value."""
    *batch, queries, features = _shape(inputs[0])
    keys, values = _shape(inputs[1])[-2], _shape(inputs[2])[-1]
    return Counter({"matmul": math.prod(batch) * queries * keys * (features + values)})


def _product(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Of a batched matrix product added to something."""
    return Counter({"bmm": math.prod(_shape(inputs[1])) * _shape(inputs[2])[-1]})


MULTIPLYING: dict[str, Any] = {
    "aten::_convolution_mode": _same_convolution,
    "aten::scaled_dot_product_attention": _attention,
    "aten::baddbmm": _product,
}
NOT_MULTIPLYING = (
    "batch_norm", "group_norm", "layer_norm", "instance_norm", "adaptive_avg_pool2d", "upsample_nearest2d",
    "upsample_bilinear2d", "grid_sampler",
)  # fmt: skip
"""What fvcore counts beside convolutions and matrix products."""
