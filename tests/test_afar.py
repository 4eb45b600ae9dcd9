"""Checkpoints at a URL: two generations, each there in whole, on file systems that are not files too."""

from pathlib import Path

import pytest

pytest.importorskip("fsspec", reason="needs scalesearch[ray]")

from scalesearch.engine.afar import Afar
from scalesearch.files import generations


@pytest.mark.parametrize("kind", ["memory", "file", "path"])
def test_a_file_comes_back_in_two_generations_and_goes(kind: str, tmp_path: Path):
    there = tmp_path / "there"
    afar = Afar({"memory": "memory://there/run", "file": there.as_uri(), "path": str(there)}[kind])
    here = tmp_path / "a-s0-e2.safetensors"
    afar.fetch(here)
    assert [path.exists() for path in generations(here)] == [False, False]
    for content in (b"first", b"second", b"third"):
        here.write_bytes(content)
        afar.send(here)
    other = tmp_path / "elsewhere" / here.name
    other.parent.mkdir()
    afar.fetch(other)
    assert [path.read_bytes() for path in generations(other)] == [b"third", b"second"]
    afar.drop(here.name)
    afar.drop(here.name)
    afar.fetch(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    if kind != "memory":
        assert list(there.iterdir()) == []


def test_a_store_that_is_away_is_told_of_and_breaks_nothing(tmp_path: Path):
    there = tmp_path / "there"
    there.write_text("a file where the folder should be")
    here = tmp_path / "a-s0-e2.safetensors"
    here.write_bytes(b"first")
    afar = Afar(there.as_uri())
    told = [afar.fetch(here), afar.send(here), afar.drop(here.name)]
    assert [str(one and one.text).partition(" file:")[0] for one in told] == [
        "no checkpoint can be read from",
        "no checkpoint can be written to",
        "no checkpoint can be removed from",
    ]
    assert here.read_bytes() == b"first"
