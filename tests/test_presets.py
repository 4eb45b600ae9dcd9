"""The choice between `quick` and `standard`: by what an NVIDIA driver lists, without torch; and what they spend."""

import os
from pathlib import Path

import pytest

from scalesearch.presets import PRESETS, default_preset, gpu_listed

LISTED = "GPU 0: NVIDIA H200 (UUID: GPU-7a2b1c9e-0000-1111-2222-333344445555)"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a program `nvidia-smi` first on PATH that answers `-L` alone."""

    def install(output: str, *, code: int = 0) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f'#!/bin/sh\n[ "$*" = "-L" ] || exit 64\necho "{output}"\nexit {code}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return install


def test_a_listed_gpu_means_standard(driver):
    driver(LISTED)
    assert gpu_listed()
    assert default_preset() == "standard"


def test_a_driver_that_fails_means_quick(driver):
    driver(f"NVIDIA-SMI has failed because it could not communicate with the driver {LISTED}", code=9)
    assert not gpu_listed()
    assert default_preset() == "quick"


def test_a_driver_without_a_gpu_means_quick(driver):
    driver("No devices found.")
    assert default_preset() == "quick"


def test_no_driver_at_all_means_quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not gpu_listed()
    assert default_preset() == "quick"


def test_a_program_that_cannot_start_means_quick(driver, tmp_path: Path):
    driver(LISTED)
    (tmp_path / "nvidia-smi").write_bytes(b"\x7fELF and then nothing")
    assert default_preset() == "quick"


@pytest.mark.parametrize("visible", ["", "-1"])
def test_gpus_hidden_from_the_process_are_not_there(driver, monkeypatch: pytest.MonkeyPatch, visible: str):
    driver(LISTED)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert not gpu_listed()
    assert default_preset() == "quick"


@pytest.mark.parametrize("visible", ["0", "1", "0,1"])
def test_a_choice_among_gpus_leaves_some(driver, monkeypatch: pytest.MonkeyPatch, visible: str):
    driver(LISTED)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_listed()


def test_quick_is_a_look_and_says_so():
    quick = PRESETS["quick"]
    assert quick.evidence == "quick look"
    assert (quick.proxies, quick.seeds, quick.image_passes, quick.validation_images) == (12, 2, 96_000, 2_000)
    assert quick.trials == quick.seeds * (quick.proxies + 1) == 26  # every policy spends the same at most
    assert quick.photo_side == 32
    assert quick.proxy_macs is not None
    assert quick.image_macs is not None


def test_standard_trains_every_candidate_at_full_width():
    standard = PRESETS["standard"]
    assert (standard.proxies, standard.trials, standard.seeds, standard.epochs) == (None, None, 3, 16)
    assert (standard.proxy_macs, standard.image_passes, standard.image_macs) == (None, None, None)
    assert standard.photo_side == 128


def test_presets_go_by_their_names_and_cannot_be_changed():
    assert {name: preset.name for name, preset in PRESETS.items()} == {"quick": "quick", "standard": "standard"}
    with pytest.raises(TypeError):
        PRESETS["mine"] = PRESETS["quick"]  # type: ignore[index]
