"""The ways of training B0 that `train_step.py` times, ours and timm's, and how near they are to each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import timm
import torch
from stepping import READY, Ours, batches, peak, seconds
from torch import Tensor, nn
from torch.nn import functional

from scalesearch.engine.trial import module_of
from scalesearch.families import find_base
from scalesearch.nets.naming import theirs
from scalesearch.nets.network import build
from scalesearch.proxy.device import DeviceImages
from scalesearch.proxy.step import numerics
from scalesearch.recipe import Recipe, Schedule
from scalesearch.spec import Network

OURS, EAGER, COMPILED = "ours", "timm eager", "timm compiled"
WITHOUT_GRAPH, WITHOUT_KERNELS, WITHOUT_BOTH = "ours, no graph", "ours, no kernels", "ours, neither"
OVERLAID = 8
"""Steps over which losses are compared."""
EXACT = 1e-3
"""In fp32, most relative difference of gradients and of the loss."""
AS_NEAR = 1.25
"""In bf16, most error of gradients against fp32, as a multiple of that of timm's eager way."""
LOSS = 0.01
"""In bf16, most relative difference of the loss to that in fp32."""
OVERLAY = 0.02
"""Most relative difference of the mean loss over the first steps: AdamW's are near the signs of gradients, so that what
is rounding in a gradient is none in a weight."""
RECIPE = Recipe(learning_rate=1e-3, schedule=Schedule((0.0, 1.0), (1.0, 1.0)), average=0.0, near_identity=False)

Gradients = dict[str, Tensor]
"""By timm's names."""


class Way(Protocol):
    """One way to train: calling it trains on the next batch."""

    def __call__(self) -> None:
        """Train on the next batch."""
        ...

    def rate(self, progress: float) -> None:
        """Set the learning rate to that of a point of the schedule; it is zero before."""
        ...

    def losses(self) -> list[float]:
        """The sum over the steps since it was last asked for, alone in a list."""
        ...

    def gradients(self) -> Gradients:
        """Of the last batch."""
        ...


class OurWay(Ours):
    """Our step, with gradients to compare."""

    def __init__(self, network: Network, recipe: Recipe, data: DeviceImages, *, kernels: bool, graph: bool) -> None:
        module = _ours(network, recipe, data.device) if kernels else build(network, seed=0).to(data.device)
        super().__init__(module, recipe, data, graph=graph)
        self._network = network

    def gradients(self) -> Gradients:
        """See `Way`."""
        return _gradients_by_timms_names(self._network, self.state.module)


class TheirWay:
    """timm's network and way of training; compiled where there are arguments for torch.compile."""

    def __init__(
        self, network: Network, recipe: Recipe, data: DeviceImages, *, compiling: Mapping[str, Any] | None
    ) -> None:
        self._model = timm_model(network, data.device)
        self._run: Callable[[Tensor], Tensor] = (
            self._model if compiling is None else torch.compile(self._model, **compiling)
        )
        decayed = [weight for weight in self._model.parameters() if weight.ndim > 1]
        spared = [weight for weight in self._model.parameters() if weight.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": spared, "weight_decay": 0.0}]
        self._optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(recipe.momentum, 0.99), fused=True)
        self._recipe, self._data, self._batches = recipe, data, batches(data, recipe, [0])
        self._done, self._sum = 0, torch.zeros((), device=data.device)

    def __call__(self) -> None:
        """See `Way`."""
        pixels, labels, *_ = self._batches[self._done % len(self._batches)]
        self._done += 1
        self._optimizer.zero_grad()
        with numerics(self._data.device):
            loss = _loss(self._run(self._data.normalised(pixels)), labels[0], self._recipe)
        loss.backward()
        self._optimizer.step()
        self._sum += loss.detach()

    def rate(self, progress: float) -> None:
        """See `Way`."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._recipe.learning_rate * self._recipe.schedule(progress)

    def losses(self) -> list[float]:
        """See `Way`."""
        found = [self._sum.item()]
        self._sum.zero_()
        return found

    def gradients(self) -> Gradients:
        """See `Way`."""
        return _gradients(self._model)


def timm_model(network: Network, device: torch.device) -> nn.Module:
    """B0 of timm with the weights that ours starts from."""
    model = timm.create_model("efficientnet_b0", num_classes=network.num_classes)
    model.load_state_dict(theirs(network, build(network, seed=0).state_dict(), "timm"))
    return model.to(device).to(memory_format=torch.channels_last).train()


def _ours(network: Network, recipe: Recipe, device: torch.device) -> nn.Module:
    """The network as a GPU trains it; a dry run has plain layers, as those for a CPU are another matter."""
    return module_of(network, recipe, [0], device) if device.type == "cuda" else build(network, seed=0)


def _gradients(module: nn.Module) -> Gradients:
    """By the module's own names."""
    return {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}


def _gradients_by_timms_names(network: Network, module: nn.Module) -> Gradients:
    named = theirs(network, module.state_dict() | _gradients(module), "timm")
    return {name: value for name, value in named.items() if "running" not in name and "tracked" not in name}


def _loss(logits: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    return functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)


