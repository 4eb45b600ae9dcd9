"""One short training as a generator of `EpochResult`: batched augmentation on the device, schedules on progress.

Numerics: bf16 autocast on a GPU, fp32 on a CPU, channels_last on both. Every random number comes from (seed, epoch),
so a training resumed at an epoch continues with the bits it would have had.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

from scalesearch.errors import DataError, TrialDivergedError
from scalesearch.proxy.device import DeviceImages
from scalesearch.recipe import EpochResult, Recipe

EVALUATION_BATCH = 250
"""Images per step without gradients."""


class Training:
    """A module with its optimizer and average, advanced epoch by epoch; `tensors` is all that a checkpoint needs."""

    def __init__(self, module: nn.Module, recipe: Recipe, *, steps: int) -> None:
        self.module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe = recipe
        self.steps = steps
        self.epoch = 0
        self.optimizer = _optimizer(module, recipe)
        self.averaged = copy.deepcopy(module).requires_grad_(False) if recipe.average else None

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state, under flat names: the live ones, to be written or cloned before training on."""
        found = {f"module.{name}": value for name, value in self.module.state_dict().items()}
        if self.averaged is not None:
            found |= {f"averaged.{name}": value for name, value in self.averaged.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        return found

    def restore(self, tensors: dict[str, Tensor], epoch: int) -> None:
        """Take up copies of the state that `tensors` gave after `epoch` epochs."""
        self.module.load_state_dict(_under("module.", tensors))
        if self.averaged is not None:
            self.averaged.load_state_dict(_under("averaged.", tensors))
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimizer.", tensors).items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = _laid_out_as(weights[int(index)], value)
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})
        self.epoch = epoch


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _laid_out_as(weight: Tensor, value: Tensor) -> Tensor:
    # fused optimizers walk through weight and state in memory order, and a file gives contiguous tensors back
    if value.shape != weight.shape:
        return value.clone()
    return torch.empty_like(weight, dtype=value.dtype, requires_grad=False).copy_(value)


def _optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    decayed = [weight for weight in module.parameters() if weight.ndim > 1]
    spared = [weight for weight in module.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    rate, momentum = recipe.learning_rate, recipe.momentum
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0, fused=True)
    return torch.optim.AdamW(groups, lr=rate, betas=(momentum, 0.99), fused=True)


def _average(training: Training, step: int) -> None:
    """Move the average towards the weights after step `step` of the run: a plain mean first, then exponential.

    The mean over the first steps keeps the starting weights out of an average that is read early.
    """
    if training.averaged is None:
        return
    horizon = max(1.0, training.recipe.average * training.steps)
    decay = 1 - 1 / min(horizon, step + 1)
    get_ema_multi_avg_fn(decay)(list(training.averaged.parameters()), list(training.module.parameters()), step)


def steps_per_epoch(images: int, recipe: Recipe) -> int:
    """Full batches of one epoch; a set smaller than a batch is one batch."""
    return max(1, images // recipe.batch_size)


def train(
    module: nn.Module, data: DeviceImages, recipe: Recipe, *, epochs: int, seed: int
) -> tuple[Training, Iterator[EpochResult]]:
    """Set up a training of `epochs` epochs; the iterator advances it, starting behind `training.epoch`.

    Args:
        module: the network, already on the device of the images.
        data: training and validation images at the network's resolution.
        recipe: hyper-parameters.
        epochs: length of the run.
        seed: fixes order, augmentation and dropout.

    Returns:
        The training, to be saved or restored between epochs, and the iterator over the epochs that are left.

    Raises:
        DataError: fewer than two training images, of which batch norm knows no statistics.
        TrialDivergedError: from the iterator, when an epoch's training or validation loss is not finite.
    """
    if len(data.train_labels) < 2:
        raise DataError(f"{len(data.train_labels)} training images", mend="a proxy needs at least 2")
    training = Training(module, recipe, steps=epochs * steps_per_epoch(len(data.train_labels), recipe))
    return training, _epochs(training, data, epochs=epochs, seed=seed)


def _epochs(training: Training, data: DeviceImages, *, epochs: int, seed: int) -> Iterator[EpochResult]:
    while training.epoch < epochs:
        train_loss = _train_epoch(training, data, seed=seed)
        training.epoch += 1
        accuracy, loss = evaluate(training, data)
        if not math.isfinite(train_loss + loss):
            raise TrialDivergedError(epoch=training.epoch)
        yield EpochResult(epoch=training.epoch, train_loss=train_loss, accuracy=accuracy, loss=loss)


def _train_epoch(training: Training, data: DeviceImages, *, seed: int) -> float:
    module, recipe, device = training.module.train(), training.recipe, data.train_images.device
    # one stream of random numbers for order and augmentation, the global one for dropout inside the module
    epoch_seed = seed * 1_000_003 + training.epoch
    generator = torch.Generator(device=device).manual_seed(epoch_seed)
    torch.manual_seed(epoch_seed)
    steps = steps_per_epoch(len(data.train_labels), recipe)
    order = torch.randperm(len(data.train_labels), generator=generator, device=device)
    total = torch.zeros((), device=device)
    for step in range(steps):
        batch = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        done = training.epoch * steps + step
        rate = recipe.learning_rate * recipe.schedule((done + 0.5) / training.steps)
        for group in training.optimizer.param_groups:
            group["lr"] = rate
        images = data.augmented(batch, recipe, generator)
        with _numerics(device):
            loss = functional.cross_entropy(
                module(images), data.train_labels[batch], label_smoothing=recipe.label_smoothing
            )
        training.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        training.optimizer.step()
        _average(training, done)
        total += loss.detach()
    return float(total) / steps


def _numerics(device: torch.device) -> AbstractContextManager[object]:
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


@torch.no_grad()
def evaluate(training: Training, data: DeviceImages) -> tuple[float, float]:
    """Accuracy [%] and cross-entropy [nats] on the validation images, with batch-norm statistics re-estimated first."""
    module = training.module if training.averaged is None else training.averaged
    device = data.train_images.device
    _estimate_norms(module, data, training.recipe)
    module.eval()
    correct = torch.zeros((), dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    for start in range(0, len(data.validation_labels), EVALUATION_BATCH):
        chosen = slice(start, start + EVALUATION_BATCH)
        labels = data.validation_labels[chosen]
        with _numerics(device):
            logits = module(data.normalised(data.validation_images[chosen]))
        correct += (logits.argmax(1) == labels).sum()
        loss += functional.cross_entropy(logits.float(), labels, reduction="sum")
    total = len(data.validation_labels)
    return 100 * int(correct) / total, float(loss) / total


def _estimate_norms(module: nn.Module, data: DeviceImages, recipe: Recipe) -> None:
    """Running statistics as the plain mean over batches of `norm_images` training images, the same at every call."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
        norm.train()
    for images in norm_batches(data, recipe):
        with _numerics(images.device):
            module(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def norm_batches(data: DeviceImages, recipe: Recipe) -> Iterator[Tensor]:
    """The normalised images that batch-norm statistics are measured on, in batches that differ by one image at most."""
    chosen = data.sample(recipe.norm_images)
    for part in chosen.tensor_split(math.ceil(len(chosen) / EVALUATION_BATCH)):
        yield data.normalised(data.train_images[part])
