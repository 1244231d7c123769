"""The DICOM files of a case: a folder, a zip, or one file. Nothing is ever unpacked to the disk."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from segplug.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset

MOST_FILES = 50_000
MOST_BYTES = 16 << 30
"""Of a zip: the files in it, and their bytes unpacked. A whole-body CT has some thousand files and 2 GB."""

SELECTION = "segplug.json"
"""File in a case's folder or zip that names the series to take: {"series": "<SeriesInstanceUID>"}."""

NO_DICOM = (".txt", ".json", ".xml", ".csv", ".md", ".pdf", ".jpg", ".png", ".html", ".ini", ".inf", ".db")
"""Endings of files that lie beside images and may be passed over. Any other file has to be DICOM."""


@dataclass(frozen=True)
class File:
    """One file of a case.

    Args:
        name: what errors call it: its path, in a zip `ZIP:MEMBER`.
    """

    name: str
    source: Path | tuple[zipfile.ZipFile, zipfile.ZipInfo]

    @property
    def size(self) -> int:
        """Bytes."""
        return self.source.stat().st_size if isinstance(self.source, Path) else self.source[1].file_size

    def read(self, *, pixels: bool) -> Dataset | None:
        """The data set in it; None where the file is of a kind that may lie beside images.

        Raises:
            DataError: it is damaged, or no DICOM file.
        """
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError

        try:
            with self.open() as file:
                return dcmread(file, stop_before_pixels=not pixels)
        except InvalidDicomError:
            if self.is_accessory:
                return None
            raise DataError(
                f"{self.name}: not a DICOM file (no DICM behind the preamble); expected one slice of a series. "
                "Restore it, or move it out of the case's folder"
            ) from None
        except MemoryError:
            raise
        except Exception as error:  # whatever pydicom meets in a damaged file
            raise DataError(
                f"{self.name}: damaged, cannot be read: {type(error).__name__}: {error}. Restore it"
            ) from None

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Its bytes."""
        with ExitStack() as stack:
            if isinstance(self.source, Path):
                file: Any = self.source.open("rb")
            else:
                archive, member = self.source
                file = archive.open(member)
            yield stack.enter_context(file)

    @property
    def is_accessory(self) -> bool:
        """Whether it may be something else than DICOM."""
        name = self.name.replace("\\", "/").rpartition("/")[2].rpartition(":")[2].lower()
        return name.startswith(".") or name.endswith(NO_DICOM) or name in ("dicomdir", "readme", "version")


@contextmanager
def files_of(path: Path) -> Iterator[list[File]]:
    """The files of a case, in the order of their names.

    Raises:
        DataError: there is nothing, or it is no zip where one is expected, or a zip beyond the limits.
    """
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file())
        if len(found) > MOST_FILES:
            raise DataError(f"{path}: {len(found)} files; expected one series, at most {MOST_FILES} files")
        yield [File(str(p), p) for p in found]
        return
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder; expected a DICOM series. Restore it")
    if not path.name.lower().endswith(".zip") and not zipfile.is_zipfile(path):
        yield [File(str(path), path)]
        return
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(f"{path}: damaged, not a zip: {error}. Pack the series again") from None
    with archive:
        members = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
        _check_limits(path, members)
        members.sort(key=lambda m: m.filename)
        try:
            yield [File(f"{path}:{m.filename}", (archive, m)) for m in members]
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise DataError(f"{path}: damaged: {error}. Pack the series again") from None


def _check_limits(path: Path, members: list[zipfile.ZipInfo]) -> None:
    total = sum(m.file_size for m in members)
    if len(members) > MOST_FILES or total > MOST_BYTES:
        raise DataError(
            f"{path}: {len(members)} files of {total / 2**30:.1f} GiB when unpacked; expected at most {MOST_FILES} "
            f"files and {MOST_BYTES >> 30} GiB. If this is one series, give it as a folder"
        )
    locked = next((m for m in members if m.flag_bits & 1), None)
    if locked is not None:
        raise DataError(
            f"{path}:{locked.filename}: encrypted; expected a zip without a password. Pack the series again"
        )
