"""Run folders as readers see them: state, counts, ranking; what is damaged is named in one line."""

import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from preparing import smallest_images

from scalesearch.agenda import agenda
from scalesearch.documents import rank_document, status_document
from scalesearch.errors import StudyError
from scalesearch.files import UNFINISHED, whole_file
from scalesearch.journal import NAME, Journal
from scalesearch.plan import ANCHOR, Layout, Plan
from scalesearch.recipe import EpochResult
from scalesearch.request import Request, resolve
from scalesearch.runfolder import claimed, network_of
from scalesearch.stored import read_outcome, read_run
from scalesearch.trials import TrialKey, TrialState

FilesOf = Callable[[Path], dict[str, str]]


@pytest.fixture(scope="module")
def plan() -> tuple[Plan, Layout]:
    return resolve(Request(budget="0.5x", preset="quick", policy="grid", candidates=3, seeds=2, epochs=2, images=300))


@pytest.fixture
def folder(plan: tuple[Plan, Layout], tmp_path: Path) -> Path:
    """A run folder before its first trial."""
    with claimed(tmp_path / "run", plan[0]):
        return tmp_path / "run"


def studied(folder: Path, plan: tuple[Plan, Layout], *, complete: int, failed: int = 0, running: int = 0) -> None:
    """A journal with so many trials in each state, the first ones complete."""
    with closing(Journal(folder / NAME)) as journal:
        for index, key in enumerate(agenda(*plan, []).due[: complete + failed + running]):
            journal.start(key)
            journal.report(key, EpochResult(epoch=1, train_loss=1.0, accuracy=50.0 + index, loss=1.0))
            if index < complete:
                journal.end(key, TrialState.COMPLETE)
            elif index < complete + failed:
                journal.end(key, TrialState.FAILED, "worker killed by SIGKILL")


def test_a_folder_without_a_run_is_refused_with_the_mend(tmp_path: Path):
    with pytest.raises(StudyError, match=r"is not a run folder: .*; give a folder that `run` made"):
        read_run(tmp_path)


def test_a_run_before_its_first_trial_has_nothing_done_and_no_ranking(folder: Path, plan: tuple[Plan, Layout]):
    stored = read_run(folder)
    assert stored.plan == plan[0]
    document = status_document(stored)
    assert document.pop("schema_version") == 2
    total = 2 * (len(plan[1].trained) + 1)
    assert document == {
        "state": "interrupted",
        "stage": "search",
        "done": 0,
        "running": 0,
        "failed": 0,
        "total": total,
        "eta_s": None,
    }
    with pytest.raises(StudyError, match="no finished trial yet"):
        read_outcome(folder)


def test_states_and_counts_are_those_of_the_trials(folder: Path, plan: tuple[Plan, Layout]):
    studied(folder, plan, complete=3, failed=1, running=1)
    stopped = status_document(read_run(folder))
    assert (stopped["state"], stopped["done"], stopped["failed"], stopped["running"]) == ("interrupted", 3, 1, 0)
    assert stopped["eta_s"] is not None
    with FileLock(folder / ".lock"):
        live = status_document(read_run(folder))
    assert (live["state"], live["done"], live["failed"], live["running"]) == ("running", 3, 1, 1)


def test_an_interrupted_run_tells_of_begun_trials_and_their_epochs(folder: Path, plan: tuple[Plan, Layout]):
    total = len(agenda(*plan, []).due)
    studied(folder, plan, complete=3, failed=1, running=2)
    stored = read_run(folder)
    assert stored.standing == f"interrupted: 3 of {total} trials done, 2 begun (epochs trained: 1, 1), 1 failed"
    assert stored.share == pytest.approx((3 + 1 + 2 / 2) / total)  # half of their two epochs
    with FileLock(folder / ".lock"):
        assert ", 2 running (epochs trained: 1, 1), " in read_run(folder).standing


def test_a_run_whose_trials_have_all_ended_is_finished(folder: Path, plan: tuple[Plan, Layout]):
    total = len(agenda(*plan, []).due)
    studied(folder, plan, complete=total - 1, failed=1)
    document = status_document(read_run(folder))
    assert (document["state"], document["done"], document["failed"]) == ("finished", total - 1, 1)
    assert (document["stage"], document["total"]) == (None, total)
    assert not document["eta_s"]
    assert read_run(folder).standing == f"finished: {total - 1} of {total} trials done, 1 failed"
    assert read_run(folder).share == 1


