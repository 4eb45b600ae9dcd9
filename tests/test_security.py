"""What a file may not do: run code, name a place outside its folder, get a password, steer a terminal, open a port."""

import ast
import os
import re
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO

import pytest
import yaml
from calling import Call
from conftest import children

import scalesearch
from scalesearch.cli.console import plain
from scalesearch.emit.config import config_text
from scalesearch.errors import EmitError, PlanError, StudyError
from scalesearch.journal import NAME, Journal
from scalesearch.request import Request, read_request, resolve
from scalesearch.runfolder import placed, write_plan

PACKAGE = Path(scalesearch.__file__).parent
GADGET = "from pathlib import Path\nPath('ran').write_text('')\n"
BUILDER = "gadget:build"


# ---- no code from files


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def keywords(call: ast.Call) -> dict[str | None, str]:
    return {entry.arg: ast.unparse(entry.value) for entry in call.keywords}


NEEDED = {"np.load": ("allow_pickle", "False"), "torch.load": ("weights_only", "True")}
"""Functions that unpickle unless they are told not to, with what they must be told."""
PICKLERS = ("pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib")
REFUSED = ("eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "numpy.load", "np.fromfile", "os.system")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_unpickled_or_evaluated(path: Path):
    found = [(ast.unparse(one.func), keywords(one), one.lineno) for one in calls(path)]
    assert [(name, line) for name, _, line in found if name in REFUSED] == []
    loads = [(name, given, line) for name, given, line in found if name in NEEDED or name.endswith("read_array")]
    for name, given, line in loads:
        key, value = NEEDED.get(name, NEEDED["np.load"])
        assert given.get(key) == value, f"line {line}: {name}"
    assert [(name, line) for name, _, line in found if name.partition(".")[0] in PICKLERS] == []
    assert [(name, line) for name, _, line in found if re.search("distributed.*object", name)] == []


@pytest.fixture
def gadget(tmp_path: Path, call: Call) -> Iterator[Callable[[], bool]]:
    """A module in the current folder; whether it has been imported."""
    (tmp_path / "gadget.py").write_text(GADGET)
    before = list(sys.path)
    sys.path.insert(0, str(tmp_path))  # where a command that trusts a file would find it
    yield (tmp_path / "ran").exists
    sys.path[:] = before
    sys.modules.pop("gadget", None)


@pytest.fixture
def run_of_builder(tmp_path: Path, gadget: Callable[[], bool]) -> Path:
    """A run folder whose plan names code."""
    folder = tmp_path / "run"
    folder.mkdir()
    write_plan(folder, resolve(Request(budget="0.5x"))[0])
    values = yaml.safe_load((folder / "plan.yaml").read_text())
    values["base"] = {"builder": BUILDER, "resolution": 64, "counted": []}
    (folder / "plan.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.mark.parametrize("command", ["status", "rank", "emit"])
def test_a_plan_that_names_code_runs_none(command: str, run_of_builder: Path, call: Call, gadget: Callable[[], bool]):
    assert "--base gadget:build" in call(command, run_of_builder).refusal
    assert not gadget()


@pytest.mark.parametrize(
    "builder", ["gadget:build\nimport os", "os.path", "../gadget:build", 3, None, ["gadget:build"]]
)
def test_a_plan_names_a_builder_in_one_form_alone(builder: object, run_of_builder: Path, call: Call):
    values = yaml.safe_load((run_of_builder / "plan.yaml").read_text())
    values["base"]["builder"] = builder
    (run_of_builder / "plan.yaml").write_text(yaml.safe_dump(values))
    assert "plan.yaml is damaged: base.builder = " in call("status", run_of_builder).refusal


def test_a_study_file_names_no_code(tmp_path: Path, call: Call, gadget: Callable[[], bool]):
    (tmp_path / "study.yaml").write_text(f"base: {BUILDER}\n")
    for command in ("plan", "run"):
        told = call(command, "--study", "study.yaml").refusal
        assert "study.yaml: base: gadget:build is code" in told
    assert not gadget()
    with pytest.raises(PlanError, match="give --base gadget:build"):
        read_request(tmp_path / "study.yaml")


def test_a_member_of_a_builder_is_loaded_by_whoever_names_it(tmp_path: Path, gadget: Callable[[], bool]):
    network = {"builder": BUILDER, "depth": 1.0, "width": 1.0, "resolution": 8, "num_classes": 2, "shapes": ""}
    (tmp_path / "config.yaml").write_text(config_text({"network": network}))
    for given in (None, "other:build"):
        with pytest.raises(EmitError, match="the network is made by gadget:build; if you trust that code"):
            scalesearch.load(tmp_path, builder=given)
    assert not gadget()


# ---- no place outside


@pytest.mark.parametrize("name", ["../../out", "/tmp/out", "a/b", "..", "", "a\nb", "x" * 65])
def test_a_plan_names_no_place_outside_its_folder(name: str, run_of_builder: Path, call: Call):
    values = yaml.safe_load((run_of_builder / "plan.yaml").read_text())
    network = resolve(Request(budget="0.5x"))[0].base.full().network.to_dict()
    values["base"] = {"name": name, "network": network, "rounding": {}}
    (run_of_builder / "plan.yaml").write_text(yaml.safe_dump(values))
    told = call("status", run_of_builder).refusal
    assert f"{run_of_builder}/plan.yaml is damaged: base.name = " in told


@pytest.mark.parametrize("name", [NAME, ".lock", "study.db"])
def test_no_file_is_written_through_a_link_of_a_run_folder(name: str, call: Call, tmp_path: Path):
    folder, token = tmp_path / "run", tmp_path / "token"
    folder.mkdir()
    write_plan(folder, resolve(Request(budget="0.5x", step=0.2, policy="grid", seeds=2))[0])
    Journal(folder / NAME).close()
    token.write_text("a text without a line's end")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(token)
    told = call("repair", folder).refusal
    assert str(folder) in told
    assert "link" in told
    assert token.read_text() == "a text without a line's end"


@pytest.mark.parametrize("command", ["emit", "run"])
def test_no_member_is_written_through_a_link(
    command: str, call: Call, tmp_path: Path, files_of: Callable[[Path], dict[str, str]]
):
    options = ("--budget", "0.5x", *(("--coefficients", "0.9,0.9,0.8", "--base", "b0") if command == "emit" else ()))
    elsewhere = tmp_path / "elsewhere" / "b0-x0.5"
    elsewhere.mkdir(parents=True)
    for name in ("config.yaml", "network.py"):
        (elsewhere / name).write_text("mine")
    family = tmp_path / "run" / "family"
    family.mkdir(parents=True)
    (family / "b0-x0.5").symlink_to(elsewhere)
    before = files_of(tmp_path)
    told = call(command, *options, "--out", family if command == "emit" else family.parent)
    assert "family/b0-x0.5 is a link, through which no member is written; move it away" in told.refusal
    assert told.code == 2
    assert files_of(tmp_path) == before


# ---- no password


SECRET = "kept-for-one-server"
NAMED = "postgresql://me@db.example.org:{port}/studies"


def bound_to(url: str, folder: Path) -> Path:
    """A run folder whose study is said to be on a server."""
    folder.mkdir()
    write_plan(folder, resolve(Request(budget="0.5x", step=0.2, policy="grid", seeds=2))[0])
    with closing(Journal(folder / NAME)) as journal:
        journal.bind("study", "x")
        journal.bind("storage", url)
    return folder


class Thief:
    """A server on the loopback device that asks for a password in clear."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._socket.accept()
            with client, client.makefile("rb") as said, suppress(OSError, struct.error):
                while message(said)[:4] in OFFERS:
                    client.sendall(b"N")
                client.sendall(b"R" + struct.pack("!II", 8, 3))
                if said.read(1) == b"p":
                    self.heard.append(message(said))


def message(said: BinaryIO) -> bytes:
    """One of PostgreSQL's protocol, without its length."""
    return said.read(struct.unpack("!I", said.read(4))[0] - 4)


OFFERS = (struct.pack("!I", 80877103), struct.pack("!I", 80877104))
"""To encrypt, by TLS or GSSAPI."""


@pytest.mark.parametrize("command", ["repair", "run"])
def test_a_run_folder_has_no_password_sent_to_another_server_than_it_is_kept_for(
    command: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("psycopg")
    kept = tmp_path / "pgpass"
    kept.write_text(f"db.example.org:*:*:me:{SECRET}\n")
    kept.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(kept))
    monkeypatch.delenv("PGPASSWORD", raising=False)
    thief = Thief()
    url = NAMED.format(port=thief.port) + "?hostaddr=127.0.0.1"
    folder = bound_to(url, tmp_path / "run")
    told = call(command, folder) if command == "repair" else call(command, "--budget", "0.5x", "--out", folder)
    assert thief.heard == []
    assert f"{folder} keeps its study in {url}; of a file no more is believed than" in told.refusal
    assert told.refusal.endswith("; name it anew with --storage")
    assert call("repair", folder, "--storage", url).code == 2  # a person may; and the thief does listen
    assert thief.heard == [SECRET.encode() + b"\0"]


@pytest.mark.parametrize(
    "place",
    ["me@db.example.org/x", "me@db.example.org:5432/x-1?sslmode=verify-full", "db/x", "me@[::1]:5432/x", "/x", "db"],
)
def test_a_file_may_name_a_user_a_server_and_a_database(place: str, tmp_path: Path):
    url = f"postgresql://{place}"
    assert placed(bound_to(url, tmp_path / "run"), None).url == url


@pytest.mark.parametrize(
    "place",
    [
        *(f"me@db.example.org/x?{key}=y" for key in ("host", "hostaddr", "service", "passfile", "dbname", "sslkey")),
        *("me@db.example.org/x?sslmode=require&hostaddr=y", "me@db.example.org/x?sslmode=prefer#", "me@%2Ftmp%2Fy/x"),
        *("me@db.example.org,127.0.0.1/x", "me:secret@db.example.org/x", "me@db/x%3Fhost=y", "me@db/host=y", "me@@y/x"),
        "me…",
    ],
)
def test_a_file_may_say_no_more_of_a_server(place: str, tmp_path: Path):
    with pytest.raises(StudyError, match="no more is believed") as refused:
        placed(bound_to(f"postgresql://{place}", tmp_path / "run"), None)
    assert "secret" not in str(refused.value)


# ---- nothing steers a terminal


def test_only_what_can_be_read_reaches_a_terminal(call: Call):
    told = call("status", "\x1b[31mred\x1b[0m\n[red]name[/red]\r\u202e").refusal
    assert plain(told) == told
    assert r"\x1b[31mred\x1b[0m\n[red]name[/red]\r\u202e" in told


def test_class_names_are_no_markup_and_no_escape_codes(tmp_path: Path, call: Call, capsys: pytest.CaptureFixture[str]):
    from scalesearch.cli.console import columns, terminal

    name = "[red]\x1b[2J:smile:\nclass[/nothing]"
    out = terminal(as_json=False)
    out.print(name)
    table = columns("first", title=name)
    table.add_row(name)
    out.print(table)
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in lines] == [plain(name), plain(name), "first", plain(name)]


def test_a_folder_of_another_encoding_is_named(tmp_path: Path, call: Call):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")
    os.mkdir(folder)
    assert r"\udcff\udcfe has no class folders" in call("plan", "--data", folder).refusal


# ---- no port


def listening(pid: int) -> set[str]:
    """Sockets of a process that wait for others to connect, by Linux's /proc."""
    own = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # it was closed meanwhile
            own.add(os.readlink(entry))
    tables = [Path(f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="finds ports by /proc")
def test_a_run_opens_no_port(program: Callable[..., Any], tiny_options: tuple[str, ...], tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)):
        assert len(listening(os.getpid())) >= 1  # the look itself sees ports
    run = program("run", *tiny_options, "--out", tmp_path / "run")
    found: set[str] = set()
    while run.process.poll() is None:
        for pid in (run.process.pid, *children(run.process.pid)):
            with suppress(OSError):  # it has just ended
                found |= listening(pid)
        time.sleep(0.2)
    assert run.wait() == 0
    assert found == set()
