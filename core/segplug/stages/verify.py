"""Verify a raw data set: every file read to its end, every problem of every case told at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from segplug.errors import DataError
from segplug.kernel import Kernel
from segplug.model import Case, DatasetDescription, Fingerprint, RawDataset
from segplug.protocols import Reader
from segplug.runtime.case_inspection import InspectedCase, inspect_case
from segplug.runtime.case_work import each_case
from segplug.runtime.findings import Finding, raise_errors
from segplug.runtime.measuring_memory import needs_to_measure
from segplug.runtime.prediction_output import writer_name
from segplug.runtime.preparation_memory import to_inspect
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import choose_reader, survey_dataset
from segplug.stages.fingerprint import CaseMeasurement, Measuring, keep_measured, measure_arrays, state_of

STAGE = "verify"


@dataclass(frozen=True)
class Verification:
    """What verifying a data set found.

    Args:
        folder: the data set.
        cases: names of the cases whose files were read.
        findings: errors and warnings, those on the whole data set first, then by case.
        reader: name of the reader the files were read with; empty if there was none.
    """

    folder: Path
    cases: tuple[str, ...]
    findings: tuple[Finding, ...]
    reader: str = ""

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.is_error)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if not f.is_error)

    @property
    def ok(self) -> bool:
        """True if there is no error; warnings do not count."""
        return not self.errors

    def raise_errors(self) -> None:
        """Raise one `DataError` that lists all errors; return if there is none."""
        raise_errors(self.findings, f"data set {self.folder.name}")


def verify(project: Project, dataset: str | int | Path) -> Verification:
    """Check dataset.json, the files of every training case, and the cases against each other.

    Args:
        dataset: id, name or path of a raw data set.

    Returns:
        All findings; bad data does not raise.

    Raises:
        UsageError: no such data set, or no folder for raw data is set.
        PluginError: dataset.json names a reader that does not exist.
    """
    return _verify(project, dataset, measuring=False)[0]


def verify_and_fingerprint(project: Project, dataset: str | int | Path) -> tuple[Verification, Fingerprint | None]:
    """`verify` and `fingerprint` of the same data set, each case read once for both.

    Returns:
        The findings, and the fingerprint, which is written; None if there are errors.

    Raises:
        UsageError: no such data set, or a folder is not set.
        PluginError: dataset.json names a reader that does not exist.
    """
    project.workspace.preprocessed_folder(project.workspace.raw_folder(dataset).name)  # told before the work begins
    return _verify(project, dataset, measuring=True)


def _verify(project: Project, dataset: str | int | Path, *, measuring: bool) -> tuple[Verification, Fingerprint | None]:
    folder = project.workspace.raw_folder(dataset)
    survey, findings = survey_dataset(folder)
    if survey is None:
        return Verification(folder, (), tuple(findings)), None
    findings += _check_case_number(survey, findings)
    if not survey.cases:
        return Verification(folder, (), tuple(findings)), None
    name = _reader_name(survey, project.kernel)
    if name is None:
        findings += [_no_reader(case) for case in survey.cases.values()]
        return Verification(folder, (), _in_order(findings)), None
    findings += _check_writer(survey, name, project.kernel)
    measured = Measuring(survey) if measuring else None
    made_from = state_of(project, survey, name) if measuring else ""
    inspected = _inspect_all(project, survey, name, measured)
    findings += [finding for case in inspected.values() for finding in case.findings]
    findings += _check_duplicates(survey, inspected)
    findings += _check_foreground(survey.description, inspected.values())
    verification = Verification(folder, tuple(survey.cases), _in_order(findings), name)
    if measured is None or not verification.ok:
        return verification, None
    return verification, keep_measured(project, survey, measured, made_from)


def summarise_case(
    case: Case, reader: Reader, description: DatasetDescription, draws: int | None = None
) -> tuple[InspectedCase, CaseMeasurement | None]:
    """Inspect a case and keep all but its arrays; what a worker sends back.

    Args:
        draws: measure the case too, where it has no errors, with so many draws; see `measure_arrays`.
    """
    found = inspect_case(case, reader, description)
    measurement = None
    if draws is not None and found.image and found.labels and not any(f.is_error for f in found.findings):
        measurement = measure_arrays(case.name, found.image, found.labels, draws)
    return replace(found, image=None, labels=None), measurement


def _inspect_all(
    project: Project, dataset: RawDataset, reader_name: str, measuring: Measuring | None
) -> dict[str, InspectedCase]:
    inspected: dict[str, InspectedCase] = {}

    def take(case: str, found: tuple[InspectedCase, CaseMeasurement | None]) -> None:
        inspected[case], measurement = found
        if measuring is not None and measurement is not None:
            measuring.add(case, measurement)

    draws = None if measuring is None else measuring.draws
    reader: Reader = project.kernel.registry.build("readers", reader_name)
    taken = partial(to_inspect, draws=draws)
    needs = needs_to_measure(project, reader_name, dataset.cases, draws, taken, "verifying it")
    work = partial(summarise_case, reader=reader, description=dataset.description, draws=draws)
    with project.stage(STAGE, dataset.name, len(dataset.cases)):
        wrong = each_case(project, STAGE, work, dataset.cases, take, tolerated=(Exception,), needs=needs)
    for name, error in wrong.items():
        inspected[name] = InspectedCase(None, None, (_not_checked(dataset.cases[name], error),))
    return {name: inspected[name] for name in dataset.cases}


def _reader_name(dataset: RawDataset, kernel: Kernel) -> str | None:
    """The data set's reader, chosen by its first case that can be read, or else by the file ending alone."""
    for name, case in dataset.cases.items():
        try:
            return choose_reader(replace(dataset, cases={name: case}), kernel)
        except DataError:
            continue
    image = next(iter(dataset.cases.values())).images[0]
    name_by_ending = kernel.choose("segplug_choose_writer", path=image)
    return name_by_ending if name_by_ending in _known_readers(kernel) else None


