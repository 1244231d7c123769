"""The data set that a report is about, as far as it is there."""

from __future__ import annotations

from pathlib import Path

from segplug.errors import DataError, UsageError
from segplug.model import RawDataset
from segplug.runtime.dataset_json import parse_description
from segplug.runtime.files import read_json
from segplug.runtime.findings import Finding, raise_errors
from segplug.runtime.raw_dataset import survey_dataset
from segplug.runtime.workspace import Workspace


def find_dataset(workspace: Workspace, dataset: str | int | Path) -> tuple[RawDataset, list[str]]:
    """The cases that are complete, and what is missing or wrong, as texts.

    Where the raw data are not there (models that came from elsewhere), the data set is described by the dataset.json
    of its preprocessed data, or of one of its models, and has no cases.

    Raises:
        UsageError: there is no such data set, or nothing is known of it but its name.
        DataError: dataset.json is damaged, and there is no copy of it.
    """
    name = workspace.dataset_name(dataset)
    try:
        folder = workspace.raw_folder(dataset)
    except UsageError:  # the folder of raw data is not set
        folder = Path(name)
    raw, findings = survey_dataset(folder)
    wrong = [str(finding).removeprefix("error: ") for finding in findings if finding.is_error]
    if raw is not None:
        return raw, wrong
    for file in _copies(workspace, name):
        try:
            description = parse_description(read_json(file), name, file)
        except DataError:
            continue
        return RawDataset(folder, description, {}), [*wrong, f"the description shown is that of {file}"]
    _raise(findings, folder, name)
    raise AssertionError


def _copies(workspace: Workspace, name: str) -> list[Path]:
    """dataset.json as it was when the data were preprocessed or trained on."""
    found = [] if workspace.preprocessed is None else [workspace.preprocessed_folder(name) / "dataset.json"]
    if workspace.results is not None:
        found += sorted(workspace.results_folder(name).glob("*__*__*/dataset.json"))
    return [file for file in found if file.is_file()]


def _raise(findings: list[Finding], folder: Path, name: str) -> None:
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder, and {name} is neither preprocessed nor trained: nothing to report")
    raise_errors(findings, f"data set {name}")
