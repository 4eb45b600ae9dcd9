"""Files cut short or ended in zeros, as a loss of power leaves them: the same command recovers, or refuses with a mend.

SCALESEARCH_FAULTS=full tries every offset of what is read back; without it a spread of them. Of a study.db it tries
those of the first two pages, and every 64th behind them. What nothing reads back (tables, the ranking, reports,
figures, sources) is only written again, whatever is there: a few offsets are enough.
"""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from base_files import GOOD
from calling import Call
from judging import FULL, limited
from preparing import decoded, load, stopped_after_a_chunk, unheard
from spoiling import torn

import scalesearch
from scalesearch.agenda import agenda, player
from scalesearch.cli.progress import RunDisplay
from scalesearch.dataset import describe
from scalesearch.emit.weights import weights_digest
from scalesearch.engine.slots import Slot
from scalesearch.errors import DataError, ScaleSearchError, StudyError
from scalesearch.journal import NAME, Journal, read_journal
from scalesearch.plan import lay_out, read_plan
from scalesearch.proxy.choice import CHUNK, Choice, Chunk, key_of
from scalesearch.proxy.data import choose
from scalesearch.proxy.decoding import RECORD, UNFINISHED, decode
from scalesearch.proxy.images import ARRAYS, Images, fingerprinted, open_images
from scalesearch.repair import _with_room
from scalesearch.report.facts import _document, _is_environment, _is_manifest
from scalesearch.request import Request, resolve
from scalesearch.run import _write_environment
from scalesearch.runfolder import _holder, held, placed, write_plan
from scalesearch.stored import _remarks

FilesOf = Callable[[Path], dict[str, str]]


PAGE = 4096
"""Of SQLite [B]."""


def test_a_torn_plan_is_the_plan_or_is_named(tmp_path: Path):
    write_plan(tmp_path, resolve(Request(budget="0.5x", step=0.2, policy="grid"))[0])
    path = tmp_path / "plan.yaml"
    content, plan = path.read_bytes(), read_plan(tmp_path)
    for damaged in torn(content):
        path.write_bytes(damaged)
        with pytest.raises(StudyError, match=r"plan.yaml is damaged: .*; .*") as caught:
            read_plan(tmp_path)
        assert "\n" not in str(caught.value)
    path.write_bytes(content)
    assert read_plan(tmp_path) == plan


@pytest.mark.slow
def test_a_torn_journal_keeps_what_had_ended_and_takes_new_lines(
    finished: tuple[Path, object], call: Call, tmp_path: Path
):
    path = tmp_path / NAME
    content = (finished[0] / NAME).read_bytes()
    whole = read_journal(finished[0] / NAME)
    ends = [index + 1 for index, byte in enumerate(content) if byte == 10]
    for end in range(0, len(content), 1 if FULL else 61):
        for damaged in (content[:end], content[:end] + bytes(len(content) - end)):
            path.write_bytes(damaged)
            found = read_journal(path)
            kept = max((at for at in ends if at <= end), default=0)
            assert found.whole == kept
            assert found.damaged == ()
            for result in found.results:
                known = whole.trials[result.key]
                assert result.epochs == known.epochs[: len(result.epochs)]
                assert not result.has_ended or result == known
            journal = Journal(path)
            journal.bind("part", "value")
            journal.close()
            assert read_journal(path).bound["part"] == "value"
            assert read_journal(path).results == found.results
            assert path.read_bytes().startswith(content[:kept])


@pytest.mark.slow
def test_a_torn_journal_is_told_of_by_status_and_gone_on_with_by_the_same_command(
    finished: tuple[Path, object], call: Call, tiny_options: tuple[str, ...], tmp_path: Path, files_of: FilesOf
):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    content = (folder / NAME).read_bytes()
    first = content.index(b"\n") + 1
    for damaged in torn(content, few=10, many=200):
        (folder / NAME).write_bytes(damaged)
        told = call("status", folder, "--json")
        if len(damaged.rstrip(b"\0")) < first:
            assert (told.code, told.err.count("\n")) == (2, 1)
            assert "holds no trial beside the ranking" in told.err
        else:
            assert told.done["failed"] == 0
    (folder / NAME).write_bytes(content[:-30])  # the end of the last trial
    assert call("run", *tiny_options, "--out", folder, "--quiet").code == 0
    for name in ("ranking.json", "trials.csv", "family/manifest.json"):
        assert (folder / name).read_bytes() == (finished[0] / name).read_bytes()


READ: dict[str, Callable[[Path], object]] = {
    "scan.json": _remarks,
    "environment.json": lambda path: _document(path, _is_environment),
    "family/manifest.json": lambda path: _document(path, _is_manifest),
    ".holder": lambda path: _holder(path.parent),
}
"""Small files of a run folder that are read back, and by what."""


