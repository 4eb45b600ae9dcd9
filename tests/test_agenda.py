"""Claims of the agenda: stage follows stage, by results alone; and of what an outcome says of them."""

import json
from contextlib import closing
from functools import cache

import numpy as np
import pytest

from scalesearch.agenda import NEW_SEEDS, TRAVELLERS, agenda, arms, player
from scalesearch.decision import Ending
from scalesearch.documents import rank_document
from scalesearch.errors import PlanError
from scalesearch.findings import findings
from scalesearch.journal import NAME, Journal, read_journal
from scalesearch.levelling import TOLERANCE
from scalesearch.outcome import conclude
from scalesearch.plan import ANCHOR
from scalesearch.recipe import EpochResult
from scalesearch.request import Request, resolve
from scalesearch.search import entries, scaled
from scalesearch.space import REFERENCES
from scalesearch.travel import growth_checked, traveller
from scalesearch.trials import TrialResult, TrialState


@cache
def planned(**asked):
    return resolve(Request(preset="quick", **asked))


def trained(key, plan, layout, *, is_reversed=False):
    """A trial of a smooth landscape with noise of its own, upside down at another budget if `is_reversed`."""
    depth, width, resolution = (1 / 3,) * 3 if key.proxy == ANCHOR else layout.candidate(key.proxy).shares
    noise = np.random.default_rng([int(byte) for byte in f"{key}".encode()]).normal(0, 0.05)
    slope = 6 if is_reversed and key.stage == "travel" else -6
    value = 80 + slope * ((depth - 0.3) ** 2 + (width - 0.3) ** 2 + (resolution - 0.4) ** 2) + noise
    epochs = tuple(
        EpochResult(epoch=epoch, train_loss=1.0, accuracy=value, loss=1.0) for epoch in range(1, key.rung + 1)
    )
    state = TrialState.COMPLETE if key.rung == plan.epochs else TrialState.PRUNED
    return TrialResult(key=key, state=state, epochs=epochs)


def carried_out(plan, layout, **how):
    """Every agenda on the way, and the results at the end."""
    results, seen = {}, []
    while (now := agenda(plan, layout, list(results.values()))).stage is not None:
        seen.append(now)
        results |= {key: trained(key, plan, layout, **how) for key in now.due if key not in results}
    return [*seen, now], list(results.values())


FULL = {"confirm": 3, "check_phi": 2.0}


def test_stages_follow_one_another():
    seen, _ = carried_out(*planned(**FULL))
    stages = [now.stage for now in seen]
    assert list(dict.fromkeys(stages)) == ["search", "confirm", "travel", None]
    assert [now.stage for now in carried_out(*planned())[0]][-2:] == ["search", None]


@pytest.mark.parametrize("policy", ["fit", "race", "grid"])
def test_what_is_announced_is_not_exceeded(policy):
    plan, layout = planned(policy=policy, **FULL)
    seen, results = carried_out(plan, layout)
    assert all(len(results) <= now.most for now in seen)
    search = [result for result in results if result.key.stage == "search"]
    spent = sum(result.key.rung for result in search)
    assert spent <= plan.anchor_epochs + plan.search_epochs(len(layout.trained))


@pytest.mark.parametrize("policy", ["fit", "race"])
def test_a_search_cut_off_at_any_decision_goes_on_to_the_same_whatever_is_left_of_its_row(policy, tmp_path):
    plan, layout = planned(policy=policy, epochs=4)
    path, playing, results = tmp_path / NAME, player(plan, layout), {}
    with closing(Journal(path)) as journal:
        while (now := agenda(plan, layout, list(results.values()), playing)).stage is not None:
            journal.decide(playing.decided)
            for key in now.due:
                if key not in results:
                    results[key] = trained(key, plan, layout)
                    journal.start(key)
                    for epoch in results[key].epochs:
                        journal.report(key, epoch)
                    journal.end(key, results[key].state)
        journal.decide(playing.decided)
    content = path.read_bytes()
    places = [place for place in range(len(content)) if content.startswith(b'{"kind":"decided"', place)]
    assert len(places) == len(playing.decided) > 1
    for start in places:
        end = content.index(b"\n", start) + 1
        found = []
        for torn in (content[:start], content[: end - 9], content[:end]):
            path.write_bytes(torn)
            record = read_journal(path)
            found.append(agenda(plan, layout, record.results, player(plan, layout, record.decided)))
        assert found[0] == found[1] == found[2] == agenda(plan, layout, record.results)


