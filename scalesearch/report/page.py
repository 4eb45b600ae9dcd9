"""The report as one HTML file: figures, tables and scripts inside; nothing is fetched, no foreign script runs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs  # pyright: ignore[reportMissingTypeStubs]

from scalesearch.documents import rank_document, status_document
from scalesearch.presets import WORTH
from scalesearch.report import lists
from scalesearch.report.again import builder_option, is_file, study_file
from scalesearch.report.compute import compute_figure, cost_figure, spending
from scalesearch.report.explorer import explorer_document
from scalesearch.report.facts import Facts
from scalesearch.report.figure import Drawn, Figure
from scalesearch.report.kin import SOURCE, family_figure, published_networks
from scalesearch.report.ranked import off_budget, ranking_figure
from scalesearch.report.sentences import (
    counted,
    family_note,
    headline,
    is_sure,
    lead,
    rule_hint,
    slots,
    standing,
    words,
)
from scalesearch.report.shares import shares_figure
from scalesearch.report.simplex import simplex_figure
from scalesearch.report.sources import bibtex
from scalesearch.report.svg import STYLE, svg
from scalesearch.report.training import curves_figure, fidelity_figures, steps

HERE = Path(__file__).parent
WIDE, HALF, NARROW = 920, 440, 350
"""Widths that figures are drawn at [px]: whole or half the page, and a phone's; the page shows what fits."""
UNBROKEN = re.compile(r"\bd[\d.]{1,9}-w[\d.]{1,9}-r\d{1,9}\b|[\d.]{1,9} %|--[a-z-]{1,20}")
SCRIPTS = ("scaling.js", "explorer.js", "page.js")


def figures(facts: Facts) -> dict[str, list[Drawn]]:
    """Every figure of a report, by the section it belongs to."""
    run, outcome = facts.run, facts.outcome
    plan, layout = run.plan, run.layout
    members = (facts.family or {}).get("members", [])
    theirs = published_networks(plan.base.name)
    ranked = [
        ranking_figure(
            outcome.ranking if outcome else None,
            outcome.anchor if outcome else (),
            id="ranking",
            title="The search, on the validation images",
            off=off_budget(layout),
        )
    ]
    if outcome and outcome.confirmation:
        title = "Confirmed on the test part"
        ranked.append(ranking_figure(outcome.confirmation, id="confirmation", title=title, part="test"))
    if outcome and outcome.travel:
        title = f"At φ {outcome.travel.phi:g}, {outcome.travel.growth:.3g}x, on the validation images"
        ranked.append(ranking_figure(outcome.travel.ranking, id="travel", title=title))
    return {
        "verdict": [shares_figure(outcome)],
        "ranking": ranked,
        "simplex": [simplex_figure(outcome, facts.terrain)],
        "compute": [compute_figure(plan, layout)],
        "curves": [curves_figure(plan, run.results, outcome.ranking.leader if outcome else None)],
        "fidelity": fidelity_figures(outcome, run.results),
        "family": [family_figure("macs", members, theirs), family_figure("params", members, theirs)],
        "cost": [cost_figure(plan, layout, spending(plan, layout, run.results))],
    }


def page(facts: Facts) -> str:
    """The whole report."""
    drawn = figures(facts)
    every = {one.id: one.to_dict() for group in drawn.values() for one in group if isinstance(one, Figure)}
    explorer = explorer_document(facts)
    script = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    plotly = get_plotlyjs()
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        drawn=_inline,
        whole=_whole,
        WIDE=WIDE,
        HALF=HALF,
        WORTH=WORTH,
        facts=facts,
        run=facts.run,
        plan=facts.run.plan,
        outcome=facts.outcome,
        status=status_document(facts.run),
        ranking=rank_document(facts.outcome) if facts.outcome else None,
        headline=headline(facts),
        standing=standing(facts),
        lead=lead(facts),
        is_sure=is_sure(facts.outcome) if facts.outcome else False,
        rule_hint=rule_hint(facts.outcome) if facts.outcome else "",
        words=words(facts),
        counted=counted(facts.outcome) if facts.outcome else "",
        family_note=family_note(facts),
        figures=drawn,
        tables=_tables(facts),
        explorer=explorer,
        slots=slots((facts.environment or {}).get("slots", [])),
        settings=yaml.safe_dump(facts.run.plan.to_dict(), sort_keys=False, allow_unicode=True),
        place=shlex.quote(str(facts.run.folder)),
        study=study_file(facts.run.plan),
        is_file=is_file(facts.run.plan),
        builder=builder_option(facts.run.plan),
        sources=bibtex(facts.run.plan, facts.outcome),
        style=Markup((HERE / "page.css").read_text(encoding="utf-8") + STYLE.read_text(encoding="utf-8")),
        script=Markup(script),
        plotly=Markup(plotly),
        policy="default-src 'none'; base-uri 'none'; form-action 'none'; "
        "style-src 'unsafe-inline'; img-src data: blob:; "
        f"script-src {_hash(script)} {_hash(plotly)}",
        data=Markup(_embedded({"figures": every, "explorer": explorer})),
    )


def _tables(facts: Facts) -> dict[str, lists.Table]:
    """Tables by the section they belong to; those that there is nothing for are left out."""
    run, outcome = facts.run, facts.outcome
    theirs = published_networks(run.plan.base.name)
    found = {
        "compute": lists.candidates_table(run.layout),
        "family": lists.family_table(run.plan, (facts.family or {}).get("members", [])),
        "cost": lists.spending_table(spending(run.plan, run.layout, run.results)),
    }
    if outcome is not None:
        found["ranking"] = lists.ranking_table(outcome.final, run.layout)
        if outcome.fidelity.agreements:
            found["fidelity"] = lists.places_table(steps(outcome, run.results))
    if run.results:
        found["curves"] = lists.trials_table(run.results)
    if theirs:
        found["published"] = lists.published_table(theirs, SOURCE)
    return found


def _inline(figure: Figure, width: int) -> Markup:
    """A figure for the page and for a phone; the style sheet shows one."""
    wide, narrow = (
        svg(figure, width).replace('class="figure"', f'class="figure {name}"', 1)
        for width, name in ((width, "wide"), (NARROW, "narrow"))
    )
    return Markup(wide + narrow)


def _whole(text: str) -> Markup:
    """A text whose names of candidates, percentages and options are not broken at the end of a line."""
    return Markup(UNBROKEN.sub(r'<span class="whole">\g<0></span>', str(escape(text))))


def _hash(script: str) -> str:
    """What a content security policy knows a script by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _embedded(values: dict[str, Any]) -> str:
    """JSON that cannot end the element it stands in, whatever its texts hold."""
    text = json.dumps(values, separators=(",", ":"))  # ASCII alone
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
