"""One short training as a generator of `EpochResult`; several seeds of one architecture may be trained as one.

Numerics: bf16 autocast on a GPU, fp32 on a CPU, channels_last on both. Every random number comes from (seed, epoch), so
a training resumed behind any step draws what it would have drawn, and on a CPU has the bits it would have had.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from scalesearch.errors import DataError, TrialDivergedError
from scalesearch.proxy.checkpoint import unwrapped, wrapped
from scalesearch.proxy.device import DeviceImages
from scalesearch.proxy.draws import draw, epoch_seed, steps_per_epoch
from scalesearch.proxy.evaluate import evaluating
from scalesearch.proxy.ranks import ALONE, Ranks
from scalesearch.proxy.state import State
from scalesearch.proxy.step import Step
from scalesearch.recipe import EpochResult, Recipe


class _Over(Exception):
    """The first rank has ended."""


class Training:
    """Trainings of one length, advanced epoch by epoch, beside each other in one module."""

    def __init__(
        self,
        module: nn.Module,
        data: DeviceImages,
        recipe: Recipe,
        *,
        epochs: int,
        seeds: Sequence[int],
        micro_batch: int | None = None,
        capture: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        """Set up trainings from the weights that the module has.

        Args:
            module: the network of the one seed, or the stacked networks of several, on the device of the images.
            data: training and validation images at the network's resolution.
            recipe: hyper-parameters.
            epochs: length of the run.
            seeds: of each training: fixes its order and augmentation, and the first one's dropout.
            micro_batch: most images of a seed in flight at a time; None = a whole batch.
            capture: whether a GPU may repeat a step from a graph: not if the module's forward pass is anybody's code.
            ranks: processes that train it together; the first goes through `steps`, the others `follow`.

        Raises:
            DataError: fewer than two training images, of which batch norm knows no statistics.
        """
        images = len(data.train_labels)
        if images < 2:
            raise DataError(f"{images} training images", mend="a proxy needs at least 2")
        batch = min(recipe.batch_size, images)
        self.state = State(module, recipe, seeds=len(seeds), micro_batch=micro_batch)
        self.epoch = self.step = 0
        """Epochs that are trained and evaluated, and steps of all epochs."""
        self._data, self._epochs, self._seeds, self._ranks = data, epochs, tuple(seeds), ranks
        self._steps = steps_per_epoch(images, recipe)
        self._step = Step(self.state, data, batch=batch, capture=capture, ranks=ranks)

    def tensors(self) -> dict[str, Tensor]:
        """All that a checkpoint needs besides `epoch` and `step`: live tensors, to be copied before training on."""
        return self.state.tensors() | {"losses": self._step.losses} | _random_state(self._data.device)

    def fits(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether `tensors` are those of such a training."""
        own = {name for name in self.tensors() if not name.startswith("optimizer.")}  # which has none before a step
        return self.state.fits(tensors) and own == {name for name in tensors if not name.startswith("optimizer.")}

    def restore(self, tensors: Mapping[str, Tensor], *, epoch: int, step: int) -> None:
        """Go on from copies of what `tensors` gave behind a step."""
        self.state.restore(tensors)
        self._step.losses.copy_(tensors["losses"])
        _restore_random_state(tensors, self._data.device)
        self.epoch, self.step = epoch, step

    def results(self) -> Iterator[list[EpochResult]]:
        """Train the epochs that are left; yields the results of each seed, which need not be finite."""
        return (found for found in self.steps() if found is not None)

    def steps(self) -> Iterator[list[EpochResult] | None]:
        """Train the epochs that are left: as `results`, with None behind each step and each batch of an evaluation.

        Whenever it yields, a checkpoint may be made. One made during an evaluation begins that again.
        """
        while self.epoch < self._epochs:
            train_losses = yield from self._train_epoch()
            measured = yield from evaluating(self.state, self._data)
            self.epoch += 1
            yield [
                EpochResult(epoch=self.epoch, train_loss=train_loss, accuracy=accuracy, loss=loss)
                for train_loss, accuracy, loss in zip(train_losses, *measured, strict=True)
            ]

    def share(self) -> None:
        """Have every rank where the first one is, behind which all train the same steps."""
        if self._ranks.count == 1:
            return
        here = b"" if self._ranks.rank else wrapped(self.tensors(), epoch=self.epoch, step=self.step)
        about, tensors = unwrapped(self._ranks.told(here))
        if self._ranks.rank:
            self.restore(tensors, epoch=about["epoch"], step=about["step"])

    def follow(self) -> None:
        """Train what the first rank trains, until it ends."""
        self.share()
        with suppress(_Over):
            while True:
                for _ in self._train_epoch():
                    pass
                self.epoch += 1

    def end(self) -> None:
        """Have the other ranks end."""
        self._ranks.goes_on(is_over=True)

    def _train_epoch(self) -> Generator[None, None, list[float]]:
        """Train what is left of an epoch; returns the mean loss of each seed over its steps."""
        count, _, side = self._data.train.shape
        draws = draw(self._seeds, self.epoch, images=count, side=side, recipe=self.state.recipe)
        trained = self.step - self.epoch * self._steps
        if not trained:
            torch.manual_seed(epoch_seed(self._seeds[0], self.epoch))  # of dropout inside the module
            self._step.losses.zero_()
        self.state.module.train()
        device = self._data.device
        labels = self._data.train_labels[draws.order.to(device)]
        shifts, mirrored = draws.shifts.to(device), draws.mirrored.to(device)
        for index, pixels in enumerate(self._data.train.feed(draws.order.flatten(1)[trained:]), trained):
            if not self._ranks.goes_on():
                raise _Over
            self._ranks.draw_apart(self._seeds[0], self.step)
            self.state.advance(self.step, self._epochs * self._steps)
            self._step(pixels, labels[index], shifts[index], mirrored[index])
            self.step += 1
            yield
        return (self._step.losses / self._steps).tolist()


def _random_state(device: torch.device) -> dict[str, Tensor]:
    """Of the generators that a module may draw from."""
    found = {"random.cpu": torch.get_rng_state()}
    return found | ({"random.cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _restore_random_state(tensors: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(tensors["random.cpu"].clone())
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"].clone(), device)


def train(
    module: nn.Module, data: DeviceImages, recipe: Recipe, *, epochs: int, seed: int
) -> tuple[Training, Iterator[EpochResult]]:
    """Set up the training of one seed; the iterator advances it, starting behind `training.epoch`.

    Raises:
        DataError: fewer than two training images.
        TrialDivergedError: from the iterator, when an epoch's training or validation loss is not finite.
    """
    training = Training(module, data, recipe, epochs=epochs, seeds=[seed])
    return training, (finite(result) for [result] in training.results())


def finite(result: EpochResult) -> EpochResult:
    """The result of an epoch.

    Raises:
        TrialDivergedError: a loss in it is not finite.
    """
    if not math.isfinite(result.train_loss + result.loss):
        raise TrialDivergedError(epoch=result.epoch)
    return result
