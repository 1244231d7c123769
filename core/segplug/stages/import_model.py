"""Take models out of a zip, from a file or the web, after looking at everything in it."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from uuid import uuid4

from segplug.errors import CheckpointError, DataError, UsageError
from segplug.runtime.checkpoint import read_checkpoint
from segplug.runtime.choice_codec import instructions, read_choice
from segplug.runtime.download import download, is_url
from segplug.runtime.files import PARTIAL, file_hash, write_text
from segplug.runtime.installed_models import read_installed, tell_of_all
from segplug.runtime.model_archive import ModelArchive
from segplug.runtime.model_description import FOLD, ModelsDescription, describe_files, describe_results
from segplug.runtime.project import Project

STAGE = "import"
MOST_GB = 50.0
"""Unless more is allowed: five folds of four configurations, with optimisers, are a tenth of it."""

_DATASET = re.compile(r"Dataset\d+_[\w.-]+")


@dataclass(frozen=True)
class ImportedModel:
    """What was installed.

    Args:
        folder: the data set's folder of results.
        description: the models that were in the archive.
        left_out: files of the archive that were not unpacked, as they are no part of a model or could run code.
        checked: whether the archive had hashes of its files.
    """

    folder: Path
    description: ModelsDescription
    left_out: tuple[str, ...]
    checked: bool


def import_model(
    project: Project,
    source: str | Path,
    *,
    sha256: str | None = None,
    max_gb: float = MOST_GB,
    overwrite: bool = False,
) -> ImportedModel:
    """Install the models of a zip that segplug or nnU-Net exported into the folder of results.

    Nothing of it is run: pickles and programs stay in the archive, checkpoints are read by the allow-list of
    `segplug.runtime.checkpoint`, and hashes are compared if it has them. Only when all is well are models moved to
    their places. Other models of the data set stay, and `segplug_model.json` and `MODEL_CARD.md` tell of all.

    Args:
        source: a file, or an address with http:// or https://.
        sha256: what the archive's hash has to be, as hex.
        max_gb: of the archive, and of its files when unpacked.
        overwrite: replace models of the same names.

    Raises:
        UsageError: there is no such file, models of the same names are there, or no folder of results is set.
        DataError: the archive is damaged, too large, or not what it says; or the download failed.
        CheckpointError: a checkpoint is damaged, or holds more than tensors and plain values.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise UsageError(f"--sha256 {sha256}: expected 64 hexadecimal digits")
    if max_gb <= 0:
        raise UsageError(f"--max-size {max_gb}: expected more than 0 (GB)")
    results = project.workspace.results_folder("Dataset000").parent
    results.mkdir(parents=True, exist_ok=True)
    staging = results / f"{PARTIAL}{uuid4().hex[:12]}-import"
    staging.mkdir()
    most = int(max_gb * 1e9)
    try:
        with project.stage(STAGE, str(source)):
            if is_url(str(source)):
                file = staging / "download.zip"
                download(
                    str(source),
                    file,
                    most_bytes=most,
                    sha256=sha256,
                    told=lambda done, total: project.progress(STAGE, "MB", done, total),
                )
            else:
                file = Path(source)
                if sha256 is not None and file.is_file() and file_hash(file) != sha256.lower():
                    raise DataError(
                        f"{file}: SHA-256 {file_hash(file)}; expected {sha256.lower()}. Do not use this file"
                    )
            with ModelArchive(file, most, str(source)) as archive:
                return _install(project, archive, staging / "unpacked", results, overwrite)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def inspect_archive(path: Path, *, max_gb: float = MOST_GB) -> ModelsDescription:
    """Describe the models in a zip without unpacking it; hashes are compared as `import_model` does.

    Raises:
        UsageError, DataError: see `import_model`.
    """
    with ModelArchive(path, int(max_gb * 1e9)) as archive:
        described = describe_files(archive.names, archive.read, str(path))
        manifest = archive.manifest()
        for file in archive.names if manifest is not None else ():
            archive.compare(file, archive.digest(file), manifest or {})
        return described


def inspect_model(project: Project, source: str | Path) -> ModelsDescription:
    """Describe the models in a zip, in a model folder, or of a data set (its id, name or folder of results).

    Raises:
        UsageError: there is nothing of this name.
        DataError: it is damaged, or there are no models in it.
    """
    path = Path(source)
    if path.is_file():
        return inspect_archive(path)
    if path.is_dir() and (path / "plans.json").is_file():
        return describe_results(path.resolve().parent, path.resolve().name)
    if path.is_dir():
        return describe_results(path)
    name = project.workspace.dataset_name(source)
    folder = project.workspace.results_folder(name)
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder, so there are no models of {name}")
    return describe_results(folder)


