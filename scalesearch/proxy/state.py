"""All that changes while a proxy is trained: its module, the optimizer, the average of its weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scalesearch.recipe import Recipe


class State:
    """A module with its optimizer and average; `tensors` is all that a checkpoint needs."""

    def __init__(self, module: nn.Module, recipe: Recipe, *, seeds: int = 1, micro_batch: int | None = None) -> None:
        """Start from the weights that the module has.

        Args:
            module: one network, or as many as there are seeds, stacked; on the device of its training.
            recipe: hyper-parameters.
            seeds: networks in the module.
            micro_batch: most images of a seed in flight at a time; None = a whole batch.
        """
        self.module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe = recipe
        self.seeds = seeds
        self.micro_batch = micro_batch
        device = next(module.parameters()).device
        self._rate = torch.zeros((), device=device)
        self._toward = torch.zeros((), device=device)
        self.optimizer = _optimizer(module, recipe, self._rate)
        self.averaged = copy.deepcopy(module).requires_grad_(False) if recipe.average else None

    @property
    def size(self) -> int:
        """About what a checkpoint takes: weights, their average and two moments [bytes]."""
        return 4 * sum(weight.numel() * weight.element_size() for weight in self.module.parameters())

    @property
    def evaluated(self) -> nn.Module:
        """The module that is judged: the averaged one if there is an average."""
        return self.module if self.averaged is None else self.averaged

    def advance(self, step: int, steps: int) -> None:
        """Set the learning rate and the weight of the average for a step of a run of so many steps.

        The average is a plain mean over the first steps, then exponential: the mean keeps the starting weights out of
        an average that is read early.
        """
        self._rate.fill_(self.recipe.learning_rate * self.recipe.schedule((step + 0.5) / steps))
        self._toward.fill_(1 / min(max(1.0, self.recipe.average * steps), step + 1))

    @torch.no_grad()
    def average(self) -> None:
        """Move the average towards the weights, as `advance` has set it."""
        if self.averaged is None:
            return
        means: list[Tensor] = list(self.averaged.parameters())
        weights: list[Tensor] = list(self.module.parameters())
        if self._toward.device.type == "cpu":
            for mean, weight in zip(means, weights, strict=True):
                mean.lerp_(weight, self._toward)
        else:  # a few launches for all weights, where each of its own would cost as much as the convolutions
            torch._foreach_mul_(means, 1 - self._toward)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_add_(means, torch._foreach_mul(weights, self._toward))  # pyright: ignore[reportPrivateImportUsage]

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state, under flat names: the live ones, to be written or cloned before training on."""
        found = {f"module.{name}": value for name, value in self.module.state_dict().items()}
        if self.averaged is not None:
            found |= {f"averaged.{name}": value for name, value in self.averaged.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        return found

    def fits(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether `tensors` are the state of such a module."""

        def shapes(found: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
            return {name: tuple(one.shape) for name, one in found.items() if name.startswith(("module.", "averaged."))}

        return shapes(self.tensors()) == shapes(tensors)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up copies of the state that `tensors` gave."""
        self.module.load_state_dict(_under("module.", tensors))
        if self.averaged is not None:
            self.averaged.load_state_dict(_under("averaged.", tensors))
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimizer.", tensors).items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = _laid_out_as(weights[int(index)], value)
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate  # loading has put a copy in its place


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _laid_out_as(weight: Tensor, value: Tensor) -> Tensor:
    # fused optimizers walk through weight and state in memory order, and a file gives contiguous tensors back
    if value.shape != weight.shape:
        return value.clone()
    return torch.empty_like(weight, dtype=value.dtype, requires_grad=False).copy_(value)


def _optimizer(module: nn.Module, recipe: Recipe, rate: Tensor) -> torch.optim.Optimizer:
    decayed = [weight for weight in module.parameters() if weight.ndim > 1]
    spared = [weight for weight in module.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    momentum = recipe.momentum
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0, fused=True)
    is_gpu = rate.device.type == "cuda"
    return torch.optim.AdamW(groups, lr=rate, betas=(momentum, 0.99), fused=True, capturable=is_gpu)
