"""The families that ship with the project, and the names their members go by."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from scalesearch.errors import SpecError
from scalesearch.families.efficientnet import EFFICIENTNET, TF_EFFICIENTNET
from scalesearch.families.efficientnet_lite import EFFICIENTNET_LITE
from scalesearch.families.mnasnet import MNASNET
from scalesearch.families.mobilenet_v1 import MOBILENET_V1
from scalesearch.families.mobilenet_v2 import MOBILENET_V2
from scalesearch.families.mobilenet_v3 import MOBILENET_V3
from scalesearch.families.resnet import RESNET
from scalesearch.scaling import Family, Rounding
from scalesearch.spec import Network

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            EFFICIENTNET,
            TF_EFFICIENTNET,
            EFFICIENTNET_LITE,
            RESNET,
            MOBILENET_V1,
            MOBILENET_V2,
            MOBILENET_V3,
            MNASNET,
        )
    }
)


OWN = "own"
"""Name of the family of any network that does not ship."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A network under its name, with the family whose rounding it follows."""

    name: str
    family: Family
    network: Network


def base_names() -> tuple[str, ...]:
    """The name of every network that ships, in the order of the tables."""
    return tuple(name for family in FAMILIES.values() for name in family.networks)


def find_base(name: str) -> Named:
    """The base network of that name, however it is written.

    Raises:
        SpecError: no such base; the message suggests the nearest.

    >>> find_base("EfficientNet-B0").network.resolution, find_base("mobilenetv2_100").name
    (224, 'mobilenet_v2')
    """
    known = {_plain(typed): (family, meant) for family in FAMILIES.values() for typed, meant in _names(family)}
    if _plain(name) not in known:
        near = difflib.get_close_matches(_plain(name), known, n=1, cutoff=0.5)
        hint = f"did you mean {known[near[0]][1]}? " if near else ""
        raise SpecError(f"unknown base {name!r}", mend=f"{hint}known bases: {', '.join(base_names())}")
    family, meant = known[_plain(name)]
    return Named(name=meant, family=family, network=family.networks[meant])


def _names(family: Family) -> Iterator[tuple[str, str]]:
    yield from ((name, name) for name in family.networks)
    yield from family.aliases.items()


def _plain(name: str) -> str:
    library, _, _ = name.partition(".")  # timm adds how a model was trained: resnet50.a1_in1k
    return library.lower().replace("-", "").replace("_", "").replace(" ", "")


def own_network(name: str, network: Network, rounding: Rounding) -> Named:
    """A network of the user's own, as a family of one."""
    family = Family(name=OWN, networks=MappingProxyType({name: network}), rounding=rounding, source="the user's own")
    return Named(name=name, family=family, network=network)