def test_a_run_that_chooses_its_trials_tells_the_most_until_it_has_ended(tmp_path: Path):
    asked = Request(budget="0.5x", preset="quick", policy="fit", candidates=20, epochs=1, images=300, confirm=2)
    plan = resolve(asked)
    with claimed(tmp_path / "run", plan[0]):
        folder = tmp_path / "run"
    journal = Journal(folder / NAME)
    stages, totals = [], set()
    while (stored := read_run(folder)).now.stage is not None:
        document = status_document(stored)
        assert (document["state"], document["done"]) == ("interrupted", len(stored.results))
        assert document["done"] + len(set(stored.now.due) - {one.key for one in stored.results}) <= document["total"]
        stages.append(document["stage"])
        totals.add(document["total"])
        known = {result.key for result in stored.results}
        for key in (key for key in stored.now.due if key not in known):
            accuracy = 50.0 if key.proxy == ANCHOR else 60.0 + plan[1].trained.index(key.proxy)
            journal.start(key)
            journal.report(key, EpochResult(epoch=1, train_loss=1.0, accuracy=accuracy, loss=1.0))
            journal.end(key, TrialState.COMPLETE)
    assert stages[-1] == "confirm"
    assert stages.count("search") == len(stages) - 1
    journal.close()
    [most] = totals
    document = status_document(read_run(folder))
    assert (document["state"], document["stage"], document["eta_s"]) == ("finished", None, 0)
    assert document["done"] == document["total"] <= most


def test_the_ranking_so_far_names_what_failed(folder: Path, plan: tuple[Plan, Layout]):
    studied(folder, plan, complete=4, failed=1)
    document = rank_document(read_outcome(folder))
    assert document["search"]["unfinished"] == "search"
    assert [row["id"] for row in document["candidates"]] == [plan[1].trained[1], plan[1].trained[0]]
    [failed] = document["failed"]
    assert failed == f"{plan[1].trained[2]}-s0-e{plan[0].epochs}"
    assert json.loads(json.dumps(document)) == document


def test_reading_a_run_changes_nothing_in_it(folder: Path, plan: tuple[Plan, Layout], files_of: FilesOf):
    studied(folder, plan, complete=2, running=1)
    before = files_of(folder)
    status_document(read_run(folder))
    rank_document(read_outcome(folder))
    assert files_of(folder) == before


