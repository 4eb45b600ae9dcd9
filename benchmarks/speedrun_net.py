"""The network of `cifar_speedrun.py`: frozen whitening of 2x2 patches, three groups of convolutions, no residuals.

Written from what is published of airbench94 (arXiv:2404.00498; KellerJordan/cifar10-airbench): whitening by the
eigenvectors of the training patches and their negations, convolutions that start as the identity, batch norm without
scales, GELU, max-pooling, logits times 1/9.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

PATCH = 2
"""Side of a patch [px]."""
WHITENED = 5000
"""Most training images whose patches are measured."""
NORM_MOMENTUM = 0.4
LOGIT_SCALE = 1 / 9


class Scaled(nn.Module):
    """Logits times a constant."""

    def forward(self, logits: Tensor) -> Tensor:
        """(batch, classes) -> the same shape."""
        return logits * LOGIT_SCALE


def network(images: Tensor, *, widths: tuple[int, int, int], classes: int, seed: int) -> nn.Sequential:
    """The network for images of 32 px, on their device.

    Args:
        images: normalised training images (count, 3, 32, 32) that the whitening is measured on.
        widths: channels of the groups.
        classes: outputs.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    whiten = whitening(images)
    channels = [whiten.out_channels, *widths]
    groups = [layer for before, after in zip(channels, widths, strict=False) for layer in group(before, after)]
    head = [nn.MaxPool2d(3), nn.Flatten(), nn.Linear(widths[-1], classes, bias=False), Scaled()]
    return nn.Sequential(whiten, nn.GELU(), *groups, *head).to(images.device)


def group(inputs: int, outputs: int) -> list[nn.Module]:
    """Two convolutions with their norms and activations; the map is pooled behind the first."""
    first, second = (convolution(channels, outputs) for channels in (inputs, outputs))
    return [first, nn.MaxPool2d(2), norm(outputs), nn.GELU(), second, norm(outputs), nn.GELU()]


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """3x3, its first outputs the identity of its inputs."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(layer.weight.data[:inputs])
    return layer


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with a bias alone: its scale is no parameter to be trained."""
    layer = nn.BatchNorm2d(channels, momentum=NORM_MOMENTUM)
    layer.weight.requires_grad_(False)
    return layer


def whitening(images: Tensor) -> nn.Conv2d:
    """The frozen convolution whose first half whitens the patches of the images; the second half is its negation."""
    values, vectors = torch.linalg.eigh(torch.cov(patches(images).T))
    weight = (vectors / values.sqrt()).T.float().view(-1, images.shape[1], PATCH, PATCH)
    layer = nn.Conv2d(images.shape[1], 2 * len(weight), PATCH)
    layer.weight = nn.Parameter(torch.cat((weight, -weight)).cpu(), requires_grad=False)
    nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
    return layer


def patches(images: Tensor) -> Tensor:
    """Every patch as a row in double precision: (count * 31 * 31, 3 * 2 * 2) for images of 32 px."""
    return functional.unfold(images[:WHITENED].double(), PATCH).transpose(1, 2).flatten(0, 1)


@torch.no_grad()
def whitening_error(layer: nn.Conv2d, images: Tensor) -> float:
    """Greatest difference of the covariance of the layer's outputs from what it should be.

    That is the identity for the first half, and minus the identity between the two halves.
    """
    outputs = copy.deepcopy(layer).double()(images[:WHITENED].double()).transpose(0, 1).flatten(1)
    identity = torch.eye(len(outputs) // 2, dtype=outputs.dtype, device=outputs.device)
    wanted = torch.cat((torch.cat((identity, -identity), 1), torch.cat((-identity, identity), 1)))
    return float((torch.cov(outputs) - wanted).abs().max())