def _install(project: Project, archive: ModelArchive, staging: Path, results: Path, overwrite: bool) -> ImportedModel:
    described = describe_files(archive.names, archive.read, archive.source)
    name = described.dataset.name
    outside = [file for file in archive.names if PurePosixPath(file).parts[0] != name]
    if outside or not _DATASET.fullmatch(name):
        raise DataError(
            f"{archive.source}: {', '.join(outside[:3]) or name}: expected files of one data set, in "
            "Dataset004_NAME/..."
        )
    _require_folds(archive)
    _require_free(archive, results, overwrite)
    manifest = archive.manifest()
    for done, file in enumerate(archive.names, start=1):
        found = archive.unpack(file, staging)
        if manifest is not None:
            archive.compare(file, found, manifest)
        project.progress(STAGE, file, done, len(archive.names))
    for model in described.models:
        if not model.folds:
            raise DataError(f"{archive.source}: {model.name} has no checkpoint")
        for weights in sorted((staging / name / str(model.name)).glob("fold_*/*.pth")):
            checkpoint = _checked(archive, weights, weights.relative_to(staging))
            if checkpoint != model.name.configuration:
                raise DataError(
                    f"{archive.source}: {weights.relative_to(staging)}: of configuration {checkpoint}; expected "
                    f"{model.name.configuration}"
                )
    before = read_installed(results / name)
    replaced = _move(staging / name, results / name)
    tell_of_all(
        results / name,
        before,
        models=[str(model.name) for model in described.models],
        replaced=replaced,
        has_manifest=manifest is not None,
    )
    choice = project.workspace.choice_file(name)
    if described.choice and f"{name}/{choice.name}" in archive.names:
        with suppress(DataError):  # a member or the decision is not there: reading the choice tells
            write_text(project.workspace.instructions_file(name), instructions(read_choice(choice)))
    return ImportedModel(results / name, described, tuple(archive.left_out), manifest is not None)


def _checked(archive: ModelArchive, file: Path, shown: Path) -> str:
    try:
        return read_checkpoint(file, mapped=True).configuration
    except CheckpointError as error:
        raise CheckpointError(f"{archive.source}: {str(error).replace(str(file), str(shown))}") from None


def _require_folds(archive: ModelArchive) -> None:
    parts = (PurePosixPath(file).parts for file in archive.names)
    folders = {p[2] for p in parts if len(p) > 3 and p[1].count("__") == 2 and p[2].startswith("fold_")}
    wrong = sorted(name for name in folders if not FOLD.fullmatch(name.removeprefix("fold_")))
    if wrong:
        raise DataError(
            f"{archive.source}: {', '.join(wrong[:3])}: no fold is called so; expected fold_0, fold_1, ... or fold_all"
        )


def _require_free(archive: ModelArchive, results: Path, overwrite: bool) -> None:
    there = sorted({str(place) for place in _places(archive.names) if (results / place).exists()})
    if there and not overwrite:
        raise UsageError(
            f"{results}: there already: {', '.join(there)}. To replace it with what {archive.source} holds, call again "
            "with --overwrite"
        )


def _places(names: list[str]) -> list[PurePosixPath]:
    """What is replaced as a whole: model folders, ensembles, and the choice."""
    found = []
    for path in map(PurePosixPath, names):
        if len(path.parts) > 2:
            found.append(PurePosixPath(*path.parts[: 3 if path.parts[1] == "ensembles" else 2]))
        elif path.name == "inference_information.json":
            found.append(path)
    return list(dict.fromkeys(found))


def _move(source: Path, target: Path) -> list[PurePosixPath]:
    """Put every model folder and ensemble in its place whole; one that is there is put aside, then removed.

    Returns:
        The places.
    """
    root, aside = source.parent, source.parent / "replaced"
    files = [file.relative_to(root).as_posix() for file in source.rglob("*") if file.is_file()]
    singles = [PurePosixPath(f) for f in files if len(PurePosixPath(f).parts) == 2]
    # the choice last: it counts on the models
    places = sorted({*_places(files), *singles}, key=lambda p: (p in singles, str(p)))
    for place in places:
        destination = target.parent / place
        destination.parent.mkdir(parents=True, exist_ok=True)
        if destination.exists():
            (aside / place).parent.mkdir(parents=True, exist_ok=True)
            destination.rename(aside / place)
        try:
            (root / place).rename(destination)
        except OSError:
            if (aside / place).exists():
                (aside / place).rename(destination)
            raise
    return places
