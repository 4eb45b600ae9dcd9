"""Weights under other names: a network's state dict for torchvision or timm, and theirs or ours for the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from scalesearch.errors import EmitError
from scalesearch.nets.library_names import POINTWISE, Library, naming
from scalesearch.nets.network import assemble
from scalesearch.spec import Network

Source = Literal["scalesearch", "torchvision", "timm"]
LIBRARIES: tuple[Library, ...] = ("torchvision", "timm")
CLASSIFIER = "head.classify"
"""Our name of the layer whose outputs are the classes."""
COUNTER = "num_batches_tracked"
"""A tensor of batch norms that old files lack."""
MEND = "give the weights of the same network, as scalesearch, torchvision or timm save them"


def theirs(network: Network, state: Mapping[str, Tensor], library: Library) -> dict[str, Tensor]:
    """Our tensors under the names of a library.

    Args:
        network: what the tensors belong to.
        state: the state dict of `build(network)`.
        library: whose names.

    Returns:
        The same tensors, in the same order. timm's `conv_head` behind the pooling is (outputs, inputs, 1, 1) where
        our linear layer is (outputs, inputs).

    Raises:
        EmitError: the library has no network of this kind, or a tensor is missing, left over or of another shape.
    """
    namings = _namings(network)
    if library not in namings:
        raise EmitError(f"{library} has no network of these blocks and this head", mend="keep scalesearch's names")
    renamed: dict[str, Tensor] = {}
    for name, value in _fitted(network, state, namings["scalesearch"]).items():
        layer, _, kind = name.rpartition(".")
        their = namings[library][layer]
        pointwise = their == POINTWISE and value.ndim == 2
        renamed[f"{their}.{kind}"] = value[:, :, None, None] if pointwise else value
    return renamed


def ours(network: Network, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under our names, from a state dict of ours, torchvision's or timm's.

    Args:
        network: what the tensors belong to.
        state: the state dict; its keys tell whose it is.

    Returns:
        What `build(network).load_state_dict` takes; `head.classify` alone may have another number of classes than
        the network.

    Raises:
        EmitError: the names are of no known source, or a tensor is missing, left over or of another shape.
    """
    return _fitted(network, state, _namings(network)[recognise(network, state)])


def recognise(network: Network, state: Mapping[str, Tensor]) -> Source:
    """Whose names a state dict has; torchvision's where timm's are the same, as in ResNets.

    Raises:
        EmitError: no source has such names in a network of this kind.
    """
    layers = {name.rpartition(".")[0] for name in state}
    namings = _namings(network)
    source = max(namings, key=lambda one: len(layers & set(namings[one].values())))
    if not layers & set(namings[source].values()):
        raise EmitError(f"{next(iter(state), 'no tensor')} is no name in such a network", mend=MEND)
    return source


def _namings(network: Network) -> dict[Source, dict[str, str]]:
    """For each source that has networks of this kind, its name for each of our layers with weights."""
    layers = [
        name
        for name, layer in _skeleton(network).named_modules()
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Linear)
    ]
    found: dict[Source, dict[str, str]] = {"scalesearch": {name: name for name in layers}}
    for library in LIBRARIES:
        if names := naming(network, library):
            found[library] = dict(zip(layers, names(network), strict=True))
    return found


def _skeleton(network: Network) -> nn.Module:
    """The module without memory for its tensors."""
    with torch.device("meta"):
        return assemble(network)


def _fitted(network: Network, state: Mapping[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """The tensors of a state dict under our names, each held to the network's; `names` gives theirs for our layers."""
    left = dict(state)
    found: dict[str, Tensor] = {}
    for name, wanted in _skeleton(network).state_dict().items():
        layer, _, kind = name.rpartition(".")
        their = f"{names[layer]}.{kind}"
        if kind == COUNTER:
            left.setdefault(their, torch.zeros_like(wanted, device="cpu"))
        if their not in left:
            raise EmitError(f"{their} is missing", mend=MEND)
        found[name] = _held(their, left.pop(their), wanted, any_rows=layer == CLASSIFIER)
    if left:
        raise EmitError(f"{next(iter(left))} is left over: the network has no such tensor", mend=MEND)
    weight, bias = found[f"{CLASSIFIER}.weight"], found[f"{CLASSIFIER}.bias"]
    _held(f"{names[CLASSIFIER]}.bias", bias, weight[:, 0])
    return found


def _held(name: str, value: Tensor, wanted: Tensor, *, any_rows: bool = False) -> Tensor:
    """A tensor of the shape and the kind of number that is wanted; a 1x1 convolution serves as a linear layer."""
    if wanted.ndim == 2 and value.shape[2:] == (1, 1):
        value = value.flatten(1)
    shape = (*(value if any_rows else wanted).shape[:1], *wanted.shape[1:])
    if value.shape != shape or value.is_floating_point() != wanted.is_floating_point():
        held, needed = (f"{str(one.dtype).removeprefix('torch.')} {tuple(one.shape)}" for one in (value, wanted))
        raise EmitError(f"{name} is {held}, the network needs {needed}", mend=MEND)
    return value