@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_a_torn_document_of_a_run_is_read_as_one_that_is_not_there(
    name: str, finished: tuple[Path, object], tmp_path: Path
):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    scan = json.loads((folder / "scan.json").read_bytes())
    (folder / "scan.json").write_text(json.dumps({**scan, "remarks": ["twice the same image"]}, indent=1) + "\n")
    with held(folder):
        path, read = folder / name, READ[name]
        content, whole = path.read_bytes(), read(path)
        path.unlink()
        missing = read(path)
        assert missing != whole
        for damaged in torn(content):
            path.write_bytes(damaged)
            assert read(path) == (whole if damaged == content.rstrip(b"\n") else missing)


def test_of_a_torn_environment_a_run_notes_its_own_alone(tmp_path: Path):
    def note() -> list[object]:
        _write_environment(tmp_path, [Slot(device="cpu", name="a processor")], display)
        return json.loads(path.read_bytes())["before"]

    path, display = tmp_path / "environment.json", RunDisplay(tmp_path, quiet=True, on_stderr=False)
    assert [len(note()) for _ in range(2)] == [0, 1]
    content = path.read_bytes()
    for damaged in torn(content):
        path.write_bytes(damaged)
        assert len(note()) == (2 if damaged == content.rstrip(b"\n") else 0)


OUTPUTS = (
    *("candidates.csv", "trials.csv", "ranking.json", "scan.json", "environment.json", "family/manifest.json"),
    "report.html",
)
MEMBER = ("config.yaml", "network.py")


@pytest.mark.slow
def test_torn_results_and_images_are_written_again_by_the_same_command(
    finished: tuple[Path, object], call: Call, tiny_options: tuple[str, ...], tmp_path: Path, files_of: FilesOf
):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    before = files_of(folder)
    members = [path for path in (folder / "family").rglob("*") if path.name in MEMBER]
    images = [folder / "data" / name for name in ("images.json", *(f"{array}.npy" for array in ARRAYS))]
    for share in (0, 0.3, 0.99):
        for path in (*(folder / name for name in OUTPUTS), *members, *images, folder / "study.db"):
            content = path.read_bytes()
            path.write_bytes(content[: int(share * len(content))])
        assert call("rank", folder).code == 0
        told = call("run", *tiny_options, "--out", folder, "--quiet")
        assert told.code == 0, told.err
        after = files_of(folder)
        assert (folder / "report.html").read_bytes().endswith(b"</html>")
        changed = {name for name in before if before[name] != after.get(name)}
        assert changed <= {"environment.json", "report.html", "study.db", ".holder"}


