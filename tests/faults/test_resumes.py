"""Trainings killed at random steps and instants, also while they write, end with the bits of undisturbed ones."""

import subprocess
import sys

import pytest
from judging import FULL

KILLS = 8
"""Of each training."""
TRAININGS = 13 if FULL else 1

SCRIPT = """
import hashlib, os, random, signal, sys, time
from pathlib import Path

import numpy as np
import torch

from scalesearch.nets.network import build
from scalesearch.proxy.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from scalesearch.proxy.device import on_device
from scalesearch.proxy.images import Images
from scalesearch.proxy.train import Training
from scalesearch.recipe import Recipe
from scalesearch.spec import Head, Network, Stage, Stem

NETWORK = Network(
    stem=Stem(width=8, stride=1),
    stages=(
        Stage(block="mbconv", depth=1, width=8, stride=2),
        Stage(block="mbconv", depth=2, width=12, expansion=2.0, se_ratio=0.25),
    ),
    head=Head(width=16, dropout=0.2),
    resolution=10,
    num_classes=3,
    drop_path=0.1,
)
RECIPE = Recipe(batch_size=16, norm_images=32, crop=0.1, flip=True)


def images():
    def part(count, seed):
        pixels = np.random.default_rng(seed).integers(0, 256, (count, 1, 10, 10), np.uint8)
        return pixels, (np.arange(count) % 3).astype(np.int64)

    (train, labels), (held, held_labels) = part(128, 0), part(60, 1)
    found = Images(
        train_images=train, train_labels=labels, validation_images=held, validation_labels=held_labels, fingerprint=""
    )
    return on_device(found, resolution=10, device=torch.device("cpu"), memory=2**30)


def trained(path, seed, told=lambda step: None):
    # to the end, with a checkpoint behind every step; returns a digest of all that came of it
    training = Training(build(NETWORK, seed=seed), images(), RECIPE, epochs=6, seeds=[seed])
    results = []
    stored = read_checkpoint(path, "this")
    if stored is not None:
        results = stored.results
        training.restore(stored.tensors, epoch=len(results), step=stored.step)
    for found in training.steps():
        results += [found] if found is not None else []
        write_checkpoint(path, Checkpoint(tensors=training.tensors(), results=results, step=training.step), "this")
        told(training.step)
    values = b"".join(value.contiguous().numpy().tobytes() for value in training.state.tensors().values())
    return hashlib.sha256(values + repr(results).encode()).hexdigest()


def killed(path, seed, chance):
    # a process that is killed some steps farther; returns how far it surely came
    hears, tells = os.pipe()
    pid = os.fork()
    if not pid:
        trained(path, seed, lambda step: os.write(tells, b"."))
        os._exit(0)
    for _ in range(chance.randint(1, 5)):
        os.read(hears, 1)
    time.sleep(chance.random() * 0.02)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(hears), os.close(tells)
    return os.WIFSIGNALED(status)


torch.set_num_threads(1)
seed, kills, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
chance = random.Random(seed)
print(trained(folder / "undisturbed", seed))
print(sum(killed(folder / "killed", seed, chance) for _ in range(kills)))
print(read_checkpoint(folder / "killed", "this").step)
print(trained(folder / "killed", seed))
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(TRAININGS))
def test_a_training_killed_again_and_again_ends_with_the_bits_of_an_undisturbed_one(seed: int, tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(seed), str(KILLS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    expected, kills, step, found = done.stdout.split()
    assert int(kills) == KILLS
    assert 0 < int(step) <= 48
    assert found == expected
