"""Checkpoints at a URL: two generations, each there in whole, on file systems that are not files too."""

import re
import resource
import secrets
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from calling import Call

pytest.importorskip("fsspec", reason="needs scalesearch[ray]")

import fsspec

from scalesearch.engine.afar import Afar, refuse_unspoken
from scalesearch.engine.work import Cluster
from scalesearch.errors import PlanError
from scalesearch.files import generations
from scalesearch.journal import Journal
from scalesearch.run import _own_place


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """On a server that speaks S3, which s3fs finds by the variables that any client of S3 reads."""
    pytest.importorskip("s3fs", reason="needs s3fs")
    server = pytest.importorskip("moto.server", reason="needs moto[server]").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("ACCESS_KEY_ID", "me"), ("SECRET_ACCESS_KEY", "secret"), ("DEFAULT_REGION", "us-east-1")):
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture(params=["memory", "file", "path", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder of nobody else."""
    if request.param in ("file", "path"):
        there = tmp_path / "there"
        yield there.as_uri() if request.param == "file" else str(there)
    elif request.param == "s3":
        yield f"{request.getfixturevalue('bucket')}/{secrets.token_hex(4)}"
    else:
        yield f"memory://{secrets.token_hex(4)}"
        fsspec.filesystem("memory").store.clear()


def sealed(content: bytes) -> bytes:
    """The file of a checkpoint."""
    return sha256(content).hexdigest().encode() + b"\n" + content


def names(url: str) -> list[str]:
    system, root = fsspec.core.url_to_fs(url)
    return sorted(path.rpartition("/")[2] for path in system.find(root))


def test_a_file_comes_back_in_two_generations_and_goes(url: str, tmp_path: Path):
    afar = Afar(url)
    here = tmp_path / "a-s0-e2.safetensors"
    afar.fetch(here)
    assert [path.exists() for path in generations(here)] == [False, False]
    for content in (b"first", b"second", b"third"):
        here.write_bytes(sealed(content))
        afar.send(here.name, here.read_bytes())
    other = tmp_path / "elsewhere" / here.name
    other.parent.mkdir()
    afar.fetch(other)
    assert [path.read_bytes() for path in generations(other)] == [sealed(b"third"), sealed(b"second")]
    afar.drop(here.name)
    afar.drop(here.name)
    afar.fetch(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert names(url) == []


def test_a_bucket_that_is_not_there_is_told_of_and_not_made(bucket: str, tmp_path: Path):
    here = tmp_path / "a-s0-e2.safetensors"
    here.write_bytes(b"first")
    told = Afar(f"{bucket}-mistyped/run").send(here.name, here.read_bytes())
    assert told
    assert told.text.startswith(f"no checkpoint can be written to {bucket}-mistyped/run: ")
    system = fsspec.filesystem("s3")
    assert system.ls("", refresh=True) == ["bucket"]


@pytest.mark.parametrize("damaged", [b"", b"0" * 64, sealed(b"second")[:-1], sealed(b"second")[:-1] + b"\0"])
def test_a_damaged_file_is_not_kept_over_a_whole_one(damaged: bytes, tmp_path: Path):
    there, here = tmp_path / "there", tmp_path / "a-s0-e2.safetensors"
    afar = Afar(there.as_uri())
    for content in (b"first", b"second"):
        here.write_bytes(sealed(content))
        assert afar.send(here.name, here.read_bytes()) is None
    (there / here.name).write_bytes(damaged)
    here.write_bytes(sealed(b"third"))
    assert afar.send(here.name, here.read_bytes()) is None
    assert [path.read_bytes() for path in generations(there / here.name)] == [sealed(b"third"), sealed(b"first")]


def test_a_store_that_is_away_is_told_of_and_breaks_nothing(tmp_path: Path):
    there = tmp_path / "there"
    there.write_text("a file where the folder should be")
    here = tmp_path / "a-s0-e2.safetensors"
    here.write_bytes(b"first")
    afar = Afar(there.as_uri())
    told = [afar.fetch(here), afar.send(here.name, here.read_bytes()), afar.drop(here.name)]
    assert [str(one and one.text).partition(" file:")[0] for one in told] == [
        "no checkpoint can be read from",
        "no checkpoint can be written to",
        "no checkpoint can be removed from",
    ]
    assert here.read_bytes() == b"first"


def test_what_killed_senders_left_is_removed_with_its_trial_and_at_the_start_and_an_empty_folder_at_the_end(
    url: str, tmp_path: Path
):
    afar, here = Afar(url), tmp_path / "a-s0-e2.safetensors"
    assert (afar.sweep(), afar.drop(here.name)) == (None, None)
    here.write_bytes(b"first")
    afar.send(here.name, here.read_bytes())
    system, root = fsspec.core.url_to_fs(url)
    left = [f".{here.name}.0123abcd", ".b-s0-e2.safetensors.0123abcd"]
    for name in left:
        system.pipe_file(f"{root}/{name}", b"fir")
    afar.leave()
    assert names(url) == sorted([here.name, *left])
    afar.drop(here.name)
    assert names(url) == left[1:]
    afar.sweep()
    afar.leave()
    assert not system.exists(root)


def test_a_file_its_name_and_its_new_folder_are_on_the_disk_when_it_is_sent(settled: list[int], tmp_path: Path):
    here = tmp_path / "a-s0-e2.safetensors"
    here.write_bytes(b"first")
    assert Afar((tmp_path / "there").as_uri()).send(here.name, here.read_bytes()) is None
    there = tmp_path / "there"
    assert settled == [path.stat().st_ino for path in (tmp_path, there / here.name, there)]


def test_a_password_of_a_store_is_not_told(tmp_path: Path):
    here = tmp_path / "a-s0-e2.safetensors"
    here.write_bytes(b"first")
    told = Afar("ftp://me:hunter22@127.0.0.1:9/folder").send(here.name, here.read_bytes())
    assert told
    assert "ftp://me@127.0.0.1:9/folder: " in told.text
    assert "hunter22" not in told.text


def test_the_secrets_of_a_store_are_in_no_traceback():
    url = "az://me:secret@box/run?sig=secret"
    assert "secret" not in f"{Afar(url)} {Cluster(checkpoints=url)}"


def test_a_file_that_finds_no_room_on_this_machine_is_not_brought_in_part(tmp_path: Path):
    there, here = tmp_path / "there" / "a-s0-e2.safetensors", tmp_path / "a-s0-e2.safetensors"
    there.parent.mkdir()
    there.write_bytes(sealed(b"x" * 10_000))
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, most[1]))
    try:
        told = Afar(there.parent.as_uri()).fetch(here)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert told
    assert "no checkpoint can be read from" in told.text
    assert list(tmp_path.iterdir()) == [there.parent]


@pytest.mark.parametrize("bound", [None, "../another", ""])
def test_a_run_has_a_folder_of_its_own_which_it_finds_again_and_no_file_leads_elsewhere(
    bound: str | None, tmp_path: Path
):
    def place() -> str | None:
        with closing(Journal(tmp_path / "journal.jsonl", told.append, lambda: None)) as journal:
            cluster = _own_place(Cluster(checkpoints="s3://bucket/all/"), journal)
        return cluster and cluster.checkpoints

    told: list[str] = []
    if bound is not None:
        with closing(Journal(tmp_path / "journal.jsonl", told.append, lambda: None)) as journal:
            journal.bind("checkpoints", bound)
    first = place()
    assert first
    assert re.fullmatch("s3://bucket/all/[0-9a-f]{16}", first)
    assert place() == first


@pytest.mark.parametrize(
    "place",
    [
        *("", " ", "runs", "./runs", "../runs", "~/runs", "s3:/bucket/runs", "://runs", "s3://", "c://runs"),
        *("file://runs", "file:runs", "local://~/runs", "simplecache::file://runs", "me:hunter22@host/runs"),
    ],
)
def test_a_place_that_each_process_would_look_for_elsewhere_is_none(place: str):
    with pytest.raises(PlanError) as told:
        Cluster(checkpoints=place)
    assert str(told.value).startswith(f"--checkpoints is {'no absolute path' if place.strip() else 'empty'}")
    assert "hunter22" not in str(told.value)


@pytest.mark.parametrize(
    "place", ["/shared/runs", "file:///shared/runs", "memory://runs", "simplecache::file:///shared/runs"]
)
def test_a_path_and_a_url_of_a_known_protocol_are_places(place: str):
    assert Cluster(checkpoints=place).checkpoints == place
    refuse_unspoken(place)


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("s4://me:hunter22@bucket/runs?key=hunter22", "s4://me@bucket/runs?…"),
        ("FTP://me:hunter22@host/runs", "FTP://me@host/runs"),
        ("ftp://me:hunter::22@host/runs", "ftp://me@host/runs"),
        ("ftp://[::1]/runs", "ftp://[::1]/runs"),
        ("simplecache::s4://bucket/runs", "simplecache::s4://bucket/runs"),
        ("/shared/a::b", "/shared/a::b"),
    ],
)
def test_a_protocol_that_nobody_knows_is_refused_without_its_password(place: str, shown: str):
    with pytest.raises(PlanError) as told:
        refuse_unspoken(Cluster(checkpoints=place).checkpoints or "")
    assert told.value.message == f"--checkpoints {shown} is of no protocol that fsspec knows"


def test_a_protocol_whose_package_is_missing_is_refused_before_anything_is_written(call: Call, tmp_path: Path):
    line = call("run", "--engine", "ray", "--checkpoints", "tos://me:hunter22@bucket/runs").refusal
    assert line.startswith("scalesearch: --checkpoints tos://me@bucket/runs cannot be reached from here: ")
    assert "; on every node: Install tosfs to access " in line
    assert list(tmp_path.iterdir()) == []
