"""The families that ship with the project, and the names their members go by."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from scalesearch.errors import SpecError
from scalesearch.families.efficientnet import EFFICIENTNET
from scalesearch.scaling import Family
from scalesearch.spec import Network

FAMILIES: Mapping[str, Family] = MappingProxyType({EFFICIENTNET.name: EFFICIENTNET})


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The network that a search starts from, under the name the user typed."""

    name: str
    family: Family
    network: Network

    @property
    def is_baseline(self) -> bool:
        """Whether it is the network that its family scales."""
        return self.network == self.family.baseline


def base_names() -> tuple[str, ...]:
    """Every name `find_base` knows, in the order of the tables."""
    return tuple(row.name for family in FAMILIES.values() for row in family.published)


def find_base(name: str) -> Base:
    """The base network of that name, with or without the family in front of it.

    Raises:
        SpecError: no such base; the message suggests the nearest.

    >>> find_base("efficientnet_b0").network.resolution
    224
    """
    wanted = name.lower().replace("-", "_")
    for family in FAMILIES.values():
        for row in family.published:
            if wanted in (row.name, f"{family.name}_{row.name}"):
                return Base(name=row.name, family=family, network=family.member(row.name))
    near = difflib.get_close_matches(wanted, base_names(), n=1, cutoff=0.3)
    hint = f"did you mean {near[0]}? " if near else ""
    raise SpecError(f"unknown base {name!r}", mend=f"{hint}known bases: {', '.join(base_names())}")