@dataclass(frozen=True, slots=True)
class Exact:
    """What the first `READY` batches give in fp32 at the weights of the start."""

    loss: float
    """Mean over them."""
    gradients: Gradients
    """Of the last of them."""


def timms_exact(network: Network, recipe: Recipe, data: DeviceImages) -> Exact:
    """By timm's network: what every way is held against."""
    model = timm_model(network, data.device)
    loss = _fp32_loss(model, recipe, data)
    return Exact(loss, _gradients(model))


def our_exact(network: Network, recipe: Recipe, data: DeviceImages) -> Exact:
    """By our network, on a GPU through our kernels: in bf16 rounding would hide what they do wrong."""
    module = _ours(network, recipe, data.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss = _fp32_loss(module.train(), recipe, data)
    return Exact(loss, _gradients_by_timms_names(network, module))


def _fp32_loss(module: nn.Module, recipe: Recipe, data: DeviceImages) -> float:
    """Mean loss over the first batches; the gradients of the last one stay in the module."""
    losses: list[float] = []
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False):
        for pixels, labels, *_ in batches(data, recipe, [0])[:READY]:
            module.zero_grad()
            loss = _loss(module(data.normalised(pixels)), labels[0], recipe)
            loss.backward()
            losses.append(loss.item())
    return sum(losses) / READY


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A way that is ready: built, compiled, captured."""

    way: Way
    first: float
    """From nothing to the end of the first step [s]."""
    ready: float
    """From nothing to the end of step `READY` [s]."""
    memory: float | None
    """Most in these steps [GiB]; None on a CPU."""


def started(make: Callable[[], Way], device: torch.device) -> Started:
    """Make a way and train `READY` steps at a learning rate of zero."""
    made: list[Way] = []

    def begin() -> None:
        made.append(make())
        made[0]()

    memory: list[float | None] = []
    with peak(device, memory):
        first = seconds(begin, device)
        rest = seconds(lambda: [made[0]() for _ in range(READY - 1)], device)
    return Started(way=made[0], first=first, ready=first + rest, memory=memory[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How near a way is to the others."""

    gradients: float
    """Relative difference of all gradients to those in fp32."""
    loss: float
    """Relative difference of the loss to that in fp32, at the weights of the start."""
    overlay: float = 0.0
    """Relative difference of the mean loss over `OVERLAID` steps to that of timm's eager way."""


def agreements(ways: Mapping[str, Started], true: Exact) -> dict[str, Agreement]:
    """Of every way that has been started; each trains `OVERLAID` steps for it."""
    first = {
        name: agreement(Exact(one.way.losses()[0] / READY, one.way.gradients()), true) for name, one in ways.items()
    }
    overlaid = {name: overlaid_loss(one.way) for name, one in ways.items()}
    return {name: replace(one, overlay=abs(overlaid[name] / overlaid[EAGER] - 1)) for name, one in first.items()}


def agreement(found: Exact, true: Exact) -> Agreement:
    """At the weights of the start."""
    return Agreement(gradients=apart(found.gradients, true.gradients), loss=abs(found.loss / true.loss - 1))


def apart(found: Gradients, true: Gradients) -> float:
    """Norm of the difference over the norm, of all gradients together."""
    if found.keys() != true.keys():
        return float("inf")
    square = sum(float((found[name].double() - value.double()).square().sum()) for name, value in true.items())
    return (square / sum(float(value.double().square().sum()) for value in true.values())) ** 0.5


def overlaid_loss(way: Way) -> float:
    """Mean over the first steps with a learning rate."""
    way.rate(0.5)
    for _ in range(OVERLAID):
        way()
    return way.losses()[0] / OVERLAID


def disagreements(found: Mapping[str, Agreement], *, gradients: float, loss: float) -> Iterator[str]:
    """What is farther apart than it may be; NaN is."""
    for name, one in found.items():
        for what, value, most in (
            ("gradients", one.gradients, gradients),
            ("loss", one.loss, loss),
            ("loss while training", one.overlay, OVERLAY),
        ):
            if not value <= most:
                yield f"WRONG: {name}: {what} {value:.2g} apart, at most {most:.2g}"


def network_at(resolution: int) -> Network:
    """B0 with timm's batch norm and without what draws random numbers."""
    b0 = find_base("b0").network
    calm = replace(b0, head=replace(b0.head, dropout=0.0), drop_path=0.0, norm_eps=1e-5, norm_momentum=0.1)
    return replace(calm, resolution=resolution)


def ways_of(network: Network, recipe: Recipe, data: DeviceImages, backend: str) -> dict[str, Callable[[], Way]]:
    """Every way, to be made."""
    ours = partial(OurWay, network, recipe, data)
    timms = partial(TheirWay, network, recipe, data)
    mode = {"mode": "max-autotune"} if backend == "inductor" else {}
    return {
        OURS: partial(ours, kernels=True, graph=True),
        WITHOUT_GRAPH: partial(ours, kernels=True, graph=False),
        WITHOUT_KERNELS: partial(ours, kernels=False, graph=True),
        WITHOUT_BOTH: partial(ours, kernels=False, graph=False),
        EAGER: partial(timms, compiling=None),
        COMPILED: partial(timms, compiling={"backend": backend, **mode}),
    }
