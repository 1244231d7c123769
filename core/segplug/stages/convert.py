"""Make a raw data set out of something else, with a converter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from segplug.errors import DataError, PluginError, SegplugError, UsageError
from segplug.model import ComponentRef, Conversion, ConvertedFile
from segplug.protocols import Converter, recognises
from segplug.runtime.case_work import map_cases
from segplug.runtime.component_text import check_types
from segplug.runtime.dataset_json import parse_description
from segplug.runtime.files import flush, read_json, write_json
from segplug.runtime.new_dataset import making_dataset, new_dataset_folder, take_file
from segplug.runtime.project import Project
from segplug.runtime.user_choice import named_by_user
from segplug.runtime.wording import listed
from segplug.stages.verify import Verification, verify

STAGE = "convert"
RECORD = "conversion.json"
"""Beside dataset.json: which converter made the data set, and what each file was made from."""

_FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs", "imagesVal", "labelsVal")


@dataclass(frozen=True)
class ConvertedDataset:
    """A data set that was made.

    Args:
        folder: where it is.
        converter: the component that made it.
        recognised_by: what the source was recognised by; empty where the user named the converter.
        notes: what was decided or left out.
        verification: of the result; None if it was not asked for.
    """

    folder: Path
    converter: str
    recognised_by: str
    notes: tuple[str, ...]
    verification: Verification | None


def convert(
    project: Project,
    source: Path,
    dataset: str | int | Path | None = None,
    *,
    converter: str | None = None,
    options: Mapping[str, Any] | None = None,
    link: bool = False,
    check: bool = True,
) -> ConvertedDataset:
    """Make the raw data set `dataset` from `source`, which is only read.

    It appears under its name once it is complete: files are made in a hidden folder beside it, which is renamed. What
    an interrupted call left there is cleared away by the next.

    Args:
        source: folder or file.
        dataset: name `DatasetXXX_NAME`, a path that ends in one, or an id to go with the source's name; None: name and
            id of a folder named `TaskXXX_NAME`.
        converter: a component of kind converters; None: the one that recognises the source.
        options: for the converter.
        link: files that stay as they are become hard links. They take no room, but whoever writes into one changes
            both.
        check: verify the result.

    Raises:
        UsageError: the source does not exist or is not recognised, the data set exists already, its id is taken, or
            the converter does not take the options.
        DataError: the source is not what the converter expects, or a file is damaged; nothing is left then.
    """
    source = source.expanduser().absolute()
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder to convert")
    reason = ""
    if converter is None:
        converter, reason = guess_converter(project, source)
    folder = new_dataset_folder(project.workspace, source, dataset)
    with named_by_user("--from and its options" if options else "--from"):
        ref = ComponentRef(converter, dict(options or {}))
        build: Converter = project.kernel.registry.build("converters", ref)
        check_types(project.kernel.registry, "converters", ref)
    conversion = build(source)
    _check(conversion, converter)
    parse_description(conversion.description, folder.name, source)
    with making_dataset(folder) as made:
        _make_files(project, conversion, made, link)
        write_json(made / RECORD, _record(conversion, converter, options, source))
        write_json(made / "dataset.json", dict(conversion.description))
    verification = verify(project, folder) if check else None
    return ConvertedDataset(folder, converter, reason, conversion.notes, verification)


def guess_converter(project: Project, source: Path) -> tuple[str, str]:
    """Name of the one converter that recognises a source, and what it is recognised by.

    Raises:
        UsageError: it is a data set of nnU-Net v2 already, or no converter recognises it, or several do.
    """
    registry = project.kernel.registry
    if _is_raw_dataset(source):
        raise UsageError(
            f"{source}: this is a raw data set of nnU-Net v2 already (dataset.json with channel_names and "
            "file_ending); there is nothing to convert. Name it by its path, or put it into the folder of raw data"
        )
    found: dict[str, str] = {}
    for name in registry.names("converters"):
        try:
            reason = recognises(registry.load(registry.find("converters", name)), source)
        except SegplugError:  # a plugin that cannot be loaded is no reason not to use another
            continue
        if reason:
            found[name] = reason
    if len(found) == 1:
        return next(iter(found.items()))
    known = ", ".join(registry.names("converters"))
    if not found:
        raise UsageError(f"{source}: none of the converters recognises this. Name one with --from: {known}")
    several = "; ".join(f"{name} by {reason}" for name, reason in found.items())
    raise UsageError(f"{source}: several converters recognise this: {several}. Name one with --from")


def _is_raw_dataset(source: Path) -> bool:
    try:
        raw = read_json(source / "dataset.json")
    except DataError:
        return False
    return isinstance(raw, dict) and {"channel_names", "file_ending"} <= set(raw)


def _check(conversion: Conversion, converter: str) -> None:
    """What a converter may ask for: every file once, within the folders of a data set."""
    targets = [target for file in conversion.files for target in file.targets]
    wrong = [t for t in targets if len(p := PurePosixPath(t).parts) != 2 or p[0] not in _FOLDERS or p[1] == ".."]
    folded = Counter(t.casefold() for t in targets)
    twice = sorted({t for t in targets if folded[t.casefold()] > 1})
    if wrong:
        raise PluginError(f"converter {converter!r}: wants to write {listed(wrong)}; expected files in {_FOLDERS}")
    if twice:
        raise DataError(
            f"several sources for one file of the data set: {listed(twice)}; expected names that differ, and "
            "not in capitals alone. Rename the cases in the source, or choose a pattern that tells them apart"
        )
    if not conversion.files:
        raise DataError(f"converter {converter!r}: found no file to convert")


def _make_files(project: Project, conversion: Conversion, folder: Path, link: bool) -> None:
    for part in sorted({PurePosixPath(t).parts[0] for file in conversion.files for t in file.targets}):
        (folder / part).mkdir()
    jobs = {f"{file.case} ({file.targets[0]})": file for file in conversion.files}
    make = partial(_make, folder=folder, link=link)
    map_cases(project, STAGE, folder.name, make, jobs, failed="could not be converted")


def _make(file: ConvertedFile, folder: Path, link: bool) -> None:
    paths = tuple(folder / target for target in file.targets)
    if file.make is None:
        take_file(file.sources[0], paths[0], link=link)
        return
    file.make(paths)
    for path in paths:
        if not path.exists():
            raise DataError(f"{', '.join(map(str, file.sources))}: {path.name} was not made of it")
        flush(path)


def _record(conversion: Conversion, converter: str, options: Mapping[str, Any] | None, source: Path) -> dict[str, Any]:
    def relative(path: Path) -> str:
        return path.relative_to(source).as_posix() if path.is_relative_to(source) else str(path)

    files = {t: [relative(s) for s in file.sources] for file in conversion.files for t in file.targets}
    return {
        "converter": converter,
        "options": dict(options or {}),
        "source": source.name,
        "notes": list(conversion.notes),
        **conversion.record,
        "files": dict(sorted(files.items())),
    }
