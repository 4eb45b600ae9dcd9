"""The scaled family of every family's baseline: built, counted by fvcore, run with torch alone, loaded again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import scalesearch
from scalesearch.direct import FamilyRequest, asked_family
from scalesearch.emit import write
from scalesearch.families import FAMILIES
from scalesearch.members import Member

WALLED = """
import runpy, sys

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("scalesearch", "torchvision", "timm", "fvcore"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Wall())
for path in sys.argv[1:]:
    runpy.run_path(path, run_name="__main__")
"""
BASELINES = [next(iter(family.networks)) for family in FAMILIES.values()]


@pytest.mark.slow
@pytest.mark.parametrize("name", BASELINES)
def test_the_family_of_every_baseline_is_built_counted_and_runs_with_torch_alone(name: str, tmp_path: Path):
    request = FamilyRequest(base=name, coefficients="1.2,1.1,1.15", growth="0.5,2", classes=10)
    family = asked_family(request, None)
    assert all(isinstance(one, Member) for one in family.members)
    # `write` counts each member by fvcore and compares the written source with the built network
    manifest = write(family.members, family.rule, family.base, tmp_path, lambda _: None, weights=True)
    files = [str(tmp_path / row["name"] / "network.py") for row in manifest["members"]]
    done = subprocess.run([sys.executable, "-I", "-c", WALLED, *files], check=True, capture_output=True, text=True)
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert printed == [{"params": row["params"], "output": [1, 10]} for row in manifest["members"]]
    for row in manifest["members"]:
        module = scalesearch.load(tmp_path / row["name"]).eval()
        with torch.no_grad():
            logits = module(torch.zeros(2, 3, row["resolution"], row["resolution"]))
        assert logits.shape == (2, 10)
        assert torch.isfinite(logits).all()
