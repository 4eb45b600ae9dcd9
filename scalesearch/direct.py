"""Scaling and families without a search: what `scale` and `emit` are asked for, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalesearch.bases import find
from scalesearch.builder_base import BuilderBase
from scalesearch.errors import PlanError, ScalingError
from scalesearch.levelling import REACH, TOLERANCE, Scaled
from scalesearch.limits import Limits, parse_limits
from scalesearch.members import PUBLISHED, Member, Rule, Unreached, growth_at, members, named_growths, published
from scalesearch.scalable import Base, Scalable
from scalesearch.scaling import Coefficients, Multipliers
from scalesearch.space import Policy, parse_budget

if TYPE_CHECKING:
    from scalesearch.outcome import Outcome


MOST_CLASSES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledBase:
    """A base, or a network made from it by multipliers."""

    base: str
    policy: Policy
    asked: Multipliers | None
    """None when the base itself is described."""
    growth_asked: float | None
    """Growth of compute that levelling aimed at; None under the paper's rounding."""
    scaled: Scaled


def scaled_base(
    base: str,
    *,
    depth: float = 1.0,
    width: float = 1.0,
    resolution: int | None = None,
    policy: Policy = "level",
    budget: str | None = None,
    phi: float | None = None,
    classes: int | None = None,
) -> ScaledBase:
    """Scale a base by depth and width multipliers and a side [px]; without any, describe it.

    Under `level` the network costs budget^phi times the base where a budget is given, else depth·width²·(side
    ratio)² times.

    Raises:
        SpecError: no such base, or a side below 1.
        ScalingError: a multiplier that is not positive, no legal network near the point, or a contradiction.
    """
    if resolution is not None and resolution < 1:
        raise ScalingError(f"resolution {resolution}", mend="it must be at least 1")
    if classes is not None and not 1 <= classes <= MOST_CLASSES:
        raise ScalingError(f"--classes {classes}", mend=f"it must be 1 to {MOST_CLASSES:,}")
    if phi is not None and budget is None:
        raise ScalingError("--phi without --budget", mend="give the budget whose power it is")
    if budget is not None and policy == "paper":
        raise ScalingError("--budget under --rounding paper", mend="the paper's rounding aims at no growth: drop one")
    found = find(base)
    start = found.full(classes)
    native = start.network.resolution
    side = native if resolution is None else resolution
    asked = Multipliers(depth=depth, width=width, resolution=side / native)
    is_base = asked == Multipliers() and budget is None
    growth = None if is_base or policy == "paper" else _growth(asked, start, budget, phi)
    if is_base:
        scaled = Scaled(network=start.network, effective=asked, cost=start.cost, growth=1.0)
    elif growth is None:
        scaled = start.rounded(asked)
    else:
        scaled = _levelled(start, asked, growth)
    return ScaledBase(
        base=found.name, policy=policy, asked=None if is_base else asked, growth_asked=growth, scaled=scaled
    )


def _growth(asked: Multipliers, start: Scalable, budget: str | None, phi: float | None) -> float:
    if budget is None:
        return asked.nominal
    return growth_at(parse_budget(budget, start.cost.macs), 1.0 if phi is None else phi)


def _levelled(start: Scalable, asked: Multipliers, growth: float) -> Scaled:
    levelled = start.project([asked], growth)[0]
    if levelled is None:
        least = start.smallest() if growth < 1 else None
        is_below = least is not None and least.growth > growth
        end = f"; the smallest network of this base costs {least.growth:.3g}x" if least and is_below else ""
        raise ScalingError(
            f"no network within {TOLERANCE:.0%} of {growth:.4g}x lies within {REACH} of these multipliers{end}",
            mend="use --rounding paper for the plain rounding, or change --budget, --depth, --width or --resolution",
        )
    return levelled


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedFamily:
    """A family to be written."""

    base: str
    rule: Rule | None
    """None for the published table."""
    members: Sequence[Member | Unreached]

    @property
    def evidence(self) -> str:
        """What the family rests on."""
        return self.rule.evidence if self.rule else PUBLISHED


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyRequest:
    """What `emit` is asked for, as typed."""

    candidate: str | None = None
    """Id whose rule to take, with a study."""
    base: str | None = None
    coefficients: str | None = None
    """`ALPHA,BETA,GAMMA`."""
    budget: str | None = None
    """What the coefficients are normalised to."""
    published: bool = False
    phi: str | None = None
    """Exponents with commas between them."""
    growth: str | None = None
    """Growths of compute with commas between them."""
    classes: int | None = None
    max_params: str | None = None
    max_activations: str | None = None
    max_memory: str | None = None


