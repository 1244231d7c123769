"""Zip archives of models: nnU-Net's layout, and a manifest that nnU-Net passes over.

Names in an archive are those in the folder of results, `Dataset004_X/nnUNetTrainer__nnUNetPlans__2d/plans.json`.
`Dataset004_X/segplug_model.json` holds the hash of every other file, versions, and what stood behind each component.
"""

from __future__ import annotations

import hashlib
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from segplug.errors import DataError, UsageError
from segplug.runtime.files import parse_json, replacing
from segplug.runtime.raw_dataset import IMAGE_ENDINGS

MANIFEST = "segplug_model.json"
CARD = "MODEL_CARD.md"

ENDINGS = (".json", ".pth", ".png", ".pdf", ".txt", ".md", ".csv")
"""Files that archives may bring; anything else, above all pickles and programs, stays in them. Label maps may come too,
in a folder of predictions."""

MOST_FILES = 100_000
_BYTES_AT_ONCE = 1 << 20
_LARGEST_TEXT = 1 << 28
_LONGEST_PART, _LONGEST_NAME = 255, 2048
"""Bytes of a part of a name and of all of it that usual file systems take, with room for the folder of results."""


def write_archive(path: Path, files: Mapping[str, Path], texts: Mapping[str, str]) -> None:
    """Write an archive, whole or not at all.

    Args:
        files: name in the archive -> file.
        texts: name -> content.
    """
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
        for name, file in files.items():
            archive.write(file, name)


