"""`scale` and `emit` without a study, as values: multipliers, targets, and requests that contradict themselves."""

import math
from typing import Any

import pytest
from networks import B0, EFFICIENTNET, EXACT

from scalesearch.cost import count
from scalesearch.direct import FamilyRequest, asked_family, scaled_base
from scalesearch.errors import PlanError, ScaleSearchError, ScalingError, SpaceError, SpecError
from scalesearch.members import Member

PAPERS = "1.2,1.1,1.15"


# ---- scale


def test_a_base_alone_is_described_as_it_is():
    found = scaled_base("b0")
    assert found.scaled.network == B0
    assert (found.asked, found.growth_asked, found.scaled.growth) == (None, None, 1.0)


@pytest.mark.parametrize("name", [f"b{i}" for i in range(6)])
def test_the_published_multipliers_by_the_papers_rounding_give_the_published_networks(name: str):
    (row,) = [row for row in EFFICIENTNET.published if row.name == name]
    found = scaled_base("b0", depth=row.depth, width=row.width, resolution=row.resolution, policy="paper")
    cost, exact = count(found.scaled.network), EXACT[f"efficientnet_{name}"]
    assert (cost.params, cost.macs, cost.activations) == (exact["params"], exact["macs"], exact["activations"])
    assert cost.fvcore_total == exact["fvcore_eval_total"]
    assert found.growth_asked is None


def test_multipliers_are_levelled_to_their_own_product():
    found = scaled_base("b0", depth=1.2, width=1.1, resolution=258)
    product = 1.2 * 1.1**2 * (258 / 224) ** 2
    assert found.growth_asked == pytest.approx(product)
    assert abs(count(found.scaled.network).macs / count(B0).macs / product - 1) <= 0.03


@pytest.mark.parametrize(
    ("budget", "phi", "growth"), [("2x", 1, 2), ("2x", 0.95, 2**0.95), ("800M", 1, 8e8 / 385_814_752)]
)
def test_a_budget_is_the_target_to_the_power_of_phi(budget: str, phi: float, growth: float):
    found = scaled_base("b0", depth=1.2, width=1.1, resolution=258, budget=budget, phi=phi)
    assert found.growth_asked == pytest.approx(growth)
    assert abs(count(found.scaled.network).macs / count(B0).macs / growth - 1) <= 0.03


def test_classes_change_the_classifier_alone():
    network = scaled_base("b0", classes=10).scaled.network
    assert network.num_classes == 10
    assert network.stages == B0.stages


def test_a_budget_without_multipliers_is_not_passed_over():
    # no network stands for the base at four times its compute; to print the base would answer another question
    with pytest.raises(ScalingError):
        scaled_base("b0", budget="4x")


@pytest.mark.parametrize("policy", ["level", "paper"])
@pytest.mark.parametrize(
    "asked",
    [
        {"depth": 0.0}, {"depth": -1.0}, {"width": math.nan}, {"width": math.inf}, {"resolution": 0},
        {"resolution": -224}, {"width": 1e200}, {"depth": 1e308},
    ],
)  # fmt: skip
def test_multipliers_out_of_their_domain_are_refused(asked: dict[str, Any], policy: str):
    with pytest.raises(ScaleSearchError) as caught:
        scaled_base("b0", policy=policy, **asked)  # type: ignore[arg-type]
    assert caught.value.mend


@pytest.mark.parametrize("phi", [math.nan, math.inf, 1e9, -1e9])
def test_an_exponent_out_of_its_domain_is_refused(phi: float):
    with pytest.raises(ScaleSearchError) as caught:
        scaled_base("b0", depth=1.2, budget="2x", phi=phi)
    assert caught.value.mend


def test_multipliers_far_from_the_target_are_refused_with_the_way_out():
    with pytest.raises(ScalingError, match="no network within 3% of 8x") as caught:
        scaled_base("b0", depth=1.2, budget="8x")
    assert "--rounding paper" in caught.value.mend


def test_an_unknown_base_and_no_classes_are_refused():
    with pytest.raises(SpecError, match="unknown base"):
        scaled_base("b9")
    with pytest.raises(ScalingError, match="classes 0"):
        scaled_base("b0", classes=0)


# ---- emit without a study


def family(**asked: Any) -> dict[str, Member]:
    found = asked_family(FamilyRequest(**{"base": "b0", **asked}), None)
    return {one.name: one for one in found.members if isinstance(one, Member)}