def asked_family(request: FamilyRequest, outcome: Outcome | None) -> AskedFamily:
    """The family of a study's rule, of given coefficients, or of the published table.

    Raises:
        PlanError: the request names none of the three, more than one, or contradicts itself.
    """
    _refuse_contradictions(request, outcome)
    limits = parse_limits(request.max_params, request.max_activations, request.max_memory)
    if outcome is not None:
        base, rule = _allowed(outcome.plan.base, request.base), outcome.rule(request.candidate)
        limits = limits if limits != Limits() else outcome.plan.limits
    else:
        base = find(str(request.base))
        if request.published:
            found = _published(base, request.classes, limits)
            return AskedFamily(base=base.name, rule=None, members=_reached(found))
        rule = _given_rule(str(request.coefficients), request.budget, base)
    found = members(rule, base, _asked_growths(base, rule, request), classes=request.classes, limits=limits)
    return AskedFamily(base=base.name, rule=rule, members=_reached(found))


def _allowed(base: Base, asked: str | None) -> Base:
    """The base of a run; a builder's only where the command line names it too, because a file must not run code."""
    own = base.counts.builder if isinstance(base, BuilderBase) else None
    if own == asked:
        return base.allowed() if isinstance(base, BuilderBase) else base
    if own is None:
        raise PlanError("a run folder brings its own base", mend="drop the folder, or --base")
    raise PlanError(f"the run's networks are made by {own}, which a file may not run", mend=f"add --base {own}")


def _reached(found: list[Member | Unreached]) -> list[Member | Unreached]:
    unreached = [one for one in found if isinstance(one, Unreached)]
    if len(unreached) == len(found):
        raise ScalingError(
            f"no member can be reached: {unreached[0].reason}", mend="ask for other growths, coefficients or limits"
        )
    return found


def _published(base: Base, classes: int | None, limits: Limits) -> list[Member | Unreached]:
    found = published(base, classes=classes, limits=limits)
    if not found:
        raise PlanError(f"{base.name} is not the baseline of a published table", mend="b0, tf_b0 and lite0 are")
    return found


def _refuse_contradictions(request: FamilyRequest, outcome: Outcome | None) -> None:
    alone = outcome is None
    without_run = request.coefficients or request.budget or request.published
    rules = {
        ("a run folder brings its own rule", "drop the folder, or the other options"): not alone and bool(without_run),
        ("--candidate needs a run folder", "give the folder"): alone and request.candidate is not None,
        ("nothing to emit", "give a run folder, or --base with either --coefficients A,B,G or --published"): alone
        and (request.base is None or (request.coefficients is None and not request.published)),
        ("--published is a rule of its own", "drop --coefficients"): request.published
        and request.coefficients is not None,
        ("--published has its own sizes", "drop --phi, --growth and --budget"): request.published
        and bool(request.phi or request.growth or request.budget),
        ("--phi and --growth contradict each other", "drop one"): request.phi is not None
        and request.growth is not None,
        (f"--classes {request.classes}", f"it must be 1 to {MOST_CLASSES:,}"): request.classes is not None
        and not 1 <= request.classes <= MOST_CLASSES,
    }
    for (fault, mend), broken in rules.items():
        if broken:
            raise PlanError(fault, mend=mend)


def _given_rule(text: str, budget: str | None, base: Base) -> Rule:
    values = _numbers("--coefficients", text)
    if len(values) != 3:
        raise PlanError(f"--coefficients {text!r}", mend="give three numbers: ALPHA,BETA,GAMMA")
    try:
        given = Coefficients(alpha=values[0], beta=values[1], gamma=values[2])
    except ScalingError as error:
        raise error.within("--coefficients") from None
    if abs(given.nominal - 1) <= TOLERANCE:
        raise ScalingError(f"--coefficients {text} scale nothing", mend="alpha·beta²·gamma² must differ from 1")
    growth = parse_budget(budget, base.full().cost.macs) if budget else given.nominal
    return Rule.of(given.shares, growth, "given")


def _asked_growths(base: Base, rule: Rule, request: FamilyRequest) -> dict[str, float]:
    if request.phi is not None:
        return named_growths(base.name, [growth_at(rule.budget, value) for value in _numbers("--phi", request.phi)])
    if request.growth is not None:
        return named_growths(base.name, _numbers("--growth", request.growth))
    return base.growths(rule.budget)


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise PlanError(f"{option} {text!r}", mend="give numbers with commas between them") from None
