"""What `--data` may name, and which module describes it."""

from __future__ import annotations

from pathlib import Path

from scalesearch.dataset.archives import describe_npz
from scalesearch.dataset.embedded import describe_embedded
from scalesearch.dataset.folders import describe_folder
from scalesearch.dataset.torchvision_sets import describe_torchvision
from scalesearch.dataset.value import EMBEDDED, TORCHVISION_PREFIX, Dataset, absolute
from scalesearch.errors import DataError

DEFAULT_ROOT = Path("~/.cache/scalesearch")


def describe(source: str | None, *, root: Path | None) -> Dataset:
    """The facts about the images that `--data` names.

    Args:
        source: None for the embedded subset of Fashion-MNIST, `torchvision:NAME`, a folder with `train/` and
            optional `val/` and `test/` (or with the class folders directly inside), or `FILE.npz`.
        root: where torchvision keeps its files; None is `~/.cache/scalesearch`.

    Raises:
        DataError: nothing usable is there.
    """
    if source is None or source == EMBEDDED:
        return describe_embedded()
    if not source.strip():
        raise DataError(
            "the dataset's name is empty", mend="name a folder of class folders, FILE.npz or torchvision:NAME"
        )
    if source.startswith(TORCHVISION_PREFIX):
        return describe_torchvision(source.removeprefix(TORCHVISION_PREFIX), root or DEFAULT_ROOT)
    path = absolute(Path(source))
    is_archive = path.suffix.lower() == ".npz"
    if is_archive and (path.is_file() or path.is_dir()):  # a pipe would be waited for
        return describe_npz(path)
    if path.is_dir() and not is_archive:
        return describe_folder(path)
    fault = "is neither a folder nor an .npz file" if path.exists() else "does not exist"
    raise DataError(f"{path} {fault}", mend="name a folder of class folders, FILE.npz or torchvision:NAME")