def test_the_confirmation_has_new_seeds_the_leaders_the_references_and_the_base():
    plan, layout = planned(**FULL)
    seen, results = carried_out(plan, layout)
    due = next(now.due for now in seen if now.stage == "confirm")
    assert {key.seed for key in due} == set(range(NEW_SEEDS, NEW_SEEDS + plan.seeds))
    assert {key.rung for key in due} == {plan.epochs}
    confirmed = {key.proxy for key in due}
    named = {name for arm in arms(layout) if arm.id in confirmed for name in arm.references}
    assert named == {name for one in layout.candidates for name in one.references} <= set(REFERENCES)
    outcome = conclude(plan, layout, results)
    leading = [row.id for row in outcome.ranking.on_budget if row.seeds][:3]
    assert {ANCHOR, *leading} <= confirmed
    assert {row.id for row in outcome.confirmation.rows} == confirmed
    assert outcome.final is outcome.confirmation


def test_only_trials_of_the_confirmation_enter_its_table():
    plan, layout = planned(confirm=3)
    _, results = carried_out(plan, layout)
    outcome = conclude(plan, layout, results)
    for row in outcome.confirmation.rows:
        own = [one.accuracy for one in results if (one.key.proxy, one.key.stage) == (row.id, "confirm")]
        assert row.mean == pytest.approx(np.mean(own))
        assert row.seeds == plan.seeds


def test_travelling_networks_have_the_same_shares_at_the_other_budget():
    plan, layout = planned(**FULL)
    seen, _ = carried_out(plan, layout)
    due = next(now.due for now in seen if now.stage == "travel")
    assert growth_checked(plan) == 4.0
    names = {key.proxy for key in due}
    assert len(names) >= TRAVELLERS
    for key, entry in zip(due, entries(plan, layout, due), strict=True):
        found, one = scaled(key, plan, layout), layout.candidate(key.proxy)
        assert entry.target == 4.0
        assert found.network.digest == traveller(one, plan).network.digest == entry.digest
        if not set(one.references) & {"depth", "width", "resolution"}:
            assert abs(found.growth / 4.0 - 1) <= TOLERANCE
            assert np.allclose(found.effective.shares, one.shares, atol=0.12)


@pytest.mark.parametrize(("is_reversed", "says"), [(False, "holds (τ"), (True, "does not hold")])
def test_a_rule_that_travels_is_told_from_one_that_does_not(is_reversed, says):
    plan, layout = planned(**FULL)
    _, results = carried_out(plan, layout, is_reversed=is_reversed)
    outcome = conclude(plan, layout, results)
    said = next(line for line in findings(outcome) if line.startswith("At φ 2 (4x)"))
    assert says in said
    assert outcome.travel.ranking.leader is not None


def test_a_negative_exponent_scales_down():
    plan, layout = planned(check_phi=-1.0)
    seen, _ = carried_out(plan, layout)
    due = next(now.due for now in seen if now.stage == "travel")
    assert growth_checked(plan) == 0.5
    assert all(scaled(key, plan, layout).growth < 0.65 for key in due)


def test_what_is_not_finished_says_so():
    plan, layout = planned(**FULL)
    _seen, results = carried_out(plan, layout)
    for stage, said in (("search", "The search has not ended"), ("confirm", "The confirmation has not ended")):
        part = [one for one in results if one.key.stage == "search"]
        kept = part[: len(part) - 3] if stage == "search" else part
        outcome = conclude(plan, layout, kept)
        assert outcome.stage == stage
        assert findings(outcome)[0].startswith(said)
        assert outcome.confirmation is None
    whole = conclude(plan, layout, results)
    assert whole.search.ending in Ending
    assert not any("has not ended" in line for line in findings(whole))


def test_the_document_is_json_and_does_not_depend_on_the_order_of_results():
    plan, layout = planned(**FULL)
    _, results = carried_out(plan, layout)
    document = rank_document(conclude(plan, layout, results))
    assert json.loads(json.dumps(document)) == document
    random = np.random.default_rng(0)
    shuffled = [results[i] for i in random.permutation(len(results))]
    assert json.dumps(rank_document(conclude(plan, layout, shuffled))) == json.dumps(document)
    assert document["findings"][0].startswith("On the test part, with 2 new seeds each:")
    assert document["search"]["policy"] == "fit"


def test_short_and_long_training_are_compared_in_a_race():
    plan, layout = planned(policy="race", candidates=40, margin=1.0)
    _, results = carried_out(plan, layout)
    outcome = conclude(plan, layout, results)
    assert [agreement.short for agreement in outcome.fidelity.agreements] == [1]
    assert any(line.startswith("Short and long training agree (τ") for line in findings(outcome))


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        ({"check_phi": 1.0}, "--check-phi 1"),
        ({"check_phi": 0.0}, "--check-phi 0"),
        ({"check_phi": 9.0}, "check-phi 9"),
        ({"margin": -0.1}, "margin -0.1"),
        ({"confirm": -1}, "confirm -1"),
        ({"max_epochs_total": 0}, "max-epochs-total 0"),
        ({"base": "tests.builders:convnet", "check_phi": 2.0}, "--check-phi"),
    ],
)
def test_what_cannot_be_asked_is_refused(asked, fault):
    with pytest.raises(PlanError, match=fault):
        resolve(Request(preset="quick", **asked))
