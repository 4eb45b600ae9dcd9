"""How to carry out a plan again: the study file that leads to it, and what its commands need besides."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from scalesearch.builder_base import BuilderBase
from scalesearch.families import OWN
from scalesearch.plan import Plan
from scalesearch.staged import StagedBase


def study_file(plan: Plan) -> str:
    """A `study.yaml` that resolves to the plan; of a user's file it has the name, of a builder nothing."""
    limits = plan.limits
    asked: dict[str, Any] = {
        "base": None if isinstance(plan.base, BuilderBase) else plan.base.name,
        "budget": plan.budget,
        "rounding": plan.space.policy,
        "step": plan.space.step,
        "tolerance": plan.space.tolerance,
        "data": plan.data.source,
        "data_root": plan.data.root or None,
        "preset": plan.preset,
        "candidates": plan.proxies,
        "policy": plan.policy,
        "margin": plan.margin,
        "max_epochs_total": plan.most_epochs,
        "confirm": plan.confirm,
        "check_phi": plan.check_phi,
        "seeds": plan.seeds,
        "epochs": plan.epochs,
        "images": plan.images,
        "proxy_resolution": plan.resolution,
        "max_params": None if limits.params is None else str(limits.params),
        "max_activations": None if limits.activations is None else str(limits.activations),
        "max_memory": None if limits.memory is None else f"{limits.memory}@{limits.batch}",
        "threads": plan.threads,
        "together": plan.together,
        "recipe": plan.recipe.to_dict(),
    }
    given = {name: value for name, value in asked.items() if value is not None}
    return yaml.safe_dump(given, sort_keys=False, allow_unicode=True, width=120)


def is_file(plan: Plan) -> bool:
    """Whether the base is a user's file, whose path the study file does not know."""
    return isinstance(plan.base, StagedBase) and plan.base.named.family.name == OWN


def base_word(plan: Plan) -> str:
    """What names a base that no builder makes on a command line; for a user's file `NAME.yaml` stands for its path."""
    return shlex.quote(f"{plan.base.name}.yaml" if is_file(plan) else plan.base.name)


def builder_option(plan: Plan) -> str:
    """What names a user's builder on a command line, which alone may do so; empty for other bases."""
    return f" --base {shlex.quote(plan.base.counts.builder)}" if isinstance(plan.base, BuilderBase) else ""
