"""A user's own network: a YAML file such as the `config.yaml` of an emitted one, as a base of its own family."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from scalesearch.declared import Declared, Fault, FieldError, Form, json_schema, read
from scalesearch.errors import PlanError, shown
from scalesearch.families import Named, own_network
from scalesearch.scaling import Rounding
from scalesearch.spec import SCHEMA, Network
from scalesearch.yamlfile import read_mapping

MOST_BLOCKS = 4096
"""Blocks of all stages together."""
MOST_FAULTS = 50
"""Faults told at once; a file with more of them is another kind of file."""
HISTORY = (
    "base",
    "evidence",
    "rule",
    "paper_rule",
    "phi",
    "growth_asked",
    "realised_growth",
    "effective",
    "macs",
    "params",
    "activations",
    "fvcore_total",
    "digest",
    "weights",
)
"""Keys of an emitted `config.yaml` that tell how its network came about; they are not used."""

Name = Annotated[
    str,
    Form(
        r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        " for folder names: a letter or digit, then up to 63 letters, digits, dots, hyphens and underscores",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseFile(Declared):
    """A network to scale, its name, and how its channels are rounded."""

    network: Network
    """The base; all else has defaults."""
    name: Name | None = None
    """None = that of the file."""
    rounding: Rounding = field(default_factory=Rounding)
    """How its width is scaled."""

    def contradictions(self) -> Iterator[Fault]:
        """Networks that no one could count, let alone build."""
        if self.network.depth > MOST_BLOCKS:
            yield Fault("network.stages", f" = {self.network.depth:,} blocks together", f"at most {MOST_BLOCKS:,}")


def read_base(path: Path) -> Named:
    """The base that a file describes, the only network of its family.

    Raises:
        PlanError: the file cannot be read, or all its faults at once, each with its key.
    """
    faults: list[Fault] = []
    values = read_mapping(path)
    if isinstance(values.get("network"), dict) and "builder" in values["network"]:
        raise PlanError(f"{path}: a builder's network", mend="give the builder itself, package.module:function")
    found = read(BaseFile, _without_history(values, faults), "", faults)
    if found is None or faults:
        told = [fault.text for fault in faults[:MOST_FAULTS]]
        more = [f"{len(faults) - MOST_FAULTS:,} more faults"] if len(faults) > MOST_FAULTS else []
        raise PlanError(told + more, mend="`scalesearch schema` prints what the file may hold").within(path)
    return own_network(found.name or _safe(path.stem), found.network, found.rounding)


def base_of(values: Mapping[str, Any]) -> Named:
    """The base that a plan holds, whose name is safe for folders.

    Raises:
        SpecError: the values are not those of one.
    """
    faults: list[Fault] = []
    found = read(BaseFile, _without_history({"name": None, **values}, faults), "", faults)
    if found is None or faults:
        raise FieldError(faults, "base")
    return own_network(found.name or "own", found.network, found.rounding)


def base_schema() -> dict[str, Any]:
    """The JSON Schema of a base file, for editors."""
    found = json_schema(BaseFile)
    version = {"const": SCHEMA}
    unused = {key: {"description": "How an emitted network came about; not used."} for key in HISTORY}
    found["properties"] |= {"schema": version, **unused}
    found["properties"]["network"]["properties"]["schema"] = version
    title = "A network for scalesearch --base"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **found}


def _without_history(values: Mapping[str, Any], faults: list[Fault]) -> dict[str, Any]:
    """What defines the base; a schema of another version and a network's keys outside `network` are faults."""
    given = _without_schema(values, "schema", faults)
    if isinstance(given.get("network"), dict):
        given["network"] = _without_schema(given["network"], "network.schema", faults)
    misplaced = [entry.name for entry in fields(Network) if entry.name in given]
    faults.extend(Fault(key, " stands outside `network`", "a key under `network:`") for key in misplaced)
    return {key: value for key, value in given.items() if key not in {*HISTORY, *misplaced}}


def _without_schema(values: Mapping[str, Any], place: str, faults: list[Fault]) -> dict[str, Any]:
    version: object = values.get("schema", SCHEMA)
    if version != SCHEMA or isinstance(version, bool):
        faults.append(Fault(place, f" = {shown(version)}", f"{SCHEMA}, which this version reads"))
    return {key: value for key, value in values.items() if key != "schema"}


def _safe(stem: str) -> str:
    """A file's name as one for folders."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("._-")[:64] or "own"
