"""The command line as a whole: its frozen surface, its documents, and nonsense answered in one line with the mend."""

import os
import shutil
import sys
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from calling import Call
from networks import EFFICIENTNET, EXACT

from scalesearch.agenda import agenda
from scalesearch.cli import _code
from scalesearch.cli.commands import app
from scalesearch.cost import count
from scalesearch.journal import NAME, Journal
from scalesearch.plan import ANCHOR
from scalesearch.recipe import EpochResult
from scalesearch.request import Request, resolve
from scalesearch.runfolder import claimed
from scalesearch.space import LARGEST_BUDGET
from scalesearch.trials import TrialState

PAPERS_RULE = "the paper's rule for B0 is α 1.2 β 1.1 γ 1.15"


# ---- the surface

SURFACE = {
    "run": [
        "--base", "--budget", "--rounding", "--step", "--tolerance", "--data", "--data-root", "--download", "--preset",
        "--policy", "--margin", "--max-epochs-total", "--confirm", "--check-phi",
        "--candidates", "--seeds", "--epochs", "--images", "--threads", "--together", "--proxy-resolution",
        "--max-params", "--max-activations", "--max-memory", "--max-hours", "--study", "--storage", "--cache",
        "--engine", "--address", "--cpus-per-trial", "--gpus-per-trial", "--checkpoints", "--out", "--live", "--log",
        "--quiet", "--json",
    ],
    "plan": [
        "--base", "--budget", "--rounding", "--step", "--tolerance", "--data", "--data-root", "--preset",
        "--policy", "--margin", "--max-epochs-total", "--confirm", "--check-phi",
        "--candidates", "--seeds", "--epochs", "--images", "--threads", "--together", "--proxy-resolution",
        "--max-params", "--max-activations", "--max-memory", "--study", "--json",
    ],
    "scale": [
        "--base", "--depth", "--width", "--resolution", "--rounding", "--budget", "--phi", "--classes", "--measure",
        "--json",
    ],
    "rank": ["RUN", "--json"],
    "status": ["RUN", "--json"],
    "repair": ["RUN", "--storage", "--json"],
    "report": ["RUN", "--open", "--figures", "--out", "--json"],
    "emit": [
        "RUN", "--candidate", "--base", "--coefficients", "--budget", "--published", "--phi", "--growth", "--classes",
        "--max-params", "--max-activations", "--max-memory", "--weights", "--from-weights", "--naming", "--out",
        "--quiet", "--json",
    ],
    "schema": [],
}  # fmt: skip
"""Every command with its arguments and options: a new one is a deliberate row here."""

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_the_surface_is_the_frozen_one():
    found = {
        name: [
            *["RUN" for one in command.params if one.param_type_name == "argument"],
            *[text for one in command.params if one.param_type_name == "option" for text in one.opts],
        ]
        for name, command in COMMANDS.items()
    }
    assert found == SURFACE


def test_options_before_the_command_are_few():
    top = typer.main.get_command(app)
    names = {text for one in top.params for text in one.opts}
    shell = {"--install-completion", "--show-completion"}
    assert names == {"--traceback", "--version"} | shell


def test_the_version_is_that_of_the_package(call: Call):
    assert call("--version") == (0, f"scalesearch {version('scalesearch')}\n", "")


@pytest.mark.parametrize("name", SURFACE)
def test_every_command_and_every_option_says_what_it_is(name: str):
    assert COMMANDS[name].help
    assert [one.opts for one in COMMANDS[name].params if not one.help] == []