def test_what_a_killed_coordinator_left_half_written_is_swept_and_holds_up_nobody(
    folder: Path, plan: tuple[Plan, Layout]
):
    left = ["..holder.b4457cbd", ".plan.yaml.998405a3", ".journal.jsonl.0a1b2c3d", "family/b1/.config.yaml.deadbeef"]
    left += ["family-c1/.manifest.json.01234567", "family-c1/b1/.network.py.89abcdef"]  # of `emit --candidate c1`
    for name in (*left, ".report.html.01234567"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{")
    with claimed(folder, plan[0]):
        assert not [path for path in folder.rglob(".*") if UNFINISHED.fullmatch(path.name)]


def test_every_file_that_a_run_writes_whole_is_swept_where_a_kill_left_it_unfinished(
    finished: tuple[Path, object], plan: tuple[Plan, Layout], tmp_path: Path
):
    whole = [*finished[0].iterdir(), *finished[0].rglob("family/**/*")]
    names = [path.relative_to(finished[0]) for path in whole if path.is_file()]
    written = {name for name in names if name.name != ".lock"}
    assert {"manifest.json", "network.py", "environment.json"} <= {name.name for name in written}
    with claimed(tmp_path, plan[0]):
        pass
    for name in (*written, Path("journal.damaged-2.jsonl")):
        (tmp_path / name.parent).mkdir(parents=True, exist_ok=True)
        (tmp_path / name.with_name(f".{name.name}.0a1b2c3d")).write_text("half")
    with claimed(tmp_path, plan[0]):
        assert [path.name for path in tmp_path.rglob(".*") if path.is_file()] == [".lock", ".holder"]


HIDDEN = (
    *(".env.20240101", "family/.env.20240101", "family/b1/.notes.deadbeef", "family-c1/b1/.notes.deadbeef"),
    *("families/.manifest.json.01234567", "checkpoints/.cache.0123abcd"),
)


def test_hidden_files_of_others_in_a_run_folder_stay(folder: Path, plan: tuple[Plan, Layout]):
    for name in HIDDEN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    with claimed(folder, plan[0]):
        pass
    assert [(folder / name).read_text() for name in HIDDEN] == ["mine"] * len(HIDDEN)


@pytest.mark.parametrize(
    ("plan_file", "told"),
    [
        (None, r"holds other files, such as \.env\.20240101; choose another folder with --out"),
        ("plan: buy milk\n", r"plan\.yaml is damaged: .*; restore the file, or run into a new folder"),
    ],
)
def test_a_folder_of_others_with_a_hidden_file_is_refused_and_left_as_it_is(
    plan_file: str | None, told: str, plan: tuple[Plan, Layout], tmp_path: Path, files_of: FilesOf
):
    (tmp_path / ".env.20240101").write_text("mine")
    if plan_file:
        (tmp_path / "plan.yaml").write_text(plan_file)
    before = files_of(tmp_path)
    with pytest.raises(StudyError, match=told), claimed(tmp_path, plan[0]):
        pass
    assert files_of(tmp_path) == before
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def test_a_report_that_somebody_is_writing_is_not_swept(folder: Path, plan: tuple[Plan, Layout]):
    with whole_file(folder / "report.html") as file:
        file.write(b"half")
        with claimed(folder, plan[0]):
            pass
    assert (folder / "report.html").read_bytes() == b"half"


@pytest.mark.parametrize("content", ["[1, 2", "- 1\n", "seeds: 2\n", "", "\0"], ids=repr)
def test_a_damaged_plan_is_named_in_one_line(folder: Path, content: str):
    (folder / "plan.yaml").write_text(content)
    with pytest.raises(StudyError, match=r"plan\.yaml is damaged: ") as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("space", "budget"), -2.0),
        (("space", "budget"), "two"),
        (("recipe", "learning_rate"), "fast"),
        (("recipe", "schedule"), 3),
        (("data", "num_classes"), 0),
        (("seeds",), "three"),
        (("seeds",), 0),
        (("preset",), "slow"),
        (("base",), "b99"),
        (("policy",), "halving"),
        (("margin",), -1),
        (("confirm",), "all"),
        (("resolution",), 0),
    ],
    ids=str,
)
def test_a_plan_with_a_value_that_is_none_is_named_in_one_line(folder: Path, path: tuple[str, ...], value: object):
    values = yaml.safe_load((folder / "plan.yaml").read_text())
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (folder / "plan.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(StudyError, match=r"plan\.yaml is damaged: ") as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)


def test_a_damaged_journal_is_named_in_one_line(folder: Path):
    (folder / NAME).write_bytes(b"garbage\n" * 1000)
    with pytest.raises(StudyError, match=r"journal\.jsonl is damaged: none of its lines is whole") as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)


def test_a_damaged_study_keeps_nobody_from_reading_a_run(folder: Path, plan: tuple[Plan, Layout]):
    studied(folder, plan, complete=4)
    before = rank_document(read_outcome(folder))
    (folder / "study.db").write_bytes(b"garbage" * 1000)
    assert rank_document(read_outcome(folder)) == before


def test_a_study_without_its_journal_is_refused_by_readers_and_coordinators(folder: Path, plan: tuple[Plan, Layout]):
    (folder / "study.db").write_bytes(b"of another version")
    for use in (lambda: read_run(folder), lambda: claimed(folder, plan[0]).__enter__()):
        with pytest.raises(
            StudyError, match=r"holds a study without its journal\.jsonl; restore it, or run into a new"
        ):
            use()


@pytest.mark.parametrize("content", [b"", bytes(512), b'{"event": "star'], ids=["empty", "zeros", "torn"])
def test_a_journal_without_a_line_beside_its_ranking_is_refused_and_else_has_no_trials(
    content: bytes, folder: Path, plan: tuple[Plan, Layout]
):
    (folder / NAME).write_bytes(content)
    assert read_run(folder).results == ()
    (folder / "ranking.json").write_text("{}")
    for use in (lambda: read_run(folder), lambda: claimed(folder, plan[0]).__enter__()):
        with pytest.raises(
            StudyError, match=r"journal\.jsonl holds no trial beside the ranking of its trials; restore it, or"
        ):
            use()


def test_results_of_a_network_that_the_plan_does_not_have_are_refused(folder: Path):
    with closing(Journal(folder / NAME)) as journal:
        journal.start(TrialKey(proxy="d99", seed=0, rung=2))
    with pytest.raises(StudyError, match="trials of d99, which the plan does not have"):
        read_run(folder)


