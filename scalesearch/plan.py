"""The frozen input of a study: everything that fixes the answer, as written to `plan.yaml` in a run folder.

`Layout` is what a plan comes to: its candidates and the proxies it trains. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from scalesearch.bases import base_from_plan
from scalesearch.candidates import Candidate, Exclusion, candidates, trained_proxies
from scalesearch.dataset import Dataset
from scalesearch.errors import PlanError, ScaleSearchError, StudyError
from scalesearch.limits import Limits
from scalesearch.pace import Pace
from scalesearch.presets import PRESETS, PolicyName, PresetName
from scalesearch.recipe import Recipe
from scalesearch.scalable import Base, Scalable
from scalesearch.space import Space
from scalesearch.typed import mistyped
from scalesearch.yamlfile import read_mapping

SCHEMA = 3
MOST = {
    "resolution": 16_384,
    "halvings": 64,
    "proxies": 10_000,
    "seeds": 10_000,
    "epochs": 100_000,
    "images": 10**9,
    "validation_images": 10**9,
    "confirm": 1_000,
    "most_epochs": 10**9,
    "threads": 1_024,
    "together": 64,
}
"""Largest value of each number."""
LEAST_TRIALS = 30
"""Trials that `fit` may take to find the best of however few proxies; else as many as there are proxies."""
ANCHOR_SEEDS = 3
"""Most trainings of the unscaled base, where proxies get as many as they need."""
ANCHOR = "base"
"""Id of the unscaled proxy base, trained outside the ranking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that fixes the answer of a study."""

    base: Base
    """The network that is scaled."""
    budget: str
    """The budget, spelt in one way."""
    space: Space
    preset: PresetName
    data: Dataset
    resolution: int
    """Side of the proxy base's input [px]."""
    halvings: int
    """How often the proxy base's channels are halved."""
    proxies: int | None
    """Distinct proxies in the search; None = all."""
    policy: PolicyName
    """How the search decides what to train."""
    margin: float
    """Differences in accuracy up to this count as none [points]."""
    most_epochs: int | None
    """Epochs of all trials of the search together, the unscaled base's included; None = what the policy takes."""
    seeds: int
    """Trainings of every proxy under `grid`, of the unscaled base, and in each stage after the search."""
    epochs: int
    """Full training length."""
    images: int
    """Training images, the same for all."""
    validation_images: int
    recipe: Recipe
    limits: Limits = field(default_factory=Limits)
    confirm: int = 0
    """Leading proxies that are trained again with new seeds and judged on the test part; 0 = no confirmation."""
    check_phi: float | None = None
    """Exponent on the budget at which the leading shares are ranked again; None = not checked."""
    threads: int | None = None
    """CPU threads of a trial; None = as measured."""
    together: int | None = None
    """Most seeds of a proxy that are trained as one network; None = as measured."""
    pace: Pace | None = None
    """As measured by the first run of the plan; None before."""

    def __post_init__(self) -> None:
        faults = list(mistyped(self))
        if not faults:
            held = {name: getattr(self, name) for name in MOST}
            faults = [f"{name} = {value!r}" for name, value in held.items() if not _within(name, value)]
            faults += [] if 0 <= self.margin < 100 else [f"margin = {self.margin!r}"]
        if faults:
            raise PlanError(faults, mend="correct what was changed, or run into a new folder")

    @property
    def evidence(self) -> str:
        """What a result of this plan is worth: that of its preset, unless it spends less than the preset does."""
        full = PRESETS[self.preset]
        spends_less = self.seeds < full.seeds or self.epochs < full.epochs or self.images < self.most_images
        is_cut = self.proxies is not None or self.most_epochs is not None
        return PRESETS["quick"].evidence if spends_less or is_cut else full.evidence

    @property
    def at_most(self) -> str:
        """What stands before a number of trials or epochs that the policy may stay below; the grid trains them all."""
        return "" if self.policy == "grid" else "at most "

    @property
    def most_images(self) -> int:
        """Training images that the data hold beside the validation images."""
        return self.data.train_count - (0 if self.data.has_validation else self.validation_images)

    @property
    def scalable(self) -> Scalable:
        """The base at full size."""
        return self.base.full()

    @property
    def proxy_base(self) -> Scalable:
        """The base made fit for small images and narrowed: what the trained proxies are scaled from."""
        return self.base.small(self.resolution, self.data.num_classes, self.halvings)

    @property
    def anchor_seeds(self) -> int:
        """Trainings of the unscaled base: as many as of each proxy, where that is fixed beforehand."""
        return self.seeds if self.policy == "grid" else min(self.seeds, ANCHOR_SEEDS)

    @property
    def anchor_epochs(self) -> int:
        """Epochs of the unscaled base."""
        return self.anchor_seeds * self.epochs

    def search_epochs(self, arms: int) -> int:
        """Epochs that the search of so many proxies takes at most, the unscaled base's apart."""
        trials = arms * self.seeds
        most = self.epochs * (max(trials, LEAST_TRIALS) if self.policy == "fit" else trials)
        return most if self.most_epochs is None else max(0, min(most, self.most_epochs - self.anchor_epochs))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to `plan.yaml`."""
        return {
            "schema": SCHEMA,
            **{entry.name: getattr(self, entry.name) for entry in fields(self)},
            "base": self.base.to_plan(),
            "space": asdict(self.space),
            "data": self.data.to_dict(),
            "recipe": self.recipe.to_dict(),
            "limits": asdict(self.limits),
            "pace": asdict(self.pace) if self.pace else None,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """The inverse of `to_dict`.

        Raises:
            PlanError: a key is missing, unknown or out of range.
        """
        if values.get("schema", SCHEMA) != SCHEMA:
            raise PlanError(f"schema {values['schema']!r}", mend=f"this version reads schema {SCHEMA}")
        given = {key: value for key, value in values.items() if key != "schema"}
        try:
            given["base"] = base_from_plan(given["base"])
            given["limits"] = Limits(**given["limits"])
            given["space"] = Space(**given["space"])
            given["data"] = Dataset.from_dict(given["data"])
            given["recipe"] = Recipe.from_dict(given["recipe"])
            given["pace"] = _pace(given["pace"])
            return cls(**given)
        except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            if isinstance(error, ScaleSearchError):
                raise
            raise PlanError(
                f"not a plan: {type(error).__name__} {error}", mend="a plan.yaml is written by `scalesearch run`"
            ) from None

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, whatever the pace: the identity of the study."""
        text = json.dumps(replace(self, pace=None).to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """`<base>-<budget>-<data>-<8 characters of the digest>`."""
        return f"{self.base.name}-{self.budget.lower().replace(' ', '')}-{self.data.name}-{self.digest[:8]}"


def _pace(values: Any) -> Pace | None:
    """The pace of a plan; it is the last of a file, so that none of its keys may be left out."""
    if values is not None and len(values) < len(fields(Pace)):
        raise PlanError("pace is cut short", mend="restore the file, or run into a new folder")
    return None if values is None else Pace(**values)


def _within(name: str, value: int | None) -> bool:
    """Whether a number of a plan is one that a plan may have."""
    return value is None or (0 if name in ("halvings", "confirm") else 1) <= value <= MOST[name]


def read_plan(folder: Path) -> Plan:
    """The plan of a run folder.

    Raises:
        StudyError: there is no run in that folder, or its plan is damaged.
    """
    path = folder / "plan.yaml"
    if not path.is_file():
        raise StudyError(f"{folder} is not a run folder: it has no plan.yaml", mend="give a folder that `run` made")
    try:
        values = read_mapping(path)
        if not path.read_bytes().endswith(b"\n"):
            raise PlanError("its last line is cut off")
        if values.get("schema") in range(1, SCHEMA):
            fault = f"{path} was written by an older version (schema {values['schema']}; this one reads {SCHEMA})"
            raise StudyError(fault, mend="run into a new folder")
        return Plan.from_dict(values)
    except StudyError:
        raise
    except ScaleSearchError as error:
        raise StudyError(
            f"{path} is damaged: {error.message.removeprefix(f'{path}: ')}",
            mend="restore the file, or run into a new folder",
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a plan comes to."""

    nominal_points: int
    """Grid points under the constraint."""
    candidates: tuple[Candidate, ...]
    """In rising order of effective depth, width, resolution."""
    excluded: tuple[Exclusion, ...]
    trained: tuple[str, ...]
    """Ids of the proxies of the search, in candidate order."""
    is_level: bool = True
    """Whether all proxies cost the same, so that their accuracies lie on one surface."""

    def candidate(self, proxy_id: str) -> Candidate:
        """The first candidate that stands on a proxy."""
        return next(one for one in self.candidates if one.id == proxy_id)

    @property
    def remarks(self) -> list[str]:
        """What deserves a word before anything is trained."""
        rivals = sum(not self.candidate(name).off_budget for name in self.trained)
        if rivals > 1:
            return []
        few = "only one candidate" if rivals else "no candidate"
        return [f"{few} of the search is on budget: there is nothing to compare; more --candidates may give rivals"]

    def twins(self, proxy_id: str) -> list[Candidate]:
        """Every candidate that stands on a proxy, the first one first."""
        return [one for one in self.candidates if one.proxy_id == proxy_id]


def lay_out(plan: Plan) -> Layout:
    """Enumerate the candidates of a plan and choose the proxies it trains.

    Raises:
        SpaceError: nothing is left to search.
    """
    found = candidates(plan.space, plan.scalable, plan.proxy_base, plan.limits)
    return Layout(
        nominal_points=found.nominal_points,
        candidates=found.candidates,
        excluded=found.excluded,
        trained=trained_proxies(found.candidates, plan.proxies),
        is_level=plan.space.policy == "level",
    )