class ModelArchive:
    """An archive that somebody else may have made. Used as a context manager.

    Args:
        path: the zip.
        most_bytes: what its files may come to when unpacked.
        source: where it comes from, for messages: an address, where that is not `path`.

    Raises:
        UsageError: on entering, there is no such file.
        DataError: on entering, it is no zip, or an entry is encrypted, a link, twice there or outside the data set's
            folder, or there are too many, or they would be too large; while reading, an entry is damaged.
    """

    def __init__(self, path: Path, most_bytes: int, source: str | None = None) -> None:
        self.path = path
        self.source = source or str(path)
        self.left_out: list[str] = []
        self._most = most_bytes
        self._entries: dict[str, zipfile.ZipInfo] = {}

    def __enter__(self) -> ModelArchive:
        if self.path.is_dir():
            raise UsageError(
                f"{self.source}: a folder; expected a zip of models, as 'segplug model export' writes. A model folder "
                "needs no import: put it into the data set's folder of results, or give it to predict (-m)"
            )
        if not self.path.is_file():
            raise UsageError(f"{self.source}: no such file; expected a zip of a model")
        try:
            self._zip = zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DataError(f"{self.source}: not a zip: {error}. Copy or download it again") from None
        try:
            self._look(self._zip.infolist())
        except BaseException:
            self._zip.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    @property
    def names(self) -> list[str]:
        """Files that may be unpacked."""
        return list(self._entries)

    def read(self, name: str) -> bytes:
        """A small file's content."""
        if self._entries[name].file_size > _LARGEST_TEXT:
            raise DataError(f"{self.source}: {name} has {self._entries[name].file_size} bytes; expected a small file")
        with self._opened(name) as source:
            content: bytes = source.read(_LARGEST_TEXT)
        return content

    def unpack(self, name: str, target: Path) -> str:
        """Write a file below `target`; returns its SHA-256."""
        path = target.joinpath(*PurePosixPath(name).parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with path.open("xb") as file:
            for block in self._blocks(name):
                digest.update(block)
                file.write(block)
        return digest.hexdigest()

    def digest(self, name: str) -> str:
        """SHA-256 of a file, which is not unpacked."""
        digest = hashlib.sha256()
        for block in self._blocks(name):
            digest.update(block)
        return digest.hexdigest()

    def manifest(self) -> Mapping[str, str] | None:
        """SHA-256 of each file, as the data set's manifest says, or None for an archive of nnU-Net.

        Raises:
            DataError: the manifest is damaged, or names files that are not there.
        """
        place = next((n for n in self._entries if n.endswith(f"/{MANIFEST}") and n.count("/") == 1), None)
        if place is None:
            return None
        try:
            files = parse_json(self.read(place))["files"]
            hashes = {str(file): str(entry["sha256"]) for file, entry in files.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{self.source}: {place}: damaged: {error}. Download it again") from None
        if missing := sorted(set(hashes) - set(self._entries)):
            raise DataError(
                f"{self.source}: lacks {', '.join(missing[:5])}, which its {MANIFEST} names. Download it again"
            )
        return hashes

    def compare(self, name: str, found: str, manifest: Mapping[str, str]) -> None:
        """Refuse a file whose SHA-256 is not that of the manifest.

        Raises:
            DataError: it is another, or the manifest does not have the file.
        """
        path = PurePosixPath(name)
        if path.name == MANIFEST and len(path.parts) == 2:
            return
        if name not in manifest:
            if path.suffix == ".md":  # the card is made of the rest
                return
            raise DataError(f"{self.source}: {name} is not in its {MANIFEST}. Do not use this file")
        if manifest[name] != found:
            raise DataError(f"{self.source}: {name} is not as its {MANIFEST} says (SHA-256). Do not use this file")

    def _blocks(self, name: str) -> Iterator[bytes]:
        left = self._entries[name].file_size
        with self._opened(name) as source:
            while block := source.read(_BYTES_AT_ONCE):
                left -= len(block)
                if left < 0:  # more than the archive says
                    raise DataError(f"{self.source}: {name} is larger than the archive says. Do not use this file")
                yield block

    @contextmanager
    def _opened(self, name: str) -> Iterator[Any]:
        try:
            try:
                opened = self._zip.open(self._entries[name])
            except OSError as error:  # the entry's place is outside the file
                raise zipfile.BadZipFile(str(error)) from None
            with opened as source:
                yield source
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise DataError(f"{self.source}: {name}: damaged: {error}. Copy or download it again") from None

    def _look(self, entries: Sequence[zipfile.ZipInfo]) -> None:
        if len(entries) > MOST_FILES:
            raise DataError(f"{self.source}: {len(entries)} files; expected at most {MOST_FILES}")
        files = [entry for entry in entries if not entry.is_dir()]
        for entry in files:
            self._check(entry)
            name = str(PurePosixPath(entry.filename))
            if name in self._entries:
                raise DataError(f"{self.source}: {name} is there twice. Do not use this file")
            if is_allowed(name):
                self._entries[name] = entry
            else:
                self.left_out.append(name)
        folders = {str(parent) for name in self._entries for parent in PurePosixPath(name).parents}
        if both := sorted(folders & set(self._entries)):
            raise DataError(f"{self.source}: {both[0]!r} is a file and a folder. Do not use this file")
        total = sum(entry.file_size for entry in self._entries.values())
        if total > self._most:
            raise DataError(
                f"{self.source}: {total / 1e9:.1f} GB when unpacked; expected at most {self._most / 1e9:.1f}. If you "
                "trust it, allow more with --max-size"
            )

    def _check(self, entry: zipfile.ZipInfo) -> None:
        name, parts = entry.filename, PurePosixPath(entry.filename).parts
        mode = entry.external_attr >> 16
        problem = ""
        if any(len(part.encode()) > _LONGEST_PART for part in parts) or len(name.encode()) > _LONGEST_NAME:
            name, problem = f"{name[:60]}...", "is too long a name"
        elif not parts or name.startswith("/") or "\\" in name or ":" in name or ".." in parts or "\0" in name:
            problem = "is outside the folder of results"
        elif stat.S_ISLNK(mode) or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
            problem = "is no plain file"
        elif entry.flag_bits & 0x1:
            problem = "is encrypted"
        elif entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            problem = "is compressed otherwise than by deflation"
        if problem:
            raise DataError(f"{self.source}: {name!r} {problem}. Do not use this file")


def is_allowed(name: str) -> bool:
    """Whether a file may come out of an archive: no pickles, no programs."""
    path = PurePosixPath(name)
    if any(part.startswith(".") for part in path.parts) or not name.isprintable():
        return False
    in_predictions = len(path.parts) > 3 and (
        "validation" in path.parts or "crossval_" in name or "ensembles" in path.parts
    )
    return name.endswith(ENDINGS) or (in_predictions and name.lower().endswith(IMAGE_ENDINGS))