def test_a_study_without_its_plan_is_not_run_over(folder: Path, plan: tuple[Plan, Layout], files_of: FilesOf):
    studied(folder, plan, complete=1)
    (folder / "plan.yaml").unlink()
    before = files_of(folder)
    with pytest.raises(StudyError, match="holds a study without a plan"), claimed(folder, plan[0]):
        pass
    assert files_of(folder) == before


def test_a_folder_is_held_by_one_coordinator_at_a_time(folder: Path, plan: tuple[Plan, Layout]):
    with claimed(folder, plan[0]):
        said = rf"is in use by pid {os.getpid()} on {platform.node()} since 2\d{{3}}-.* UTC; wait for it, or stop it"
        with pytest.raises(StudyError, match=said), claimed(folder, plan[0]):
            pass
        assert status_document(read_run(folder))["state"] == "running"
    with claimed(folder, plan[0]):
        pass


def test_a_dead_holder_holds_up_nobody(folder: Path, plan: tuple[Plan, Layout]):
    (folder / ".holder").write_text(json.dumps({"pid": 1, "host": "elsewhere", "since": "long ago"}))
    with claimed(folder, plan[0]):
        assert json.loads((folder / ".holder").read_text())["pid"] == os.getpid()
    assert not (folder / ".holder").exists()


@pytest.mark.parametrize("content", [b"\xff\xfe", b'{"pid": 1, "host": "elsewhere", "since": "now"}'], ids=repr)
def test_whoever_lets_go_of_a_folder_removes_no_name_but_its_own(
    folder: Path, plan: tuple[Plan, Layout], content: bytes
):
    with claimed(folder, plan[0]):
        (folder / ".holder").write_bytes(content)
    assert (folder / ".holder").read_bytes() == content
    with claimed(folder, plan[0]):  # which is free
        pass
    assert not (folder / ".holder").exists()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"pid": "x"}'], ids=repr)
def test_a_holder_that_does_not_name_itself_is_another_run(folder: Path, plan: tuple[Plan, Layout], content: str):
    with FileLock(folder / ".lock"):
        (folder / ".holder").write_text(content)
        with pytest.raises(StudyError, match="is in use by another run; wait for it"), claimed(folder, plan[0]):
            pass


FOREIGN = [
    *("checkpoints/my_resnet.pt", "checkpoints/model.safetensors", "checkpoints/.cache.0123abcd", "logs/server.log"),
    *("data/train_images.npy", "data/validation_labels.npy", "data/images.json"),
    *("data/unfinished/notes", "data/photo.png"),
]


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("is_linked", [False, True])
def test_a_folder_that_holds_files_of_others_where_a_run_writes_is_refused_and_left_as_it_is(
    name: str, is_linked: bool, plan: tuple[Plan, Layout], tmp_path: Path, files_of: FilesOf
):
    folder = tmp_path / "project"
    folder.mkdir()
    file = (tmp_path / "elsewhere" if is_linked else folder) / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    part = Path(name).parts[0]
    if is_linked:
        (folder / part).symlink_to(tmp_path / "elsewhere" / part)
    before = files_of(tmp_path)
    told = f"project holds other files, such as {'/'.join(Path(name).parts[:2])}; choose another folder"
    with pytest.raises(StudyError, match=told), claimed(folder, plan[0]):
        pass
    assert files_of(tmp_path) == before


