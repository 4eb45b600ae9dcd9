"""A member's `config.yaml`: written for people and read back as the same values."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from scalesearch.blueprint import Architecture, Blueprint, architecture
from scalesearch.errors import EmitError, PlanError, ScaleSearchError, SpecError
from scalesearch.members import PUBLISHED, Member, Rule
from scalesearch.scaling import PAPER
from scalesearch.yamlfile import read_mapping

SCHEMA = 1


def coefficients(rule: Rule | None) -> dict[str, Any]:
    """The rule behind a family, with the paper's beside it."""
    paper = {"alpha": PAPER.alpha, "beta": PAPER.beta, "gamma": PAPER.gamma}
    if rule is None:
        return {"evidence": PUBLISHED, "rule": None, "paper_rule": paper}
    given = rule.coefficients
    found = {"alpha": given.alpha, "beta": given.beta, "gamma": given.gamma, "budget": rule.budget}
    found |= {"shares": list(given.shares)}
    return {"evidence": rule.evidence, "rule": found, "paper_rule": paper}


def config(member: Member, rule: Rule | None, base: str, *, weights: dict[str, Any]) -> dict[str, Any]:
    """Everything about a member as plain values; `network` alone defines it."""
    effective = member.scaled.effective
    return {
        "schema": SCHEMA,
        "name": member.name,
        "base": base,
        **coefficients(rule),
        "phi": member.phi,
        "growth_asked": member.growth_asked,
        "realised_growth": member.scaled.growth,
        "effective": {"depth": effective.depth, "width": effective.width, "resolution": effective.resolution},
        "macs": member.cost.macs,
        "params": member.cost.params,
        "activations": member.cost.activations,
        **({} if isinstance(member.network, Blueprint) else {"fvcore_total": member.cost.fvcore_total}),
        "digest": member.network.digest,
        "weights": weights,
        **({"rounding": asdict(member.rounding)} if member.rounding else {}),
        "network": member.network.to_dict(),
    }


def config_text(values: dict[str, Any]) -> str:
    """The YAML text of a config."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def read_config(path: Path) -> tuple[dict[str, Any], Architecture]:
    """A config and its network.

    Raises:
        EmitError: the file cannot be read, or was cut short or changed.
        SpecError: the file does not hold a network.
    """
    try:
        values = read_mapping(path)
    except PlanError as error:
        raise EmitError(error.message, mend="give a member's folder or config.yaml") from None
    if "network" not in values:
        raise SpecError(f"{path} has no key `network`", mend="give a config.yaml that `emit` wrote")
    try:
        network = architecture(values["network"])
    except ScaleSearchError as error:
        raise SpecError(f"{path}: {error.message}", mend=error.mend) from None
    if values.get("digest", network.digest) != network.digest:
        raise EmitError(f"{path}: its digest is that of another network", mend="restore the file, or emit it again")
    return values, network
