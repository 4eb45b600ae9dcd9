"""Whether a rule travels: the shares of some proxies at another budget than the search's."""

from __future__ import annotations

from scalesearch.candidates import Candidate
from scalesearch.errors import ScalingError
from scalesearch.levelling import Scaled
from scalesearch.members import growth_at
from scalesearch.plan import Layout, Plan
from scalesearch.scaling import DIMENSIONS, Coefficients


def growth_checked(plan: Plan) -> float:
    """Growth of compute at the exponent that a plan checks."""
    assert plan.check_phi is not None
    return growth_at(plan.space.budget, plan.check_phi)


def every_proxy(plan: Plan, layout: Layout) -> list[Scaled]:
    """Every network that a plan may train but the unscaled base: the proxies, and their shares where they travel to."""
    found = [one.proxy for one in layout.candidates]
    if plan.check_phi is None:
        return found
    elsewhere = (traveller(layout.candidate(name), plan) for name in layout.trained)
    return found + [one for one in elsewhere if one is not None]


def traveller(one: Candidate, plan: Plan) -> Scaled | None:
    """The proxy of a candidate's shares at the growth that is checked; None if none is within reach.

    A single dimension moves alone there too, and may miss the growth by more than the tolerance.
    """
    small, growth = plan.proxy_base, growth_checked(plan)
    alone = next((name for name in one.references if name in DIMENSIONS), None)
    if alone is None:
        point = Coefficients.from_shares(one.shares, growth).at(1)
        return small.project([point], growth)[0]
    try:
        return small.alone(alone, growth)
    except ScalingError:
        return None