def _check_writer(dataset: RawDataset, reader: str, kernel: Kernel) -> list[Finding]:
    """Whether predictions can be written: training is refused without, so it is told before the work until there."""
    ending = dataset.description.file_ending
    if writer_name(kernel, reader, ending) is not None:
        return []
    return [
        Finding(
            "no writer", "", dataset.folder / "dataset.json", f"reader {reader!r}, and no writer of this name",
            f"one for files ending in {ending}: training's validation and prediction write label maps",
            f"Install a plugin with a writer {reader!r}, or one that answers segplug_choose_writer", "warning",
        )
    ]  # fmt: skip


def _known_readers(kernel: Kernel) -> set[str]:
    components = [provided.component for provided in kernel.registry.all("readers")]
    return {name for component in components for name in (component.name, *component.aliases)}


def _no_reader(case: Case) -> Finding:
    return Finding(
        "unreadable file", case.name, case.images[0], "a format that no installed reader reads",
        "a format of one of the readers (segplug plugins list --kind readers)", "Convert the files or install a reader",
    )  # fmt: skip


def _not_checked(case: Case, error: BaseException) -> Finding:
    return Finding(
        "not checked", case.name, case.images[0], f"{type(error).__name__}: {error}", "a check that ends",
        "Free memory or use fewer --workers if memory ran out; else check the files of this case",
    )  # fmt: skip


def _check_case_number(dataset: RawDataset, findings: Iterable[Finding]) -> list[Finding]:
    file, ending = dataset.folder / "dataset.json", dataset.description.file_ending
    without_images = ("unused file", "missing image")
    found = len({*dataset.cases, *(f.case for f in findings if f.case and f.kind not in without_images)})
    stated = dataset.description.num_training
    if found == stated and found:
        return []
    if not found:
        return [
            Finding(
                "no cases", "", dataset.folder, "no training case", f"cases in imagesTr and labelsTr ({stated} stated)",
                f"Name images CASE_0000{ending} and labels CASE{ending}",
            )
        ]  # fmt: skip
    return [
        Finding(
            "number of cases", "", file, f"numTraining {stated}", f"{found}, the training cases there are",
            "Correct numTraining, or add the missing cases",
        )
    ]  # fmt: skip


def _check_duplicates(dataset: RawDataset, inspected: dict[str, InspectedCase]) -> list[Finding]:
    """Cases with the same voxels: they leak from training into validation."""
    by_image: dict[str, list[str]] = defaultdict(list)
    for name, case in inspected.items():
        if case.image_digest:
            by_image[case.image_digest].append(name)
    findings = []
    for names in by_image.values():
        first = names[0]
        for name in names[1:]:
            same = inspected[name].label_digest == inspected[first].label_digest
            findings.append(
                Finding(
                    "duplicate case", name, dataset.cases[name].images[0],
                    f"the same {'image and label map' if same else 'image (with other labels)'} as case {first}",
                    "each image once: copies fall into training and validation alike and make scores too good",
                    "Take one of them out" if same else "Take one out, or keep them in one fold by splits_final.json",
                    "error" if same else "warning",
                )
            )  # fmt: skip
    return findings


def _check_foreground(description: DatasetDescription, inspected: Iterable[InspectedCase]) -> list[Finding]:
    """Labels of dataset.json that no case has."""
    counts: Counter[int] = Counter()
    for case in inspected:
        counts.update(case.label_counts)
    missing = [v for v in description.labels.foreground_labels if not counts[v]]
    if not counts or not missing:
        return []
    expected, remedy = "every label of dataset.json in some case", "Check the label maps against dataset.json"
    if len(missing) == len(description.labels.foreground_labels):
        return [Finding("no foreground", "", None, "no foreground voxel in any case", expected, remedy)]
    found = f"no voxel of {_named(description, missing)} in any case"
    return [Finding("label never used", "", None, found, expected, remedy, "warning")]


def _named(description: DatasetDescription, labels: Sequence[int]) -> str:
    return ", ".join(f"label {v}" if (n := description.labels.name_of(v)) == str(v) else f"{v} ({n})" for v in labels)


def _in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda f: f.case))  # stable: a case's findings stay in the order of its files