@pytest.mark.slow
def test_a_torn_study_is_made_anew_from_the_journal(finished: tuple[Path, object], call: Call, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    content = (folder / "study.db").read_bytes()
    step = 4096 if FULL else 50_000
    for end in [0, 1, 99, *range(step, len(content), step), len(content) - 1]:
        for damaged in (content[:end], content[:end] + bytes(len(content) - end)):
            (folder / "study.db").write_bytes(damaged)
            assert call("rank", folder).code == 0
            assert call("repair", folder).code == 0
            for aside in folder.glob("study.damaged-*"):
                aside.unlink()


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_torn_study_is_kept_aside_wherever_it_is_cut(finished: tuple[Path, object], tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    plan, place = read_plan(folder), placed(folder, None)
    layout = lay_out(plan)
    with closing(Journal(folder / NAME)) as journal:
        results = journal.results
        now = agenda(plan, layout, results, player(plan, layout, journal.decided))
    content = (folder / "study.db").read_bytes()
    every = [*range(2, 2 * PAGE), *range(2 * PAGE, len(content), 64)]  # one of less than two bytes is a new one
    for end in every if FULL else every[::211]:
        for damaged in {content[:end], content[:end] + bytes(len(content) - end)} - {content}:
            (folder / "study.db").write_bytes(damaged)
            _, [aside] = _with_room(place, now, results, unheard)
            assert aside.read_bytes() == damaged, end
            aside.unlink()


@pytest.mark.slow
def test_torn_figures_are_drawn_again(finished: tuple[Path, object], call: Call, tmp_path: Path):
    command = ("report", finished[0], "--out", tmp_path / "page.html", "--figures", tmp_path / "figures")
    assert call(*command).code == 0
    for path in sorted((tmp_path / "figures").iterdir())[:1]:
        content = path.read_bytes()
        for damaged in torn(content, few=2, many=10):
            path.write_bytes(damaged)
            assert call(*command).code == 0
            assert path.read_bytes() == content


@pytest.fixture
def member(call: Call, tmp_path: Path) -> Path:
    """A written member with its weights."""
    (tmp_path / "net.yaml").write_text(GOOD)
    command = ("emit", "--base", "net.yaml", "--coefficients", "1,1,1.4", "--growth", "1.9", "--weights", "--quiet")
    assert call(*command, "--out", "family").code == 0
    [config] = (tmp_path / "family").glob("*/config.yaml")
    return config.parent


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors"])
def test_a_torn_member_is_not_loaded_as_another(name: str, member: Path):
    path, whole = member / name, weights_digest(scalesearch.load(member))
    content = path.read_bytes()
    for damaged in torn(content, many=10**9 if name == "config.yaml" else 2_000):
        path.write_bytes(damaged)
        try:
            found = weights_digest(scalesearch.load(member))
        except ScaleSearchError as error:
            found, told = whole, str(error)
            assert str(path) in told
            assert "\n" not in told
        assert found == whole


def test_a_torn_manifest_does_not_keep_a_family_from_being_written(call: Call, member: Path, files_of: FilesOf):
    family = member.parent
    content, before = (family / "manifest.json").read_bytes(), files_of(family)
    command = ("emit", "--base", "net.yaml", "--coefficients", "1,1,1.4", "--growth", "1.9", "--weights", "--quiet")
    for damaged in torn(content, few=3, many=100):
        (family / "manifest.json").write_bytes(damaged)
        assert call(*command, "--out", "family").code == 0
        after = files_of(family)  # of safetensors, the order of two keys of the header is by chance
        assert {name for name in before if before[name] != after[name]} <= {f"{member.name}/model.safetensors"}


@pytest.mark.parametrize("name", ["images.json", *(f"{array}.npy" for array in ARRAYS)])
def test_torn_images_are_decoded_again(name: str, tmp_path: Path, tiny_npz: Path):
    dataset = describe(str(tiny_npz), root=None)
    whole = load(dataset, tmp_path / "data", images=20, validation=6, side=8).fingerprint
    path = tmp_path / "data" / name
    content = path.read_bytes()
    for damaged in torn(content):
        path.write_bytes(damaged)
        if damaged == content:
            continue
        with limited(), pytest.raises(DataError, match="does not hold the images of a study"):
            open_images(tmp_path / "data", verify=True)
    assert load(dataset, tmp_path / "data", images=20, validation=6, side=8).fingerprint == whole


@pytest.mark.parametrize("is_cut", [True, False], ids=["cut", "zeros"])
@pytest.mark.parametrize("name", ["train_images.npy", "images.json"])
def test_a_torn_set_that_has_only_to_be_moved_is_decoded_again(name: str, is_cut: bool, tmp_path: Path, tiny_npz: Path):
    dataset = describe(str(tiny_npz), root=None)
    whole = load(dataset, tmp_path / "whole", images=20, validation=6, side=8).fingerprint
    place = tmp_path / "data" / UNFINISHED
    for share in range(0, 100, 1 if FULL else 20):
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", place)
        source = place / name
        content = source.read_bytes()
        end = len(content) * share // 100
        source.write_bytes(content[:end] + bytes(0 if is_cut else len(content) - end))
        os.utime(source, ns=(0, 0))  # as it was before the power was lost
        assert content_of(load(dataset, tmp_path / "data", images=20, validation=6, side=8)) == whole


def many_chunks(place: Path, *, is_grey: bool) -> Choice:
    """Small images of noise, in eight chunks and one."""
    noise, sides = np.random.default_rng(0), (8, 8) if is_grey else (8, 8, 3)
    images, held = (noise.integers(0, 256, (count, *sides), np.uint8) for count in (8 * CHUNK, 20))
    labels = [np.arange(len(part)) % 2 for part in (images, held)]
    np.savez(place, train_images=images, train_labels=labels[0], val_images=held, val_labels=labels[1])
    return choose(describe(str(place), root=None), images=None, validation=20, side=8)


def spoil(chunk: Chunk, choice: Choice, place: Path) -> None:
    """Have other pixels where a decode puts those of a chunk."""
    with (place / chunk.wanted.file).open("r+b") as file:
        file.seek((chunk.start - len(chunk.wanted.indices)) * choice.image_bytes, os.SEEK_END)
        file.write(b"?" * len(chunk.indices) * choice.image_bytes)


@pytest.mark.parametrize("is_grey", [False, True], ids=["colour", "grey"])
def test_of_a_torn_record_of_chunks_only_whole_lines_are_believed(is_grey: bool, tmp_path: Path, files_of: FilesOf):
    """A chunk whose line is not all there may have any bytes: they are decoded again."""
    choice = many_chunks(tmp_path / "noise.npz", is_grey=is_grey)
    decoded(choice, tmp_path / "whole")
    assert stopped_after_a_chunk(choice, tmp_path / "stopped")
    key, expected = key_of(choice, unheard), files_of(tmp_path / "whole")
    content = (tmp_path / "stopped" / UNFINISHED / RECORD).read_bytes()
    for number, damaged in enumerate(torn(content, few=20)):
        folder = tmp_path / str(number)
        place = shutil.copytree(tmp_path / "stopped", folder) / UNFINISHED
        (place / RECORD).write_bytes(damaged)
        said = set(damaged.decode().splitlines())
        for chunk in choice.chunks:
            if not said.intersection(chunk.lines):
                spoil(chunk, choice, place)
        decode(choice, key, folder, unheard)
        assert files_of(folder) == expected, damaged
        shutil.rmtree(folder)


def content_of(images: Images) -> str:
    """The fingerprint of what is mapped, whatever a summary says."""
    return fingerprinted(**{name: getattr(images, name) for name in ARRAYS}).fingerprint
