"""Whole runs of the real program: the run folder, the commands that read it, images of users, exit codes."""

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas
import pytest
import torch
import yaml
from calling import Call
from conftest import Program
from PIL import Image

from scalesearch.cli import _code
from scalesearch.engine.trial import identity_of, module_of
from scalesearch.engine.work import Work
from scalesearch.plan import lay_out, read_plan
from scalesearch.proxy.checkpoint import Checkpoint, write_checkpoint
from scalesearch.proxy.state import State
from scalesearch.request import Request, resolve
from scalesearch.runfolder import claimed
from scalesearch.spec import Network
from scalesearch.trials import TrialKey

FilesOf = Callable[[Path], dict[str, str]]
Finished = tuple[Path, Any]
FOLDER = {
    *("journal.jsonl", "study.db", "plan.yaml", "scan.json", "candidates.csv", "trials.csv", "ranking.json"),
    *("environment.json", "report.html"),
}
"""Files of a run folder, by docs/design.md, section 6."""
FOLDERS = {"family", "checkpoints", "logs"}
TRIALS = 8


def document(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    """The one JSON document that a command prints on stdout."""
    capsys.readouterr()
    assert _code([*map(str, arguments), "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    is_manifest = arguments[0] == "emit" and code == 0  # of the first schema still
    assert found["schema_version"] == (1 if is_manifest else 2)
    return found


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which a command is refused."""
    capsys.readouterr()
    assert _code([*map(str, arguments)]) == 2
    printed = capsys.readouterr()
    [line] = printed.err.splitlines()
    assert line.startswith("scalesearch: ")
    assert "; " in line
    assert "Traceback" not in printed.out
    return line


# ---- the run folder


def test_a_run_folder_holds_what_the_design_lists(finished: Finished):
    folder, _ = finished
    assert {path.name for path in folder.iterdir() if path.is_file()} >= FOLDER
    assert {path.name for path in folder.iterdir() if path.is_dir()} >= FOLDERS
    assert list((folder / "checkpoints").iterdir()) == []
    assert [path for path in folder.rglob("*") if path.suffix == ".tmp"] == []


def test_the_tables_of_a_run_agree_with_its_study(finished: Finished):
    folder, _ = finished
    trials = pandas.read_csv(folder / "trials.csv")
    stored = optuna.load_study(study_name="scalesearch", storage=f"sqlite:///{folder / 'study.db'}").trials
    assert list(trials["proxy"]) == [trial.user_attrs["proxy"] for trial in stored]
    assert list(trials["seed"]) == [trial.user_attrs["seed"] for trial in stored]
    assert list(trials["stage"]) == [trial.user_attrs["stage"] for trial in stored] == ["search"] * TRIALS
    assert list(trials["accuracy"]) == [trial.value for trial in stored]
    assert len(trials) == TRIALS
    candidates = pandas.read_csv(folder / "candidates.csv")
    assert set(candidates.loc[candidates["trained"], "proxy.id"]) == set(trials["proxy"]) - {"base"}
    assert candidates["id"].is_unique


def test_the_ranking_is_that_of_the_trials_without_the_anchor(finished: Finished):
    folder, _ = finished
    ranking = json.loads((folder / "ranking.json").read_text())
    trials = pandas.read_csv(folder / "trials.csv")
    means = trials[trials["proxy"] != "base"].groupby("proxy")["accuracy"].mean()
    assert {row["id"]: row["mean"] for row in ranking["candidates"]} == pytest.approx(dict(means))
    assert sorted(row["rank"] for row in ranking["candidates"]) == [1, 2, 3]
    assert ranking["rests_on"] == "means"  # three networks are no ground for a surface
    assert [row["estimate"] for row in ranking["candidates"]] == [row["mean"] for row in ranking["candidates"]]
    assert ranking["evidence"] == "quick look"


def test_what_a_run_tells_begins_with_its_evidence_and_the_papers_rule(finished: Finished):
    folder, program = finished
    lines = program.out.read_text().splitlines()
    assert lines[0].startswith("evidence: quick look")
    assert "1.2" in lines[0]
    assert f"{TRIALS}/{TRIALS} " in program.out.read_text()
    assert str(folder) in lines[-1]
    assert program.err.read_text() == ""


def test_the_environment_names_versions_and_slots(finished: Finished):
    found = json.loads((finished[0] / "environment.json").read_text())
    assert {"torch", "optuna", "scalesearch"} <= set(found["versions"])
    assert [slot["device"] for slot in found["slots"]] == ["cpu"] * len(found["slots"])
    assert 1 <= len(found["slots"]) <= 2


def cut_short(finished: Path, folder: Path, ended: int) -> None:
    """A copy of a run as it is left by a kill behind so many ends of trials."""
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("family", "study.db*", "*.csv", "ranking.json"))
    kept = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    while sum(b'"kind":"ended"' in line for line in kept) > ended:
        kept.pop()
    (folder / "journal.jsonl").write_bytes(b"".join(kept))


def test_other_versions_than_at_the_last_time_are_told_of_once_and_what_is_left_is_trained_beside_what_has_ended(
    finished: Finished, tiny_options: tuple[str, ...], call: Call, tmp_path: Path
):
    folder = tmp_path / "run"
    cut_short(finished[0], folder, TRIALS - 2)
    place, journal = folder / "environment.json", (folder / "journal.jsonl").read_bytes()
    now = json.loads(place.read_text())
    then = {**now, "versions": {**now["versions"], "torch": "1.0", "scalesearch": "0.0.1"}}
    place.write_text(json.dumps(then))
    changed = [f"{name} {then['versions'][name]} → {now['versions'][name]}" for name in ("scalesearch", "torch")]
    notice = f"other versions than when this folder was last at work: {', '.join(changed)}"
    told = [call("run", *tiny_options, "--out", folder) for _ in range(2)]
    assert [one.code for one in told] == [0, 0]
    assert [notice in one.out.splitlines() for one in told] == [True, False]
    found = json.loads(place.read_text())
    assert found["versions"] == now["versions"]
    assert [one["versions"] for one in found["before"]] == [now["versions"], then["versions"]]
    after = (folder / "journal.jsonl").read_bytes()
    assert after.startswith(journal)
    assert after.count(b'"kind":"ended"') == TRIALS
    for name in ("ranking.json", "trials.csv"):
        assert (folder / name).read_bytes() == (finished[0] / name).read_bytes()


def test_the_family_of_a_run_says_what_it_rests_on(finished: Finished):
    folder, _ = finished
    manifest = json.loads((folder / "family" / "manifest.json").read_text())
    ranking = json.loads((folder / "ranking.json").read_text())
    assert manifest["evidence"] == "quick look"
    assert manifest["paper_rule"] == {"alpha": 1.2, "beta": 1.1, "gamma": 1.15}
    assert manifest["rule"]["shares"] == pytest.approx(ranking["chosen"]["shares"])
    rule = manifest["rule"]
    assert rule["alpha"] * rule["beta"] ** 2 * rule["gamma"] ** 2 == pytest.approx(0.5)
    asked = [one["growth_asked"] for one in (*manifest["members"], *manifest["unreached"])]
    assert sorted(asked) == pytest.approx([0.25, 0.5, 0.5**0.5])
    assert {one["name"] for one in (*manifest["members"], *manifest["unreached"])} == {"b0-x0.7", "b0-x0.5", "b0-x0.25"}
    for member in manifest["members"]:
        assert member["realised_growth"] == pytest.approx(member["growth_asked"], rel=0.03)
        values = yaml.safe_load((folder / "family" / member["name"] / "config.yaml").read_text())
        assert values["evidence"] == "quick look"


# ---- commands on a run folder


def test_rank_prints_the_document_that_the_run_has_stored(finished: Finished, capsys: pytest.CaptureFixture[str]):
    found = document(capsys, "rank", finished[0])
    assert found == json.loads((finished[0] / "ranking.json").read_text())
    keys = {"findings", "verdict", "chosen", "search", "fidelity", "noise_sd", "df", "seeds_needed", "failed"}
    keys |= {"candidates"}
    assert keys <= found.keys()
    assert {"id", "alpha", "beta", "gamma", "shares"} <= found["chosen"].keys()
    row = {"id", "rank", "mean", "low", "high", "seeds", "p_best", "tied_with_best", "references"}
    assert all(row <= one.keys() for one in found["candidates"])
    assert found["df"] == 3
    assert found["failed"] == []


def test_status_of_a_finished_run(finished: Finished, capsys: pytest.CaptureFixture[str]):
    found = document(capsys, "status", finished[0])
    assert {key: found[key] for key in ("state", "stage", "done", "running", "failed", "total")} == {
        "state": "finished",
        "stage": None,
        "done": TRIALS,
        "running": 0,
        "failed": 0,
        "total": TRIALS,
    }
    assert "eta_s" in found


def test_rank_and_status_speak_to_people_too(finished: Finished, capsys: pytest.CaptureFixture[str]):
    assert _code(["rank", str(finished[0])]) == 0
    assert capsys.readouterr().out.startswith("evidence: quick look")
    assert _code(["status", str(finished[0])]) == 0
    assert f"finished: {TRIALS} of {TRIALS} trials done" in capsys.readouterr().out


def test_emit_takes_the_rule_of_a_named_candidate(
    finished: Finished, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    folder, _ = finished
    ranking = json.loads((folder / "ranking.json").read_text())
    other = next(row for row in ranking["candidates"] if row["id"] != ranking["chosen"]["id"])
    found = document(
        capsys, "emit", folder, "--candidate", other["id"], "--growth", "0.8", "--classes", 7, "--out", tmp_path / "out"
    )
    assert found["rule"]["shares"] == pytest.approx(other["shares"], abs=1e-4)
    keys = {"name", "phi", "growth_asked", "realised_growth", "macs", "params", "activations", "resolution"}
    keys |= {"depths", "widths", "dropout", "digest", "files"}
    [member] = found["members"]
    assert keys <= member.keys()
    assert member["phi"] == pytest.approx(math.log(0.8) / math.log(0.5))
    assert all((tmp_path / "out" / file).is_file() for file in member["files"])
    values = yaml.safe_load((tmp_path / "out" / member["name"] / "config.yaml").read_text())
    assert Network.from_dict(values["network"]).num_classes == 7
    assert refusal(capsys, "emit", folder, "--candidate", "d99").count("no candidate 'd99'") == 1


def test_the_same_command_again_trains_nothing_and_comes_to_the_same(
    finished: Finished,
    tiny_options: tuple[str, ...],
    files_of: FilesOf,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    before = files_of(folder)
    found = document(capsys, "run", *tiny_options, "--out", folder, "--quiet")
    after = files_of(folder)
    assert {name for name in before if after[name] != before[name]} <= {"environment.json", "report.html"}
    assert set(after) == set(before)
    assert {"folder", "ranking", "manifest"} <= found.keys()
    assert found["folder"] == str(folder)
    assert found["ranking"] == json.loads((folder / "ranking.json").read_text())
    assert found["manifest"] == json.loads((folder / "family" / "manifest.json").read_text())


def test_a_run_folder_of_another_plan_is_refused_with_the_difference_and_not_touched(
    finished: Finished, tiny_options: tuple[str, ...], files_of: FilesOf, capsys: pytest.CaptureFixture[str]
):
    folder, _ = finished
    before = files_of(folder)
    line = refusal(capsys, "run", *tiny_options, "--seeds", 3, "--out", folder)
    assert "holds another plan" in line
    assert "- seeds: 2" in line
    assert "+ seeds: 3" in line
    assert "--out" in line
    assert files_of(folder) == before


@pytest.mark.parametrize("command", ["rank", "status", "emit"])
def test_a_folder_without_a_run_is_refused_in_one_line(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    assert "is not a run folder" in refusal(capsys, command, tmp_path)
    error = document(capsys, command, tmp_path, code=2)["error"]
    assert error["kind"] == "StudyError"
    assert error["message"]
    assert error["mend"]


def test_a_damaged_journal_is_refused_by_every_command_and_a_damaged_study_by_none_that_reads(
    finished: Finished, tiny_options: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    (folder / "study.db").write_bytes((folder / "study.db").read_bytes()[:5000])
    assert document(capsys, "rank", folder) == json.loads((folder / "ranking.json").read_text())
    (folder / "journal.jsonl").write_bytes(b"no journal\n" * 100)
    for command in (["rank", folder], ["status", folder], ["emit", folder], ["run", *tiny_options, "--out", folder]):
        assert "journal.jsonl is damaged: none of its lines is whole" in refusal(capsys, *command)


# ---- study.yaml


STUDY = """
budget: 0.5x
preset: quick
policy: grid
candidates: 3
seeds: 2
epochs: 3
images: 256
proxy_resolution: 12
threads: 1
together: 1
"""


def test_a_study_file_asks_for_the_same_plan_as_the_options(
    finished: Finished, tiny_npz: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    file = tmp_path / "study.yaml"
    file.write_text(f"{STUDY}\ndata: {tiny_npz}\n")
    found = document(capsys, "plan", "--study", file)
    assert found["digest"] == read_plan(finished[0]).digest
    assert document(capsys, "plan", "--study", file, "--seeds", 5)["seeds"] == 5


def test_all_faults_of_a_study_file_are_told_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    file = tmp_path / "study.yaml"
    file.write_text("budgett: 2x\nseeds: three\nepochs: 1.5\n")
    line = refusal(capsys, "plan", "--study", file)
    assert "budgett is not a key (did you mean budget?)" in line
    assert "seeds: " in line
    assert "epochs: " in line


# ---- failing trials


def unusable(key: TrialKey, finished: Path, folder: Path) -> tuple[Path, Checkpoint, str]:
    """A checkpoint that is taken for a trial's, with the optimizer of another, as it would lie in a run folder."""
    plan = read_plan(finished)
    proxy = lay_out(plan).candidate(key.proxy).proxy
    assert proxy is not None
    path = folder / "checkpoints" / f"{key}.safetensors"
    work = Work(
        keys=(key,),
        network=proxy.network,
        recipe=plan.recipe,
        data=folder / "data",
        checkpoint=path,
        log=folder / "log",
    )
    fingerprint = json.loads((finished / "data" / "images.json").read_text())["fingerprint"]
    state = State(module_of(work.network, work.recipe, [key.seed], torch.device("cpu")), work.recipe).tensors()
    rest = {"losses": torch.zeros(1), "random.cpu": torch.get_rng_state()}
    tensors = {**state, **rest, "optimizer.0.exp_avg": torch.zeros(3, 5)}
    return path, Checkpoint(tensors=tensors, results=[], step=1), identity_of(work, fingerprint)


@pytest.mark.slow
def test_a_run_in_which_a_trial_keeps_failing_ends_with_3_and_ranks_the_rest(
    program: Callable[..., Any], finished: Finished, tiny_options: tuple[str, ...], tmp_path: Path
):
    ranked = json.loads((finished[0] / "ranking.json").read_text())["candidates"]
    key = TrialKey(proxy=ranked[-1]["id"], seed=1, rung=3)
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    write_checkpoint(*unusable(key, finished[0], folder))
    run = program("run", *tiny_options, "--out", folder, "--json")
    assert run.wait() == 3, run.err.read_text()
    found = json.loads(run.out.read_text())
    assert found["ranking"]["failed"] == [str(key)]
    assert "KeyError: 'step'" in (folder / "trials.csv").read_text()
    assert {row["id"]: row["seeds"] for row in found["ranking"]["candidates"]} == {
        row["id"]: 1 if row is ranked[-1] else 2 for row in ranked
    }
    assert run.err.read_text().count("tried again") == 2
    assert found["manifest"]["members"]


@pytest.mark.slow
def test_a_run_in_which_every_trial_diverges_says_so_in_one_line(
    program: Callable[..., Any], tiny_npz: Path, tmp_path: Path
):
    file = tmp_path / "study.yaml"
    file.write_text(
        f"{STUDY}\ndata: {tiny_npz}\nrecipe: {{learning_rate: 1.0e+30}}\n".replace("epochs: 3", "epochs: 1")
    )
    run = program("run", "--study", file, "--out", tmp_path / "run")
    assert run.wait() == 1
    [line] = run.err.read_text().splitlines()
    assert "diverged" in line
    trials = pandas.read_csv(tmp_path / "run" / "trials.csv")
    assert set(trials["state"]) == {"failed"}
    assert all("diverged" in reason for reason in trials["reason"])


# ---- images of users


def folder_of_images(folder: Path, *, classes: int = 2, count: int = 200) -> Path:
    """An ImageFolder in one split: noisy 32 px colour photos, each class of another colour."""
    noise = np.random.default_rng(0)
    for index in range(classes):
        (folder / f"class{index}").mkdir(parents=True)
        for number in range(count):
            pixels = noise.integers(0, 128, (32, 32, 3), np.uint8)
            pixels[..., index] += 100
            Image.fromarray(pixels).save(folder / f"class{index}" / f"{number:03d}.png")
    return folder


SHORT_OPTIONS = "--budget 0.5x --preset quick --policy grid --candidates 2 --seeds 1 --epochs 1 --proxy-resolution 12"


@pytest.mark.slow
def test_a_folder_of_colour_images_is_searched_and_one_seed_names_no_winner(
    program: Callable[..., Any], tmp_path: Path
):
    images = folder_of_images(tmp_path / "My Images")
    run = program("run", "--data", images, *SHORT_OPTIONS.split(), "--json")
    assert run.wait() == 0, run.err.read_text()
    found = json.loads(run.out.read_text())
    folder = run.out.parent / found["folder"]
    assert folder.name.startswith("b0-0.5x-my-images-")
    assert folder.name.endswith(read_plan(folder).digest[:8])
    plan = read_plan(folder)
    assert (plan.data.num_classes, plan.data.side, plan.data.class_names) == (2, 32, ("class0", "class1"))
    assert np.load(folder / "data" / "train_images.npy", mmap_mode="r").shape[1] == 3
    ranking = found["ranking"]
    assert ranking["noise_sd"] is None
    assert [row["low"] for row in ranking["candidates"]] == [None] * len(ranking["candidates"])
    assert [row["p_best"] for row in ranking["candidates"]] == [None] * len(ranking["candidates"])
    assert "has the highest mean" not in ranking["verdict"]
    assert run.err.read_text().startswith("evidence: quick look")


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("corrupt", "class1/007.png is not a readable image"),
        ("cut", "class1/199.png is not a readable image"),
        ("empty", "no images in class1"),
        ("alone", "has only one class, class0"),
        ("missing", "does not exist"),
        ("a file", "is neither a folder nor an .npz file"),
        ("no classes", "has no class folders"),
    ],
)
def test_images_that_cannot_be_used_are_named_in_one_line(
    harm: str, told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    images = tmp_path / "images"
    if harm == "a file":
        images.write_text("no images")
    elif harm != "missing":
        folder_of_images(images)
    damaged = images / "class1"
    if harm == "corrupt":
        (damaged / "007.png").write_bytes(b"no image at all")
    elif harm == "cut":
        (damaged / "199.png").write_bytes((damaged / "199.png").read_bytes()[:900])
    elif harm in ("empty", "alone", "no classes"):
        shutil.rmtree(damaged)
        if harm == "empty":
            damaged.mkdir()
        elif harm == "no classes":
            shutil.rmtree(images / "class0")
    line = refusal(capsys, "run", "--data", images, *SHORT_OPTIONS.split(), "--out", tmp_path / "run", "--quiet")
    assert told in line
    assert str(images) in line
    assert not (tmp_path / "run" / "study.db").exists()


UNFETCHED = ("--data", "torchvision:CIFAR10", "--preset", "quick", "--budget", "0.5x", "--quiet")


@pytest.mark.parametrize("place", ["all/runs/one", "empty", "empty/one", "linked"])
def test_a_run_that_is_refused_before_it_has_images_leaves_nothing_of_its_own(place: str, call: Call, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "checkpoints").symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    told = call("run", *UNFETCHED, "--data-root", tmp_path / "none", "--out", tmp_path / place)
    assert "torchvision:CIFAR10 cannot be read from" in told.refusal
    assert sorted(tmp_path.rglob("*")) == before


def test_a_disk_without_room_for_images_is_refused_and_left_as_it_is(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=150_000_000))
    told = call("run", *SHORT_OPTIONS.split(), "--quiet", "--out", tmp_path / "run")
    assert told.refusal.endswith("has 150.0 MB free; make room or name another disk with --cache DIR")
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_leaves_the_folder_of_an_earlier_run_that_was_killed_before_its_first_trial(
    call: Call, tmp_path: Path, files_of: FilesOf
):
    command = ("run", *UNFETCHED, "--data-root", tmp_path / "none", "--out", tmp_path / "run")
    asked = Request(data="torchvision:CIFAR10", data_root=str(tmp_path / "none"), preset="quick", budget="0.5x")
    plan, _ = resolve(asked)
    with claimed(tmp_path / "run", plan):
        pass
    before = files_of(tmp_path)
    assert "torchvision:CIFAR10 cannot be read from" in call(*command).refusal
    assert files_of(tmp_path).items() >= before.items()


def test_a_broken_image_mended_afterwards_lets_the_same_command_run(
    capsys: pytest.CaptureFixture[str], program: Callable[..., Any], tmp_path: Path
):
    images = folder_of_images(tmp_path / "images", count=170)
    file = images / "class0" / "140.png"
    whole = file.read_bytes()
    file.write_bytes(whole[:900])
    command = ["run", "--data", images, *SHORT_OPTIONS.split(), "--out", tmp_path / "run"]
    refusal(capsys, *command)
    file.write_bytes(whole)
    again = program(*command)
    again.wait_for("1/")
    assert again.process.poll() is None


# ---- end to end


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_search_on_the_images_of_the_package_ends_with_the_ranking_and_b1_to_b7(
    program: Callable[..., Any], capsys: pytest.CaptureFixture[str]
):
    options = "--base b0 --budget 2x --preset quick --candidates 2 --seeds 2 --epochs 1 --images 256"
    run = program("run", *options.split())
    assert run.wait(1200) == 0, run.err.read_text()
    [folder] = (run.out.parent / "runs").iterdir()
    assert folder.name == f"b0-2x-fashion-mnist-{read_plan(folder).digest[:8]}"
    assert {path.name for path in folder.iterdir()} >= FOLDER | FOLDERS
    members = json.loads((folder / "family" / "manifest.json").read_text())["members"]
    assert [member["name"] for member in members] == [f"B{k}" for k in range(1, 8)]
    growths = [2**0.5, 2, 4, 2**3.5, 32, 64, 128]
    assert [member["growth_asked"] for member in members] == pytest.approx(growths)
    assert [member["realised_growth"] for member in members] == pytest.approx(growths, rel=0.03)
    for member in members:
        assert {f"{member['name']}/config.yaml", f"{member['name']}/network.py"} == set(member["files"])
        assert all((folder / "family" / file).is_file() for file in member["files"])
        assert set(member["weights"]) == {"seed", "sha256", "start", "naming"}
    printed = run.out.read_text()
    assert "1.78" in printed
    assert "97.8" in printed
    assert "conditional on this validation split" in printed
    assert document(capsys, "status", folder)["state"] == "finished"
    assert document(capsys, "rank", folder) == json.loads((folder / "ranking.json").read_text())


def test_prepared_images_that_were_changed_are_prepared_again(
    finished: Finished, tiny_options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    images = folder / "data" / "train_images.npy"
    content = images.read_bytes()
    images.write_bytes(content[:-1000] + bytes(1000))
    assert _code(["run", *tiny_options, "--out", str(folder), "--quiet"]) == 0
    assert images.read_bytes() == content


def test_a_dataset_that_was_changed_under_a_run_is_refused_until_it_is_restored(
    finished: Finished,
    tiny_npz: Path,
    tiny_options: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    shutil.rmtree(folder / "data")
    kept = tiny_npz.read_bytes()
    with np.load(tiny_npz) as file:
        arrays = dict(file)
    arrays["train_images"] = 255 - arrays["train_images"]
    try:
        np.savez_compressed(tiny_npz, **arrays)
        assert _code(["run", *tiny_options, "--out", str(folder), "--quiet"]) == 2
    finally:
        tiny_npz.write_bytes(kept)
    assert "not those that the study began with" in capsys.readouterr().err
    assert _code(["run", *tiny_options, "--out", str(folder), "--quiet"]) == 0
    assert (folder / "ranking.json").read_bytes() == (finished[0] / "ranking.json").read_bytes()


def test_one_candidate_on_budget_is_told_of_beforehand_and_compared_with_nothing(tmp_path: Path, tiny_npz: Path):
    options = "--budget 0.25x --preset quick --policy grid --candidates 3 --seeds 2 --epochs 1 --images 256"
    place = tmp_path / "run"
    asked = ("run", "--data", tiny_npz, *options.split(), "--threads", 1, "--together", 1, "--out", place)
    program = Program(*asked, place=tmp_path)
    assert program.wait() == 0, program.err.read_text()
    out = program.out.read_text()
    told = "only one candidate of the search is on budget: there is nothing to compare"
    assert out.index("evidence: ") < out.index(told) < out.index("trials in all")
    assert "Only one candidate on budget has results" in out
    rows = [row for row in json.loads((place / "ranking.json").read_text())["candidates"] if not row["off_budget"]]
    assert [row["p_best"] for row in rows] == [None]
    assert re.search(r"^\S+ +\d+ +[\d.]+ .*(99 %|tied)", out, re.MULTILINE) is None


def test_a_run_says_that_it_measures_its_pace_before_it_does(
    finished: tuple[Path, Program], program: Callable[..., Program], tiny_options: tuple[str, ...]
):
    told = "measuring how trials are trained fastest here"
    assert told not in finished[1].out.read_text()  # everything is given
    given = tiny_options.index("--threads")
    run = program("run", *tiny_options[:given], "--out", "run")
    run.wait_for(told)
    assert "slots ready" not in run.out.read_text()
    run.interrupt()
    assert run.wait() == 130
    assert not list(run.out.parent.glob("run/checkpoints/*"))
