"""One short training as a generator of `EpochResult`: batched augmentation on the device, schedules on progress.

Numerics: bf16 autocast on a GPU, fp32 on a CPU, channels_last on both (measured: the fastest there). Every random
number comes from (seed, epoch), so a training resumed at an epoch continues with the bits it would have had.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from scalesearch.errors import TrialDivergedError
from scalesearch.proxy.device import DeviceImages
from scalesearch.recipe import EpochResult, Recipe

EVALUATION_BATCH = 500
"""Images per step without gradients."""


class Training:
    """A module with its optimizer and average, advanced epoch by epoch; `tensors` is all that a checkpoint needs."""

    def __init__(self, module: nn.Module, recipe: Recipe, *, steps: int) -> None:
        self.module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe = recipe
        self.steps = steps
        self.epoch = 0
        self.optimizer = _optimizer(module, recipe)
        self.averaged = _averaged(module, recipe, steps)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state, under flat names."""
        found = {f"module.{name}": value for name, value in self.module.state_dict().items()}
        if self.averaged is not None:
            found |= {f"averaged.{name}": value for name, value in self.averaged.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        return found

    def restore(self, tensors: dict[str, Tensor], epoch: int) -> None:
        """Take up the state that `tensors` gave after `epoch` epochs."""
        self.module.load_state_dict(_under("module.", tensors))
        if self.averaged is not None:
            self.averaged.load_state_dict(_under("averaged.", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimizer.", tensors).items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})
        self.epoch = epoch


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    decayed = [weight for weight in module.parameters() if weight.ndim > 1]
    spared = [weight for weight in module.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(recipe.momentum, 0.99))


def _averaged(module: nn.Module, recipe: Recipe, steps: int) -> AveragedModel | None:
    if not recipe.average:
        return None
    decay = 1 - 1 / max(1.0, recipe.average * steps)
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay))


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
        TrialDivergedError: from the iterator, when an epoch's loss is not finite.
    """
    training = Training(module, recipe, steps=epochs * steps_per_epoch(len(data.train_labels), recipe))
    return training, _epochs(training, data, epochs=epochs, seed=seed)


def _epochs(training: Training, data: DeviceImages, *, epochs: int, seed: int) -> Iterator[EpochResult]:
    while training.epoch < epochs:
        train_loss = _train_epoch(training, data, seed=seed)
        training.epoch += 1
        if not math.isfinite(train_loss):
            raise TrialDivergedError(epoch=training.epoch)
        accuracy, loss = evaluate(training, data)
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
        rate = recipe.learning_rate * recipe.schedule((training.epoch * steps + step + 0.5) / training.steps)
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
        if training.averaged is not None:
            training.averaged.update_parameters(module)
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
    """Running statistics as the plain mean over `norm_images` training images, one batch at a time."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
        norm.train()
    images = data.train_images[: recipe.norm_images]
    module.eval()
    for norm in norms:
        norm.train()
    batch = max(2, min(recipe.norm_images, 256))
    for start in range(0, max(1, len(images) - batch + 1), batch):
        with _numerics(images.device):
            module(data.normalised(images[start : start + batch]))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
