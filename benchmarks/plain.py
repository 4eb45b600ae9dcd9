"""What a user would write: an eager loop of torch's own parts that trains a network by a proxy's recipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, update_bn

from scalesearch.nets.architecture import build
from scalesearch.nets.blocks import start_near_identity
from scalesearch.proxy.device import DeviceImages, Resident
from scalesearch.proxy.draws import epoch_seed, steps_per_epoch
from scalesearch.proxy.evaluate import NORM_BATCH
from scalesearch.proxy.train import Training, finite
from scalesearch.recipe import EpochResult, Recipe
from scalesearch.spec import Network

Batches = Iterable[tuple[Tensor, Tensor]]
"""Normalised images (batch, 3, resolution, resolution) and labels (batch,)."""
Parameters = tuple[Tensor, ...] | list[Tensor]
TOLERANCE = {"cpu": 2e-3, "cuda": 3e-2}
"""Largest relative difference of a loss in the first steps: fp32 sums in another order, bf16 rounds elsewhere."""
EVALUATED = 250
"""Images per step without gradients."""


def module_of(network: Network, recipe: Recipe, seed: int) -> nn.Module:
    """The network with the weights that ours starts from."""
    module = build(network, seed=seed)
    if recipe.near_identity:
        start_near_identity(module)
    return module


class Loop:
    """A module with torch's AdamW, LambdaLR and AveragedModel: fp32 on a CPU, bf16 autocast on a GPU."""

    def __init__(self, module: nn.Module, recipe: Recipe, *, steps: int) -> None:
        """Start a run of so many steps from the weights that the module has."""
        self.module, self._recipe = module, recipe
        self.device = next(module.parameters()).device
        decayed = [weight for weight in module.parameters() if weight.ndim > 1]
        spared = [weight for weight in module.parameters() if weight.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": spared, "weight_decay": 0.0}]
        self._optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(recipe.momentum, 0.99))
        self._rates = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: recipe.schedule((step + 0.5) / steps)
        )
        self._horizon, self._done = max(1.0, recipe.average * steps), 0
        self._averaged = AveragedModel(module, multi_avg_fn=self._average)

    def _average(self, means: Parameters, weights: Parameters, _: object) -> None:
        torch._foreach_lerp_(list(means), list(weights), 1 / min(self._horizon, self._done))  # pyright: ignore[reportPrivateImportUsage]

    def _numerics(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def train(self, batches: Batches) -> float:
        """Mean loss over the steps of an epoch."""
        self.module.train()
        losses = []
        for images, labels in batches:
            with self._numerics():
                logits = self.module(images)
                loss = functional.cross_entropy(logits, labels, label_smoothing=self._recipe.label_smoothing)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            self._rates.step()
            self._done += 1
            self._averaged.update_parameters(self.module)
            losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    @torch.no_grad()
    def evaluate(self, norms: Iterable[Tensor], batches: Batches) -> tuple[float, float]:
        """Accuracy [%] and loss [nats] of the averaged weights, their batch-norm statistics measured first."""
        with self._numerics():
            update_bn(norms, self._averaged)
        self._averaged.eval()
        correct, loss, total = 0, 0.0, 0
        for images, labels in batches:
            with self._numerics():
                logits = self._averaged(images).float()
            correct += int((logits.argmax(1) == labels).sum())
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
            total += len(labels)
        return 100 * correct / total, loss / total

    def state(self) -> dict[str, Any]:
        """What a checkpoint of it holds."""
        parts = {"module": self.module, "averaged": self._averaged, "optimizer": self._optimizer, "rates": self._rates}
        return {name: part.state_dict() for name, part in parts.items()}


@dataclass(frozen=True, slots=True)
class InMemory:
    """Images as normalised floats."""

    train_images: Tensor
    train_labels: Tensor
    validation_images: Tensor
    validation_labels: Tensor
    norm_images: Tensor

    @classmethod
    def of(cls, data: DeviceImages, recipe: Recipe, memory_format: torch.memory_format) -> InMemory:
        """The same images that ours trains on, made ready once."""
        assert isinstance(data.train, Resident)
        assert isinstance(data.validation, Resident)
        train, validation = (
            data.normalised(part.images).contiguous(memory_format=memory_format)
            for part in (data.train, data.validation)
        )
        norms = train[data.sample(recipe.norm_images).to(data.device)].contiguous(memory_format=memory_format)
        return cls(train, data.train_labels, validation, data.validation_labels, norms)

    def epoch(self, seed: int, epoch: int, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, in the order in which ours sees them without augmentation."""
        order = torch.randperm(len(self.train_labels), generator=torch.Generator().manual_seed(epoch_seed(seed, epoch)))
        for chosen in order.split(recipe.batch_size)[: steps_per_epoch(len(order), recipe)]:
            chosen = chosen.to(self.train_images.device)
            yield self.train_images[chosen], self.train_labels[chosen]

    def validation(self) -> Batches:
        """The validation images."""
        return zip(self.validation_images.split(EVALUATED), self.validation_labels.split(EVALUATED), strict=True)


def trained(loop: Loop, data: InMemory, recipe: Recipe, *, epochs: int, seed: int) -> Iterator[EpochResult]:
    """Train on images in memory, without augmentation, and evaluate after every epoch."""
    parts = -(-len(data.norm_images) // NORM_BATCH[data.norm_images.device.type])  # the same statistics as ours
    for epoch in range(epochs):
        torch.manual_seed(epoch_seed(seed, epoch))  # of dropout
        train_loss = loop.train(data.epoch(seed, epoch, recipe))
        accuracy, loss = loop.evaluate(data.norm_images.tensor_split(parts), data.validation())
        yield EpochResult(epoch=epoch + 1, train_loss=train_loss, accuracy=accuracy, loss=loss)


def disagreement(ours: nn.Module, theirs: nn.Module, data: DeviceImages, recipe: Recipe, *, epochs: int) -> float:
    """The largest relative difference of a training or validation loss between our training and the plain loop.

    Args:
        ours: our module, on its device; a GPU repeats its step from a graph, as in a trial.
        theirs: the plain one with the same weights, in the memory format of the loop.
        data: what both are trained on; every epoch has so many steps as it has batches.
        recipe: without augmentation.
        epochs: after each of them losses are compared.
    """
    training = Training(ours, data, recipe, epochs=epochs, seeds=[0], capture=True)
    loop = Loop(theirs, recipe, steps=epochs * steps_per_epoch(len(data.train_labels), recipe))
    plain = trained(loop, InMemory.of(data, recipe, torch.contiguous_format), recipe, epochs=epochs, seed=0)
    return max(
        abs(getattr(finite(one), name) / getattr(finite(other), name) - 1)
        for [one], other in zip(training.results(), plain, strict=True)
        for name in ("train_loss", "loss")
    )


def refusal(difference: float, most: float) -> str:
    """Why nothing is trained any further; empty where the losses of the first steps agree."""
    if difference <= most:
        return ""
    return f"WRONG: losses of the first steps differ by {difference:.2g}, at most {most:g}"
