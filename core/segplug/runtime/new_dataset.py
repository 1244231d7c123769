"""A raw data set that is being made: its name, a place to make it in, and files taken over from elsewhere."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segplug.errors import DataError, UsageError
from segplug.runtime.files import PARTIAL, flush
from segplug.runtime.folder_lock import working_in
from segplug.runtime.workspace import Workspace

_NAME = re.compile(r"Dataset\d{3,}_.+")
_NAMED = re.compile(r"(?:Task|Dataset)(\d+)_(.+)")


def new_dataset_folder(workspace: Workspace, source: Path, dataset: str | int | Path | None) -> Path:
    """Folder of the data set that is to be made out of `source`.

    Args:
        dataset: a name `DatasetXXX_NAME`, a path that ends in one, or an id to go with the source's name (that of
            `TaskXXX_NAME` and `DatasetXXX_NAME` without what is before it); None: id and name of a `TaskXXX_NAME`.

    Raises:
        UsageError: it is no such name, the data set exists, or its id belongs to another one.
    """
    text = "" if dataset is None else str(dataset)
    named = _NAMED.fullmatch(source.name)
    if "/" in text:
        folder = Path(text).expanduser().absolute()
    elif _NAME.fullmatch(text):
        folder = workspace.new_raw_folder(text)
    elif text.isdecimal() or (not text and named):
        own = named[2] if named else source.name.split(".")[0]
        name = re.sub(r"\W+", "_", own).strip("_") or "converted"
        folder = workspace.new_raw_folder(f"Dataset{int(text or (named[1] if named else 0)):03d}_{name}")
    else:
        found = repr(text) if text else f"no name, and the source is not named TaskXXX_NAME but {source.name}"
        raise UsageError(
            f"name of the new data set: {found}; expected DatasetXXX_NAME, or an id to go with {source.name}"
        )
    if not _NAME.fullmatch(folder.name):
        raise UsageError(f"{folder}: expected a folder named DatasetXXX_NAME, XXX being a number of three digits")
    _check_new(folder)
    number = folder.name.partition("_")[0]
    taken = [n for n in workspace.datasets() if n.partition("_")[0] == number and n != folder.name]
    if taken:
        raise UsageError(
            f"{folder.name}: its id belongs to {', '.join(taken)} already (raw, preprocessed, results). Choose another"
        )
    return folder


@contextmanager
def making_dataset(folder: Path) -> Iterator[Path]:
    """Yield a folder of the same name in a hidden one beside `folder`; when the block succeeds it is renamed to it.

    If the block raises, what it wrote is removed. What a killed process left is cleared away by the next.

    Raises:
        UsageError: `folder` exists, or another process is making it.
    """
    staging = folder.with_name(f"{PARTIAL}{folder.name}")
    made = staging / folder.name
    with working_in(staging):
        try:
            _check_new(folder)  # another process may have made it in the meantime
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            yield made
            made.rename(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def take_file(source: Path, target: Path, *, link: bool) -> None:
    """Copy a file, or make a hard link to it. Links are followed; rights and times are not taken over.

    Raises:
        DataError: the file is missing or cannot be read, or cannot be linked where the target is.
    """
    try:
        take = os.link if link else shutil.copyfile
        if source.is_dir():
            shutil.copytree(source, target, copy_function=take)
        else:
            take(source.resolve(), target)
        if not link:
            flush(target)
    except FileNotFoundError:
        kind = " (a link to a file that is not there)" if source.is_symlink() else ""
        raise DataError(f"{source}: found no such file{kind}; expected an image. Fetch or restore it") from None
    except PermissionError:
        raise DataError(f"{source}: cannot be read; expected a readable file. Check its rights") from None
    except OSError as error:
        if not link:
            raise  # a full disk: the command line knows the words
        why = "they lie on different file systems" if error.errno == errno.EXDEV else error.strerror
        raise DataError(f"{source}: cannot be hard linked to {target.parent}: {why}. Call without --link") from None


def _check_new(folder: Path) -> None:
    if folder.exists():
        raise UsageError(
            f"{folder}: exists already, and is left as it is. Choose another name or id, or remove it first"
        )