def test_coefficients_make_the_named_family():
    found = asked_family(FamilyRequest(base="b0", coefficients=PAPERS), None)
    assert [one.name for one in found.members] == ["B1", "B2", "B3", "B4", "B5", "B6", "B7"]
    assert found.rule is not None
    assert found.rule.evidence == "given"
    assert found.rule.coefficients.nominal == found.rule.budget == pytest.approx(1.2 * 1.1**2 * 1.15**2)


def test_a_budget_normalises_the_coefficients():
    found = asked_family(FamilyRequest(base="b0", coefficients=PAPERS, budget="2x"), None)
    assert found.rule is not None
    assert found.rule.coefficients.nominal == pytest.approx(2)
    logs = [math.log(1.2), 2 * math.log(1.1), 2 * math.log(1.15)]
    assert found.rule.coefficients.shares == pytest.approx([log / sum(logs) for log in logs])


def test_growths_and_exponents_choose_the_members():
    assert [one.growth_asked for one in family(coefficients=PAPERS, growth="1.5,3").values()] == [1.5, 3.0]
    by_phi = family(coefficients=PAPERS, budget="2x", phi="0.5,1,2")
    assert [one.growth_asked for one in by_phi.values()] == pytest.approx([2**0.5, 2, 4])
    assert [one.phi for one in by_phi.values()] == pytest.approx([0.5, 1, 2])


def test_classes_reach_every_member():
    assert {one.network.num_classes for one in family(coefficients=PAPERS, classes=10).values()} == {10}
    assert {one.network.num_classes for one in family(published=True, classes=10).values()} == {10}


def test_the_published_family_needs_no_rule():
    found = asked_family(FamilyRequest(base="b0", published=True), None)
    assert found.rule is None
    assert [one.name for one in found.members] == [f"B{i}" for i in range(8)]


CONTRADICTIONS = {
    "nothing": {"base": None},
    "a base without a rule": {},
    "a rule without a base": {"base": None, "coefficients": PAPERS},
    "two rules": {"coefficients": PAPERS, "published": True},
    "a candidate without a run": {"coefficients": PAPERS, "candidate": "d19-w1.099-r260"},
    "sizes for the published family": {"published": True, "growth": "2"},
    "a budget for the published family": {"published": True, "budget": "2x"},
    "growths and exponents": {"coefficients": PAPERS, "growth": "2", "phi": "1"},
    "no classes": {"coefficients": PAPERS, "classes": 0},
    "two coefficients": {"coefficients": "1.2,1.1"},
    "words for coefficients": {"coefficients": "a,b,c"},
    "words for exponents": {"coefficients": PAPERS, "phi": "one"},
    "an empty growth": {"coefficients": PAPERS, "growth": ""},
}


@pytest.mark.parametrize("asked", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_request_that_names_no_one_family_is_refused_with_the_mend(asked: dict[str, Any]):
    with pytest.raises(PlanError) as caught:
        asked_family(FamilyRequest(**{"base": "b0", **asked}), None)
    assert caught.value.mend


OUT_OF_DOMAIN = {
    "coefficients that scale nothing": {"coefficients": "1,1,1"},
    "a negative coefficient": {"coefficients": "1.2,-1.1,1.15"},
    "nan": {"coefficients": "nan,1.1,1.15"},
    "an overflow of coefficients": {"coefficients": "1e308,1e308,1"},
    "a growth of 0": {"coefficients": PAPERS, "growth": "0"},
    "a growth below 0": {"coefficients": PAPERS, "growth": "-2"},
    "an overflow of the exponent": {"coefficients": PAPERS, "phi": "1e9"},
    "an endless exponent": {"coefficients": PAPERS, "phi": "inf"},
}


@pytest.mark.parametrize("asked", OUT_OF_DOMAIN.values(), ids=OUT_OF_DOMAIN)
def test_numbers_out_of_their_domain_are_refused_with_the_mend(asked: dict[str, Any]):
    with pytest.raises(ScalingError) as caught:
        asked_family(FamilyRequest(**{"base": "b0", **asked}), None)
    assert caught.value.mend


def test_a_budget_that_is_none_is_refused():
    with pytest.raises(SpaceError, match="the base itself"):
        asked_family(FamilyRequest(base="b0", coefficients=PAPERS, budget="1x"), None)


def test_the_published_table_is_over_its_baseline_alone():
    with pytest.raises(PlanError, match="b3 is not the baseline of a published table"):
        asked_family(FamilyRequest(base="b3", published=True), None)