def test_what_may_be_put_where_a_run_begins_is_taken(plan: tuple[Plan, Layout], tmp_path: Path):
    for name in ("checkpoints/d1-w1.0-r32-s1-e30-confirm.safetensors.before", "logs/base-s0-e2.log"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("ours")
    smallest_images(tmp_path / "data")
    with claimed(tmp_path, plan[0]):
        pass


def test_a_new_folder_is_on_the_disk_before_anything_in_it_counts(
    plan: tuple[Plan, Layout], settled: list[int], tmp_path: Path
):
    with claimed(tmp_path / "all" / "runs" / "one", plan[0]):
        assert {path.stat().st_ino for path in (tmp_path, tmp_path / "all", tmp_path / "all" / "runs")} <= {*settled}


MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb /home/me/fast xfs rw 0 0
me@far:/ /mnt/a\\040b fuse.sshfs rw 0 0
//nas/x /homes cifs rw 0 0
scratch /scratch lustre rw,flock 0 0
/dev/vdc /srv ext4 rw 0 0
nas:/srv /srv nfs rw 0 0
C:\\134 /mnt/c 9p rw 0 0
share /mnt/guest virtiofs rw 0 0
/dev/fuse /mnt/bucket fuse rw 0 0
/dev/sdc1 /mnt/stick fuseblk rw 0 0
share /mnt/mac prl_fs rw 0 0
beegfs_nodev /mnt/old fhgfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/runs/one", None),
        ("/home/me/one", "nfs4"),
        ("/home/me/fast/one", None),
        ("/home/me/faster", "nfs4"),
        ("/mnt/a b/one", "fuse.sshfs"),
        ("/homes/one", "cifs"),
        ("/scratch/one", "lustre"),
        ("/srv/one", "nfs"),
        ("/mnt/c/one", None),
        ("/mnt/guest", None),
        ("/mnt/bucket/one", "fuse"),
        ("/mnt/stick/one", None),
        ("/mnt/mac", "prl_fs"),
        ("/mnt/old", "fhgfs"),
    ],
)
def test_the_file_system_of_a_folder_is_that_of_the_deepest_and_latest_mount(path: str, kind: str | None):
    assert network_of(Path(path), MOUNTS) == kind


def test_a_place_that_cannot_be_written_is_refused_with_the_mend(plan: tuple[Plan, Layout], tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(StudyError, match=r"cannot be written: .*; choose another folder"),
        claimed(tmp_path / "file" / "run", plan[0]),
    ):
        pass


@pytest.mark.parametrize("name", [".lock", ".holder", "checkpoints", "logs"])
def test_what_stands_in_the_way_of_holding_a_folder_is_named(name: str, plan: tuple[Plan, Layout], tmp_path: Path):
    folder = tmp_path / "run"
    with claimed(folder, plan[0]):
        pass
    if name in {"checkpoints", "logs"}:
        (folder / name).rmdir()
        (folder / name).touch()
    else:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()
    with pytest.raises(StudyError, match=rf"run/{name} cannot be written: "), claimed(folder, plan[0]):
        pass


@pytest.mark.parametrize("is_new", [False, True], ids=["there before", "new"])
def test_a_run_that_waits_for_one_that_is_refused_has_a_whole_folder(
    is_new: bool, plan: tuple[Plan, Layout], tmp_path: Path
):
    folder, found = tmp_path / "run", list[set[str]]()
    if not is_new:
        folder.mkdir()

    def wait() -> None:
        with claimed(folder, plan[0]):
            found.append({path.name for path in folder.iterdir()})

    def refuse() -> None:
        waiting.start()
        time.sleep(1)
        raise StudyError("refused", mend="none")

    waiting = threading.Thread(target=wait)
    with pytest.raises(StudyError, match="refused"), claimed(folder, plan[0]):
        refuse()
    waiting.join(60)
    assert found == [{"checkpoints", "logs", "plan.yaml", ".lock", ".holder"}]


def test_a_file_system_without_locks_is_refused_and_its_folders_are_read(
    folder: Path, plan: tuple[Plan, Layout], files_of: FilesOf, tmp_path: Path
):
    studied(folder, plan, complete=4)
    library, source = (
        tmp_path / "lockless.so",
        "#include <errno.h>\nint flock(int f, int o) { errno = ENOSYS; return -1; }",
    )
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    subprocess.run([compiler, "-x", "c", "-shared", "-fPIC", "-o", library, "-"], input=source, text=True, check=True)
    before = files_of(folder)
    assert ".lock" in before

    def told(*command: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LD_PRELOAD": str(library), "COLUMNS": "200"}
        whole = [sys.executable, "-m", "scalesearch", *map(str, command)]
        return subprocess.run(whole, env=environment, capture_output=True, text=True, timeout=120)

    assert told("status", folder).stdout.startswith("interrupted: 4 of ")
    refused = told("repair", folder)
    assert (refused.returncode, refused.stdout) == (2, "")
    reason = "lies on a file system without file locks, which keep two runs apart; keep it on another"
    assert refused.stderr.startswith(f"scalesearch: {folder} {reason}")
    assert len(refused.stderr.splitlines()) == 1
    assert files_of(folder) == before


def test_a_copied_run_folder_is_the_same_run(folder: Path, plan: tuple[Plan, Layout], tmp_path: Path):
    studied(folder, plan, complete=4)
    shutil.copytree(folder, tmp_path / "copy")
    assert rank_document(read_outcome(tmp_path / "copy")) == rank_document(read_outcome(folder))
