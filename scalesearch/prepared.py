"""The images of a run: decoded once, into its folder or into a cache that runs share, and from then on only read."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from scalesearch.dataset.value import absolute
from scalesearch.errors import DataError, StudyError
from scalesearch.files import has_locks, make_folder, nearest
from scalesearch.plan import Layout, Plan
from scalesearch.proxy.choice import Choice, Told, key_of
from scalesearch.proxy.data import choose, choose_test
from scalesearch.proxy.decoding import decode
from scalesearch.proxy.images import SUMMARY, Images, open_images
from scalesearch.travel import every_proxy

DATA = "data"
TEST_DATA = "data-test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Images that are decoded, and the folder that workers open them in."""

    images: Images
    folder: Path
    """Absolute."""


def prepare_images(
    plan: Plan,
    layout: Layout,
    folder: Path,
    told: Told,
    *,
    cache: Path | None = None,
    download: bool = False,
    bound: str | None = None,
) -> Prepared:
    """The images that a plan trains and validates on.

    Args:
        plan: which images.
        layout: its candidates; none of them enlarges images that are larger in the data.
        folder: the run folder.
        told: hears how far the preparation is.
        cache: folder that runs share, in which images lie by the key of what they were made of; None = in the run
            folder, where they are found again without a look at the data.
        download: whether torchvision may fetch the dataset.
        bound: fingerprint of the images that the run is tied to; others in its folder are decoded anew.

    Raises:
        DataError: the images cannot be used, or do not fit on the disk.
        StudyError: they are not those that the run is tied to.
    """

    def chosen() -> Choice:
        side = side_needed(plan, layout)
        return choose(plan.data, images=plan.images, validation=plan.validation_images, side=side, download=download)

    return _prepared(chosen, folder / DATA, cache, told, bound)


def prepare_test(
    plan: Plan,
    train: Prepared,
    folder: Path,
    told: Told,
    *,
    cache: Path | None = None,
    download: bool = False,
    bound: str | None = None,
) -> Prepared:
    """The training images with the test part in place of the validation part; no trial but a confirmation opens it.

    Args:
        plan: which images.
        train: what `prepare_images` came to.
        folder: the run folder.
        told: hears how far the preparation is.
        cache: as in `prepare_images`.
        download: whether torchvision may fetch the test part.
        bound: as in `prepare_images`.

    Raises:
        DataError: the test part cannot be used, or does not fit on the disk.
        StudyError: it is not that which the run is tied to.
    """

    def chosen() -> Choice:
        side = int(train.images.train_images.shape[-1])
        return choose_test(plan.data, train.folder, side=side, download=download)

    return _prepared(chosen, folder / TEST_DATA, cache, told, bound)


def refuse_unwritable(cache: Path) -> None:
    """Refuse a folder for prepared images that cannot be made or written, before a run writes anything.

    Raises:
        DataError: it is a file, or nothing may be written there.
    """
    place = absolute(cache)
    there = nearest(place)
    needed = os.X_OK if there == place else os.W_OK | os.X_OK  # in a cache that is there, folders of images may be
    if not (there.is_dir() and os.access(there, needed)):
        raise DataError(f"{there} is no folder that can be written", mend="choose another folder with --cache")


def side_needed(plan: Plan, layout: Layout) -> int:
    """The largest resolution that a plan may train at, as far as its images have it [px]."""
    sides = (one.network.resolution for one in every_proxy(plan, layout))
    return min(plan.data.side, max(plan.resolution, *sides))


def _prepared(chosen: Callable[[], Choice], own: Path, cache: Path | None, told: Told, bound: str | None) -> Prepared:
    if cache is None:
        found = _opened(own)
        if found is None or _are_others(found, bound):
            choice = chosen()
            found = decode(choice, key_of(choice, told), own, told)
            if _are_others(found, bound):
                (own / SUMMARY).unlink()  # no later run takes them
        place = absolute(own)
    else:
        choice = chosen()
        key = key_of(choice, told)
        place = absolute(cache) / key
        with _held(place, choice.count, told):
            found = _opened(place) or decode(choice, key, place, told)
    if _are_others(found, bound):
        raise StudyError("the images are not those that the study began with", mend="restore them, or use --out")
    return Prepared(images=found, folder=place)


def _are_others(images: Images, bound: str | None) -> bool:
    """Whether images are not those that a run is tied to."""
    return bound not in (None, images.fingerprint)


def _opened(folder: Path) -> Images | None:
    """Prepared images, every byte of them checked; None if they are not there yet, or damaged."""
    try:
        return open_images(folder, verify=True)
    except DataError:
        return None


@contextmanager
def _held(folder: Path, count: int, told: Told) -> Generator[None]:
    """A folder of the cache, for one process at a time."""
    try:
        make_folder(folder)
        if not has_locks(folder):
            fault = f"{folder} lies on a file system without file locks, which runs share a cache by"
            raise DataError(fault, mend="choose another folder with --cache, or leave it out")
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            told("awaited", 0, count)
            lock.acquire()
            told("awaited", count, count)
    except OSError as error:
        fault = f"{folder} cannot be written: {error.strerror or error}"
        raise DataError(fault, mend="choose another folder with --cache") from error
    try:
        yield
    finally:
        lock.release()
