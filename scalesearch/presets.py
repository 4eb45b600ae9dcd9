"""The two presets, as data, and the choice between them without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from scalesearch.recipe import Recipe, Schedule

PresetName = Literal["quick", "standard"]
PolicyName = Literal["fit", "race", "grid"]
"""How a search decides what to train; see scalesearch/policies."""
WORTH: Mapping[str, str] = {"quick look": "short trainings of small proxies; enough to look, not to decide"}
"""By what a result is stamped with, the warning that belongs to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """How much a search spends, where the user does not say."""

    name: PresetName
    epochs: int
    """Training length of every proxy [epochs]."""
    seeds: int
    """Trainings of every proxy."""
    proxies: int | None
    """Distinct proxies that `race` and `grid` train; None = all."""
    trials: int | None
    """Most trials of a search under `fit`, the unscaled base's included; None = as many as the policy may take."""
    image_passes: int | None
    """Most training images seen by all trials together; None = every image, every epoch."""
    image_macs: float | None
    """Most training images times multiply-adds of their proxy, over all trials."""
    proxy_macs: int | None
    """The proxy base is narrowed by halves until it costs no more [multiply-adds]; None = full width."""
    validation_images: int
    """Most validation images."""
    photo_side: int
    """Resolution of the proxy base on photos [px]."""
    recipe: Recipe
    evidence: str
    """What a result of this preset is worth, stamped on everything that reports it."""


PRESETS: Mapping[PresetName, Preset] = MappingProxyType(
    {
        "quick": Preset(
            name="quick",
            epochs=2,
            seeds=2,
            proxies=12,
            trials=26,
            image_passes=96_000,
            image_macs=8.0e11,
            proxy_macs=8_000_000,
            validation_images=2_000,
            photo_side=32,
            recipe=Recipe(),
            evidence="quick look",
        ),
        "standard": Preset(
            name="standard",
            epochs=16,
            seeds=3,
            proxies=None,
            trials=None,
            image_passes=None,
            image_macs=None,
            proxy_macs=None,
            validation_images=10_000,
            photo_side=128,
            recipe=Recipe(
                learning_rate=4e-3,
                schedule=Schedule((0.0, 0.1, 1.0), (0.0, 1.0, 0.0)),
                batch_size=256,
                norm_images=2048,
                crop=0.1,
                flip=True,
            ),
            evidence="standard",
        ),
    }
)


def gpu_listed() -> bool:
    """Whether an NVIDIA driver lists a GPU that this process may see. Imports no torch."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU 0" in listed.stdout


def default_preset() -> PresetName:
    """`standard` where a GPU is listed, else `quick`: the one choice for planning and running alike."""
    return "standard" if gpu_listed() else "quick"