@pytest.mark.parametrize("name", SURFACE)
def test_help_of_every_command_shows_every_option(name: str, call: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    told = call(name, "--help")
    assert (told.code, told.err) == (0, "")
    assert all(option in told.out for option in SURFACE[name])


@pytest.mark.parametrize("name", ["", *SURFACE])
def test_help_shows_no_type_behind_a_flag(name: str, call: Call):
    assert "<bool>" not in call(*name.split(), "--help").out


def test_the_many_options_of_a_run_stand_in_groups(call: Call):
    out = call("run", "--help").out
    groups = ("Options", "What is scaled", "Training", "Search", "Where it runs", "Output")
    assert [out.count(f"─ {name} ─") for name in groups] == [1] * len(groups)


def test_help_lists_every_command(call: Call):
    told = call("--help")
    assert (told.code, told.err) == (0, "")
    assert all(name in told.out for name in SURFACE)


def test_no_command_at_all_shows_the_help_and_nothing_odd(call: Call):
    told = call()
    assert told.code in (0, 2)
    assert "Usage" in told.out + told.err
    assert "scalesearch: ;" not in told.err


# ---- plan

PLAN = {
    "schema_version", "base", "proxy_base", "budget", "rounding", "preset", "seeds", "epochs", "image_passes",
    "nominal_points", "candidates", "excluded", "policy", "margin", "confirm", "check_phi", "most_epochs",
}  # fmt: skip
CANDIDATE = {
    "id", "alpha", "beta", "gamma", "points", "references", "off_budget", "effective", "shares", "nominal_growth",
    "realised_growth", "macs", "params", "activations", "depths", "widths", "stem", "head", "resolution", "trained",
    "proxy",
}  # fmt: skip


def test_the_document_of_a_plan_has_the_keys_that_others_build_on(call: Call):
    told = call("plan", "--base", "b0", "--budget", "2x", "--json")
    assert (told.code, told.err) == (0, "")
    document = told.document
    assert set(document) >= PLAN
    assert document["schema_version"] == 2
    b0 = EXACT["efficientnet_b0"]
    assert document["base"] == {
        "name": "b0",
        "macs": b0["macs"],
        "params": b0["params"],
        "activations": b0["activations"],
        "resolution": 224,
    }
    assert set(document["proxy_base"]) >= {"macs", "params", "activations", "resolution"}
    assert (document["budget"], document["rounding"], document["preset"]) == (2.0, "level", "quick")
    for one in document["candidates"]:
        assert set(one) == CANDIDATE
        assert set(one["effective"]) == {"depth", "width", "resolution"}
        assert set(one["proxy"]) >= {"macs", "growth", "depths", "widths", "resolution"}
        assert all(len(point) == 3 for point in one["points"])
        assert one["points"] or one["references"]


def test_the_document_of_a_plan_holds_its_facts(call: Call):
    document = call("plan", "--json").document
    candidates = document["candidates"]
    assert document["nominal_points"] == sum(len(one["points"]) for one in candidates) == 108
    assert 72 <= sum(bool(one["points"]) for one in candidates) <= 82
    plain = [one for one in candidates if not one["references"]]
    assert all(
        abs(one["realised_growth"] / 2 - 1) <= 0.03 and abs(one["proxy"]["growth"] / 2 - 1) <= 0.03 for one in plain
    )
    (paper,) = [one for one in candidates if "paper" in one["references"]]
    assert (sum(paper["depths"]), paper["resolution"]) == (19, 260)
    assert len({one["proxy"]["id"] for one in candidates if one["trained"]}) == 59
    assert (document["policy"], document["margin"], document["confirm"], document["check_phi"]) == ("fit", 0.1, 0, None)
    assert document["most_epochs"] == 26 * document["epochs"]
    assert document["image_passes"] == document["images"] * document["most_epochs"] <= 96_000


def test_the_plan_of_a_grid_trains_12_proxies_and_the_base_with_every_seed(call: Call):
    document = call("plan", "--policy", "grid", "--json").document
    assert len({one["proxy"]["id"] for one in document["candidates"] if one["trained"]}) == 12
    passes = document["images"] * document["epochs"] * document["seeds"] * 13
    assert document["image_passes"] == passes <= 96_000


def test_a_plan_for_people_says_what_it_spends_and_what_follows_the_search(call: Call):
    out = call("plan", "--confirm", 3, "--check-phi", 2).out
    assert "policy fit: at most 52 epochs of " in out
    assert "the first 3 and the references confirmed on the test part" in out
    assert "ranked again at φ 2" in out
    out = call("plan", "--policy", "grid").out
    assert "policy grid: 52 epochs of " in out
    assert "confirmed" not in out


def test_a_proxy_above_the_images_own_side_is_flagged(call: Call):
    candidates = call("plan", "--json").document["candidates"]
    flags = {one["proxy"]["resolution"] > 28: one["proxy"]["upsampled"] for one in candidates}
    assert flags == {True: True, False: False}


def test_the_plan_by_the_papers_rounding_is_65_networks(call: Call):
    document = call("plan", "--base", "b0", "--budget", "2x", "--rounding", "paper", "--json").document
    growths = [one["realised_growth"] for one in document["candidates"] if one["points"]]
    assert (document["nominal_points"], len(growths)) == (108, 65)
    assert (round(min(growths), 3), round(max(growths), 3)) == (1.928, 3.329)


def test_exclusions_are_listed_with_point_and_reason(call: Call):
    excluded = call("plan", "--budget", "0.25x", "--json").document["excluded"]
    assert excluded
    assert all(set(one) == {"alpha", "beta", "gamma", "reference", "reason"} and one["reason"] for one in excluded)


def test_a_plan_for_people_opens_with_its_evidence_and_the_papers_rule(call: Call):
    told = call("plan")
    first = told.out.splitlines()[0]
    assert first.startswith("evidence: quick look")
    assert PAPERS_RULE in first
    assert "108 grid points" in told.out
    assert "interpolation adds no information" in told.out
    assert call("plan", "--preset", "standard").out.startswith("evidence: standard")


def test_the_proxy_base_is_printed(call: Call):
    assert "proxy base: 20 px" in call("plan").out
    assert "proxy base: 26 px" in call("plan", "--proxy-resolution", "26").out


def test_options_win_over_the_study_file(call: Call, tmp_path: Path):
    (tmp_path / "study.yaml").write_text("budget: 1.5x\nseeds: 3\nepochs: 1\n")
    document = call("plan", "--study", "study.yaml", "--budget", "2x", "--json").document
    assert (document["budget"], document["seeds"], document["epochs"]) == (2.0, 3, 1)


# ---- scale

SHAPE = {"depths", "widths", "stem", "head", "resolution", "macs", "params", "activations"}


@pytest.mark.parametrize("name", [f"b{i}" for i in range(6)])
def test_the_published_multipliers_count_and_measure_as_published(name: str, call: Call):
    (row,) = [row for row in EFFICIENTNET.published if row.name == name]
    sizes = ("--width", row.width, "--depth", row.depth, "--resolution", row.resolution)
    told = call("scale", "--base", "b0", *sizes, "--rounding", "paper", "--measure", "--json")
    assert (told.code, told.err) == (0, "")
    document, exact = told.document, EXACT[f"efficientnet_{name}"]
    assert set(document) >= SHAPE | {"schema_version", "measured"}
    assert (document["macs"], document["params"], document["activations"]) == (
        exact["macs"],
        exact["params"],
        exact["activations"],
    )
    assert document["measured"] == {
        "macs": exact["macs"],
        "by_operator": exact["fvcore_eval_by_operator"],
        "total": exact["fvcore_eval_total"],
    }


def test_scale_without_multipliers_describes_the_base(call: Call):
    told = call("scale", "--base", "b0")
    assert told.code == 0
    assert "385,814,752" in told.out
    assert "5,288,548" in told.out
    assert "measured" not in call("scale", "--base", "b0", "--json").document


def test_scale_prints_the_target_it_levels_to(call: Call):
    sizes = ("--base", "b0", "--depth", 1.2, "--width", 1.1, "--resolution", 258)
    assert "aiming at 1.926x" in call("scale", *sizes).out  # 1.2 · 1.1² · (258/224)²
    assert "aiming at 2x" in call("scale", *sizes, "--budget", "2x").out
    document = call("scale", *sizes, "--budget", "2x", "--json").document
    assert document["growth_asked"] == 2.0
    assert abs(document["realised_growth"] / 2 - 1) <= 0.03


def test_fvcores_total_is_shown_beside_the_macs_with_each_convention_named(call: Call):
    out = call("scale", "--base", "b0", "--measure").out
    assert f"{EXACT['efficientnet_b0']['fvcore_eval_total']:,}" in out
    assert all(word in out for word in ("multiply-adds", "fvcore", "batch norm", "pooling"))


# ---- run folders


REQUEST = Request(budget="0.5x", preset="quick", policy="grid", candidates=3, seeds=2, epochs=1, images=256)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose trials have ended as if trained: one of the eight failed."""
    folder = tmp_path_factory.mktemp("runs") / "b0"
    plan, layout = resolve(REQUEST)
    with claimed(folder, plan), closing(Journal(folder / NAME)) as journal:
        for place, key in enumerate(agenda(plan, layout, []).due, start=1):
            journal.start(key)
            if place == 8:
                journal.end(key, TrialState.FAILED, "diverged: the training loss of epoch 1 is not finite")
                continue
            accuracy = 50.0 if key.proxy == ANCHOR else 60.0 + place
            journal.report(key, EpochResult(epoch=1, train_loss=1.0, accuracy=accuracy, loss=1.0))
            journal.end(key, TrialState.COMPLETE)
    return folder


def test_the_document_of_a_status_has_the_keys_that_others_build_on(run_folder: Path, call: Call):
    told = call("status", run_folder, "--json")
    assert (told.code, told.err) == (0, "")
    assert told.document == {
        "schema_version": 2,
        "state": "finished",
        "stage": None,
        "done": 7,
        "running": 0,
        "failed": 1,
        "total": 8,
        "eta_s": 0,
    }
    assert "finished: 7 of 8 trials done" in call("status", run_folder).out


def test_the_document_of_a_ranking_is_on_stdout_alone(run_folder: Path, call: Call):
    told = call("rank", run_folder, "--json")
    assert (told.code, told.err) == (0, "")
    document = told.document
    assert set(document) >= {
        "schema_version",
        "verdict",
        "chosen",
        "noise_sd",
        "df",
        "seeds_needed",
        "failed",
        "candidates",
    }
    assert len(document["failed"]) == 1


@pytest.mark.parametrize("content", ["#!/bin/sh\necho not found >&2; exit 3\n", None, "#!/bin/sh\necho fine >&2\n"])
def test_a_page_that_no_browser_shows_is_named_in_one_line(
    content: str | None,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    if content:
        (tmp_path / "bin" / "xdg-open").write_text(content)
        (tmp_path / "bin" / "xdg-open").chmod(0o755)
    page = tmp_path / "page.html"
    assert _code(["report", str(run_folder), "--out", str(page), "--open"]) == 0
    told = "" if content and "fine" in content else f"no browser can be opened here; the page is {page}"
    assert "".join(capfd.readouterr().err.splitlines()) == told
    assert page.is_file()


def test_a_ranking_for_people_opens_with_its_evidence_and_names_the_failures(run_folder: Path, call: Call):
    told = call("rank", run_folder)
    assert told.out.startswith("evidence: quick look")
    assert PAPERS_RULE in told.out.splitlines()[0]
    assert "conditional on this validation split" in told.out
    assert "diverged" in told.out


def test_reading_a_run_changes_nothing(run_folder: Path, call: Call):
    before = {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()}
    for command in ("rank", "status"):
        assert call(command, run_folder).code == 0
    assert {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()} == before


def test_a_run_folder_of_another_plan_is_refused_with_the_difference(run_folder: Path, call: Call):
    told = call("run", "--budget", "4x", "--preset", "quick", "--out", run_folder, "--quiet")
    assert (told.code, told.out) == (2, "")
    assert one_line(told.err)
    assert "holds another plan" in told.err
    assert "--out" in told.err


# ---- emit


def test_emit_writes_a_family_of_given_coefficients(call: Call, tmp_path: Path):
    asked = ("--base", "b0", "--coefficients", "1.2,1.1,1.15", "--growth", "1.5", "--classes", 10)
    told = call("emit", *asked, "--out", tmp_path / "family", "--json")
    assert told.code == 0
    document = told.document
    assert document["schema_version"] == 1
    (member,) = document["members"]
    keys = {
        "name", "phi", "growth_asked", "realised_growth", "macs", "params", "activations", "resolution", "depths",
        "widths", "dropout", "digest", "files",
    }  # fmt: skip
    assert set(member) >= keys
    assert (member["name"], member["growth_asked"]) == ("b0-x1.5", 1.5)
    assert abs(member["realised_growth"] / 1.5 - 1) <= 0.03
    assert {Path(name).name for name in member["files"]} == {"config.yaml", "network.py"}
    assert all((tmp_path / "family" / name).is_file() for name in member["files"])
    config = yaml.safe_load((tmp_path / "family" / "b0-x1.5" / "config.yaml").read_text())
    assert config["evidence"] == document["evidence"] == "given"


def test_emit_of_a_run_takes_its_evidence_and_the_rule_of_a_candidate(run_folder: Path, call: Call, tmp_path: Path):
    leader = call("rank", run_folder, "--json").document["chosen"]
    plan, layout = resolve(REQUEST)
    other = next(one for one in layout.candidates if one.proxy_id != leader["id"])
    told = call("emit", run_folder, "--candidate", other.id, "--growth", 0.5, "--out", tmp_path / "family", "--json")
    assert told.code == 0
    assert told.document["evidence"] == "quick look"
    assert told.document["rule"]["shares"] == pytest.approx(list(other.shares))
    config = yaml.safe_load((tmp_path / "family" / "b0-x0.5" / "config.yaml").read_text())
    assert config["evidence"] == "quick look"
    assert (config["paper_rule"]["alpha"], config["paper_rule"]["beta"], config["paper_rule"]["gamma"]) == (
        1.2,
        1.1,
        1.15,
    )
    assert plan.budget == "0.5x"


@pytest.mark.parametrize("command", [("rank",), ("emit", "--growth", 0.5)])
def test_what_rests_on_a_torn_journal_says_so(
    command: tuple[object, ...], run_folder: Path, call: Call, tmp_path: Path
):
    torn = tmp_path / "torn"
    shutil.copytree(run_folder, torn)
    os.truncate(torn / NAME, (torn / NAME).stat().st_size - 1)
    told = call(command[0], torn, *command[1:], "--json")
    assert told.code == 0
    said = "1 line of the journal is damaged: what rests on it counts as not trained"
    assert told.err.splitlines()[0] == f"{said}; `scalesearch repair {torn}` mends the file"


def test_a_family_of_another_rule_is_not_replaced(call: Call, tmp_path: Path):
    rule = ("emit", "--base", "b0", "--coefficients", "1.2,1.1,1.15", "--growth", "1.5")
    assert call(*rule).code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for other in (("--coefficients", "1.1,1.1,1.2", "--growth", "1.5"), ("--published",)):
        told = call("emit", "--base", "b0", *other)
        assert (told.code, told.out) == (2, "")
        assert told.refusal == (
            "scalesearch: family holds the family of another rule; choose another folder with --out"
        )
    assert call("emit", "--base", "lite0", *rule[3:]).code == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert call(*rule).code == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_family_in_a_run_folder_follows_the_run_and_is_kept_from_others(run_folder: Path, call: Call):
    family = run_folder / "family"
    assert call("emit", "--base", "b0", "--coefficients", "1.2,1.1,1.15", "--growth", "1.5", "--out", family).code == 0
    refused = call("emit", run_folder, "--growth", "0.5", "--out", family)
    assert "holds the family of another rule" in refused.refusal
    assert call("emit", run_folder, "--growth", "0.5").code == 0
    assert [path.name for path in family.iterdir() if path.is_dir()] == ["b0-x0.5"]


@pytest.mark.parametrize("is_linked", [False, True], ids=["in the folder", "where a link of it leads"])
def test_a_family_goes_into_a_run_folder_while_nobody_else_works_in_it(
    is_linked: bool, run_folder: Path, call: Call, tmp_path: Path
):
    from scalesearch.runfolder import held

    folder = shutil.copytree(run_folder, tmp_path / "run")
    if is_linked:
        (tmp_path / "disk").mkdir()
        (folder / "mine").symlink_to(tmp_path / "disk")
    with held(folder):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        refused = call("emit", folder, "--growth", "0.5", "--out", folder / "mine").refusal
        assert f"{folder} is in use by pid {os.getpid()}" in refused
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        assert call("emit", folder, "--growth", "0.5", "--out", tmp_path / "elsewhere").code == 0
    assert call("emit", folder, "--growth", "0.5", "--out", folder / "mine").code == 0
    assert not (folder / ".holder").exists()


def test_a_file_is_no_place_for_a_family(call: Call, tmp_path: Path):
    (tmp_path / "notes").write_text("mine")
    told = call("emit", "--base", "b0", "--published", "--out", "notes")
    assert (told.refusal, told.out) == ("scalesearch: notes is no folder; choose another folder with --out", "")
    assert (tmp_path / "notes").read_text() == "mine"


# ---- nonsense

NONSENSE = {
    # command line: a word of the mend
    "plan --budget 0x": f"1/{LARGEST_BUDGET:g}x",
    "plan --budget 1x": "1.03x",
    "plan --budget -2x": "such as 2x",
    "plan --budget abc": "such as 2x",
    "plan --budget=": "such as 2x",
    "plan --budget 2xx --rounding paper": "such as 2x",
    "plan --base b9": "did you mean b8?",
    "plan --base resnet50000": "known bases: b0",
    "plan --step 0": "at least",
    "plan --step nan": "at least",
    "plan --step 5": "lower --step",
    "plan --tolerance 0": "raise --tolerance",
    "plan --tolerance -1": "0 or more",
    "plan --tolerance 0.001 --step 0.3": "raise --tolerance",
    "plan --seeds 0": "at least 1",
    "plan --seeds two": "--help",
    "plan --epochs 1.5": "--help",
    "plan --rounding up": "'level', 'paper'",
    "plan --preset fast": "'quick', 'standard'",
    "plan --policy halving": "'fit', 'race', 'grid'",
    "plan --margin -1": "at least 0",
    "plan --max-epochs-total 0": "at least 1",
    "plan --max-epochs-total 7": "--max-epochs-total 8 or more",
    "plan --confirm -1": "at least 0",
    "plan --check-phi 1": "other than 0 and 1",
    "plan --check-phi nan": "at least -4",
    "plan --buget 2x": "--budget",
    "plan extra": "--help",
    "plan --data nowhere": "torchvision:NAME",
    "plan --data torchvision:CIFAR11": "did you mean torchvision:CIFAR10?",
    "plan --study nowhere.yaml": "give a YAML file",
    "plan --budget abc --base b9 --data nowhere --seeds 0": "at least 1",
    "run --budget 0x": f"1/{LARGEST_BUDGET:g}x",
    "run --base b9": "did you mean b8?",
    "run --data nowhere": "torchvision:NAME",
    "run --study nowhere.yaml": "give a YAML file",
    "run --max-hours -1": "--help",
    "run --max-hours nan": "--help",
    "run --max-hours inf": "--help",
    "plan --base .": "is there, but no base file; give a FILE.yaml",
    "scale --base http://x/y.yaml": "'http://x/y.yaml' is no file of this machine",
    "plan --budget 1e5x": "no exponents",
    "run --cache /dev/null": "choose another folder with --cache",
    "run --cache /dev/null/images": "/dev/null is no folder",
    "run --storage postgresql://127.0.0.1:1/none": "leave out --storage",
    "run --engine ray --address=": "--address is empty; give auto",
    "run --engine ray --checkpoints=": "--checkpoints is empty; give an absolute path",
    "run --engine ray --checkpoints runs": "such as /shared/runs or s3://bucket/runs",
    "run --engine ray --checkpoints s4://bucket/runs": "such as /shared/runs or s3://bucket/runs",
    "run --engine ray --address= --cpus-per-trial 0 --checkpoints=": "leave it out for a Ray of this machine; give at",
    "scale": "--base",
    "scale --base b9": "did you mean b8?",
    "scale --base b0 --depth 0": "positive",
    "scale --base b0 --width nan": "positive",
    "scale --base b0 --resolution 0": "at least 1",
    "scale --base b0 --depth 1.2 --budget 1x": "1.03x",
    "scale --base b0 --depth 1.2 --budget 8x": "--rounding paper",
    "rank": "RUN",
    "rank nowhere": "give a folder that `run` made",
    "status nowhere": "give a folder that `run` made",
    "emit nowhere": "give a folder that `run` made",
    "emit": "--coefficients A,B,G or --published",
    "emit --base b0": "--coefficients A,B,G or --published",
    "emit --base b9 --published": "did you mean b8?",
    "emit --base b0 --coefficients 1.2,1.1": "ALPHA,BETA,GAMMA",
    "emit --base b0 --coefficients 1.2,1.1,1.15 --growth 0": "(0, 4096]",
    "emit --base b0 --coefficients 1.2,1.1,1.15 --budget abc": "such as 2x",
    "fly": "--help",
}


def one_line(text: str) -> bool:
    return text.endswith("\n") and text.count("\n") == 1


@pytest.mark.parametrize("line", NONSENSE)
def test_nonsense_is_one_line_with_the_mend_and_exit_code_2(line: str, call: Call, tmp_path: Path):
    told = call(*line.split())
    assert (told.code, told.out) == (2, "")
    assert one_line(told.err), told.err
    assert told.err.startswith("scalesearch: ")
    assert NONSENSE[line] in told.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["status", "rank", "report", "repair", "emit"])
def test_an_empty_name_of_a_run_folder_is_not_the_current_one(command: str, call: Call):
    assert "it is empty" in call(command, "").refusal


def test_a_server_without_its_driver_is_told_with_the_extra_that_brings_it(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    told = call("run", "--budget", "0.5x", "--out", tmp_path / "run", "--storage", "postgresql://me@127.0.0.1:9/db")
    assert told.refusal == "scalesearch: --storage needs psycopg; pip install 'scalesearch[postgres]'"
    assert list(tmp_path.iterdir()) == []


PLACES = [
    ("run", "--out"),
    ("run", "--cache"),
    ("run", "--data-root"),
    ("run", "--study"),
    ("run", "--storage"),
    ("plan", "--study"),
    ("emit", "--out"),
    ("report", "--out"),
    ("report", "--figures"),
]


@pytest.mark.parametrize(("command", "option"), PLACES, ids=" ".join)
def test_an_empty_place_as_of_a_variable_that_is_not_set_is_refused_before_anything_is_made(
    command: str, option: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    told = call(command, *(("run",) if command == "report" else ()), option, "")
    assert told.refusal == f"scalesearch: Invalid value for '{option}': it is empty; see scalesearch {command} --help"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", NONSENSE)
def test_nonsense_with_json_is_one_document_with_the_same_code(line: str, call: Call):
    told = call(*line.split(), "--json")
    assert told.code == 2
    assert one_line(told.err), told.err
    document = told.document
    assert set(document) == {"schema_version", "error"}
    assert document["schema_version"] == 2
    assert set(document["error"]) >= {"kind", "message", "mend"}
    assert document["error"]["kind"].endswith("Error")
    assert NONSENSE[line] in f"{document['error']['message']}; {document['error']['mend']}"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Folders of images that cannot be used, one per fault."""
    (tmp_path / "one" / "cats").mkdir(parents=True)
    (tmp_path / "empty" / "cats").mkdir(parents=True)
    (tmp_path / "empty" / "dogs").mkdir()
    (tmp_path / "file.txt").write_text("no images")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and nothing more")
    return tmp_path


@pytest.mark.parametrize("name", ["one", "empty", "file.txt", "broken.npz"])
def test_data_that_cannot_be_used_is_one_line_with_its_path(name: str, data: Path, call: Call):
    told = call("plan", "--data", data / name)
    assert (told.code, told.out) == (2, "")
    assert one_line(told.err), told.err
    assert str(data / name) in told.err


def test_a_study_file_with_faults_is_one_line_with_all_its_keys(call: Call, tmp_path: Path):
    (tmp_path / "study.yaml").write_text("buget: 2x\nseeds: two\n")
    told = call("plan", "--study", "study.yaml", "--json")
    assert told.code == 2
    assert one_line(told.err), told.err
    assert "did you mean budget?" in told.err
    assert "seeds" in told.err
    assert told.err.count("study.yaml") == 1
    assert told.document["error"]["kind"] == "PlanError"
    assert len(told.document["error"]["faults"]) == 2


def test_a_traceback_is_shown_on_request_alone(call: Call):
    assert "Traceback" not in call("plan", "--budget", "abc").err
    asked = call("--traceback", "plan", "--budget", "abc")
    assert asked.code == 2
    assert "Traceback" in asked.err
    assert asked.err.splitlines()[-1].startswith("scalesearch: budget 'abc'")


def test_the_macs_of_b0_are_the_projects_measure_of_compute():
    assert count(EFFICIENTNET.baseline).macs == 385_814_752
