"""What a user would write: a training on PIL images under torchvision's transforms, from DataLoaders with workers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from plain import Batches, Loop, module_of
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms

from scalesearch.plan import Plan
from scalesearch.proxy.device import NORMALISATION_IMAGES, resized
from scalesearch.proxy.draws import padding
from scalesearch.proxy.images import Images, open_images
from scalesearch.spec import Network

MOST_WORKERS = 16


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images (count, channels, side, side) as PIL images under a transform."""

    def __init__(self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], transform: Any) -> None:
        self._images = np.ascontiguousarray(images.repeat(3 // images.shape[1], 1).transpose(0, 2, 3, 1))
        self._labels, self._transform = labels.tolist(), transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[index])), self._labels[index]


def plain(plan: Plan, folder: Path, device: torch.device) -> Iterator[float]:
    """A typical training; yields the accuracy after every epoch [%]."""
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    recipe, network = plan.recipe, plan.proxy_base.network
    assert isinstance(network, Network)
    training, norms, validation = loaders(plan, open_images(folder / "data"), network.resolution)
    module = module_of(network, recipe, 0).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loop = Loop(module, recipe, steps=plan.epochs * len(training))
    for epoch in range(plan.epochs):
        loop.train(moved(training, device))
        accuracy, _ = loop.evaluate((images for images, _ in moved(norms, device)), moved(validation, device))
        if epoch + 1 == plan.epochs:
            torch.save(loop.state(), folder / "plain.pt")
        yield accuracy


def loaders(plan: Plan, images: Images, side: int) -> tuple[DataLoader[Any], DataLoader[Any], DataLoader[Any]]:
    """Of training images, of those that batch norm is measured on, and of validation images."""
    recipe = plan.recipe
    train, held = (
        resized(torch.tensor(part), side).numpy() for part in (images.train_images, images.validation_images)
    )
    share = torch.from_numpy(train[:: -(-len(train) // NORMALISATION_IMAGES)]).float().div(255)
    spread = share.mean((0, 2, 3)), share.std((0, 2, 3))
    mean, deviation = (value.expand(3).tolist() for value in spread)
    still = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, deviation)])
    crop = transforms.RandomCrop(side, padding(recipe, side))
    moving = transforms.Compose([crop, transforms.RandomHorizontalFlip(), *still.transforms])
    workers = min(MOST_WORKERS, len(os.sched_getaffinity(0)))
    common: dict[str, Any] = {
        "num_workers": workers,
        "persistent_workers": True,
        "pin_memory": torch.cuda.is_available(),
    }
    chosen = Subset(Pictures(train, images.train_labels, still), range(min(recipe.norm_images, len(train))))
    return (
        DataLoader(
            Pictures(train, images.train_labels, moving), recipe.batch_size, shuffle=True, drop_last=True, **common
        ),
        DataLoader(chosen, 1000, **common),
        DataLoader(Pictures(held, images.validation_labels, still), recipe.batch_size, **common),
    )


def moved(batches: Iterable[Any], device: torch.device) -> Batches:
    """Batches on the device."""
    for images, labels in batches:
        there = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        yield there, labels.to(device, non_blocking=True)
