"""BIDS: images of `sub-*`, with segmentations (`*_dseg`) under `derivatives`."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segplug.errors import DataError, UsageError
from segplug.model import Conversion
from segplug.protocols import recognised_by
from segplug.runtime.findings import Finding, raise_errors
from segplug.runtime.wording import counted, listed
from segplug_builtin.converters.file_patterns import files_below
from segplug_builtin.converters.label_maps import label_values
from segplug_builtin.converters.label_names import BACKGROUND, LabelNames, named_by_value, parse_labels
from segplug_builtin.converters.labelled_cases import LabelledCase, convert_cases

ENDINGS = (".nii.gz", ".nii")
SEGMENTATION = "dseg"
OF_DERIVATIVES = ("space", "res", "den", "desc", "atlas", "label", "seg")
"""Entities of derivatives only: they tell segmentations apart, not the images that they belong to."""
NATIVE = (None, "orig", "individual", "T1w", "scanner")
"""`space` of segmentations on the grid of the raw image."""
_NAME = re.compile(
    r"(?P<entities>(?:[a-zA-Z]+-[a-zA-Z0-9+]+_)+)(?P<suffix>[a-zA-Z0-9]+)(?P<ending>\.nii(?:\.gz)?|\.tsv)"
)


@dataclass(frozen=True)
class BidsFile:
    """A file named by BIDS' rules: `sub-01_ses-2_run-1_T1w.nii.gz`."""

    path: Path
    entities: Mapping[str, str]
    suffix: str
    derivative: str

    @property
    def case(self) -> str:
        """All entities that its raw image has too."""
        return "_".join(f"{key}-{value}" for key, value in self.entities.items() if key not in OF_DERIVATIVES)


def looks_like_bids(source: Path) -> str:
    """A folder with `sub-*` and `derivatives` in it."""
    subjects = source.is_dir() and any(p.is_dir() for p in source.glob("sub-*"))
    return "folders named sub-* beside derivatives" if subjects and (source / "derivatives").is_dir() else ""


@recognised_by(looks_like_bids)
def convert_bids(
    source: Path,
    *,
    channel: Sequence[str] = (),
    label: Sequence[str] = (),
    derivative: str = "",
    where: Sequence[str] = (),
    unlabelled: str = "skip",
) -> Conversion:
    """Each segmentation `*_dseg.nii.gz` of a derivative, with the images of its subject, session and further entities.

    Labels are named by `*_dseg.tsv` (columns index and name) beside the segmentation or in a folder above, by BIDS'
    inheritance, and numbered anew from 1 where they are not consecutive.

    Args:
        channel: suffixes of the images, `T1w` or `T1w=NAME` each, in the order of the channels. None: the only one.
        label: `NAME=NUMBER[,NUMBER]`, instead of dseg.tsv.
        derivative: folder below `derivatives`; needed where several have segmentations.
        where: `ENTITY-VALUE` or `ENTITY=VALUE` each, as `desc-manual`: which files to take where there are several.
            Segmentations of another value are never taken; one without the entity is, if it is the only one of its
            case.
        unlabelled: images without a segmentation are left out (`skip`), go into imagesTs (`test`) or are an `error`.

    Raises:
        UsageError: there is a choice of derivatives, suffixes or labels that the user has to make.
        DataError: images are missing or ambiguous, or label tables contradict each other; all is listed.
    """
    wanted = _wanted(where)
    found = [f for text in files_below(source) if (f := parse_bids(source, text)) is not None]
    segmentations = _of_one_derivative([f for f in found if f.suffix == SEGMENTATION], derivative, source)
    notes: list[str] = []
    segmentations = _one_a_case(segmentations, wanted, source, notes)
    images = [f for f in found if f.suffix != SEGMENTATION and f.path.name.endswith(ENDINGS)]
    channels = _channels(images, channel, source)
    labels = parse_labels(label, numbers=True)
    if not labels.values:
        labels = _tabled_labels(source, segmentations, notes)
    cases, findings, used = [], [], set()
    for segmentation in segmentations:
        files = {}
        for suffix in channels:
            near = _belonging(segmentation, [f for f in images if f.suffix == suffix], wanted)
            if len(near) > 1:
                findings.append(_ambiguous(segmentation, suffix, near))
            if near:
                files[suffix] = near[0].path
                used.add(near[0].path)
        cases.append(LabelledCase(segmentation.case, files, {"": segmentation.path}))
    raise_errors(findings, source.name)
    cases += _without_segmentation(images, channels, used, {case.name for case in cases})
    return convert_cases(source, cases, channels, labels, unlabelled=unlabelled, notes=notes)


def parse_bids(source: Path, relative: str) -> BidsFile | None:
    """A file by its name, None if it is not named by BIDS' rules or is no image."""
    match = _NAME.fullmatch(relative.rpartition("/")[2])
    if match is None or not match["ending"].startswith(".nii"):
        return None
    entities = dict(part.split("-", 1) for part in match["entities"].strip("_").split("_"))
    parts = relative.split("/")
    if "sub" not in entities or parts[0] not in ("derivatives", f"sub-{entities['sub']}"):
        return None
    derivative = "/".join(parts[1:]).partition("/sub-")[0] if parts[0] == "derivatives" else ""
    if derivative.startswith("sub-"):  # segmentations right below derivatives
        derivative = "."
    return BidsFile(source / relative, entities, match["suffix"], derivative)


def _wanted(where: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in where:
        key, _, value = text.replace("=", "-", 1).partition("-")
        if not key or not value:
            raise UsageError(f"--where {text}: expected ENTITY-VALUE, as desc-manual or run-1")
        found[key] = value
    return found


def _of_one_derivative(found: Sequence[BidsFile], derivative: str, source: Path) -> list[BidsFile]:
    there = sorted({f.derivative for f in found if f.derivative})
    if not there:
        raise DataError(
            f"{source}: found no segmentation; expected derivatives/*/sub-*/**/*_dseg.nii.gz. Check the source, or "
            "convert it by patterns with --from folder"
        )
    if derivative and derivative not in there:
        raise UsageError(f"--derivative {derivative}: no segmentations there. There are: {', '.join(there)}")
    if not derivative and len(there) > 1:
        raise UsageError(
            f"{source}: several derivatives have segmentations: {', '.join(there)}. Choose one with --derivative"
        )
    return [f for f in found if f.derivative == (derivative or there[0])]


def _narrowed(found: Sequence[BidsFile], wanted: Mapping[str, str]) -> list[BidsFile]:
    """Files with the entities wanted; an entity that none of them has tells nothing."""
    rest = list(found)
    for key, value in wanted.items():
        if any(key in f.entities for f in rest):
            rest = [f for f in rest if f.entities.get(key) == value]
    return rest


def _one_a_case(found: Sequence[BidsFile], wanted: Mapping[str, str], source: Path, notes: list[str]) -> list[BidsFile]:
    every: dict[str, list[BidsFile]] = {}
    for f in found:
        every.setdefault(f.case, []).append(f)
    not_others = {
        case: [f for f in of if all(f.entities.get(key, value) == value for key, value in wanted.items())]
        for case, of in every.items()
    }
    cases = {case: _narrowed(of, wanted) for case, of in not_others.items() if of}
    if cases and len(cases) < len(every):
        left_out = sorted(set(every) - set(cases))
        notes.append(f"{counted(len(left_out), 'case')} with other segmentations alone left out: {listed(left_out)}")
    if not cases:
        raise UsageError(f"--where {wanted}: none of the {len(found)} segmentations in {source} is such a file")
    findings = [
        Finding(
            "several segmentations", case, of[0].path, ", ".join(f.path.name for f in of), "one segmentation a case",
            f"Choose by an entity, as --where {_telling(of)}",
        )
        for case, of in cases.items() if len(of) > 1
    ]  # fmt: skip
    raise_errors(findings, source.name)
    return [of[0] for _, of in sorted(cases.items())]


def _telling(found: Sequence[BidsFile]) -> str:
    """An entity by which files differ, as an example."""
    for key, value in found[0].entities.items():
        if any(f.entities.get(key) != value for f in found):
            return f"{key}-{value}"
    return next((f"{k}-{v}" for f in found for k, v in f.entities.items() if k not in found[0].entities), "desc-manual")


def _channels(images: Sequence[BidsFile], given: Sequence[str], source: Path) -> dict[str, str]:
    raw = [f for f in images if not f.derivative]
    there = sorted({f.suffix for f in raw if "anat" in f.path.parts} or {f.suffix for f in raw})
    if not given:
        if len(there) != 1:
            raise UsageError(
                f"{source}: images of several kinds: {', '.join(there) or 'none'}. Choose the channels, in order, with "
                "--channel, as --channel T1w --channel FLAIR"
            )
        return {there[0]: there[0]}
    channels: dict[str, str] = {}
    for text in given:
        suffix, _, name = text.partition("=")
        channels[suffix] = name or suffix
    unknown = sorted(set(channels) - {f.suffix for f in images})
    if unknown:
        raise UsageError(f"--channel {', '.join(unknown)}: no such images. There are: {', '.join(there)}")
    return channels


def _belonging(segmentation: BidsFile, images: Iterable[BidsFile], wanted: Mapping[str, str]) -> list[BidsFile]:
    """The images of a segmentation: none of their entities contradict each other."""
    own = {k: v for k, v in segmentation.entities.items() if k not in OF_DERIVATIVES}
    near = [
        f for f in images
        if f.entities.get("sub") == own["sub"] and f.entities.get("ses") == own.get("ses")
        and all(f.entities.get(k, v) == v for k, v in own.items())
    ]  # fmt: skip
    space = segmentation.entities.get("space")
    placed = [f for f in near if f.derivative and f.entities.get("space") == space]
    near = [f for f in near if not f.derivative] if space in NATIVE else placed
    exact = [f for f in near if {k: v for k, v in f.entities.items() if k not in OF_DERIVATIVES} == own]
    near = exact or near
    return _narrowed(near, wanted) if len(near) > 1 else near


def _ambiguous(segmentation: BidsFile, suffix: str, near: Sequence[BidsFile]) -> Finding:
    return Finding(
        "several images", segmentation.case, segmentation.path,
        f"{len(near)} {suffix} images: {', '.join(f.path.name for f in near)}", "one that it belongs to",
        f"Choose by an entity, as --where {_telling(near)}",
    )  # fmt: skip


def _without_segmentation(
    images: Iterable[BidsFile], channels: Mapping[str, str], used: set[Path], named: set[str]
) -> list[LabelledCase]:
    """Images of which there is no segmentation, as cases; those without every channel are of no use."""
    cases: dict[str, dict[str, Path]] = {}
    for f in images:
        if not f.derivative and f.suffix in channels and f.path not in used and f.case not in named:
            cases.setdefault(f.case, {})[f.suffix] = f.path
    return [LabelledCase(name, files) for name, files in sorted(cases.items()) if len(files) == len(channels)]


def _tabled_labels(source: Path, segmentations: Sequence[BidsFile], notes: list[str]) -> LabelNames:
    tables = {table for f in segmentations for table in _tables(source, f)}
    names: dict[int, str] = {}
    for table in sorted(tables):
        for number, name in _read_table(table).items():
            if names.setdefault(number, name) != name:
                raise DataError(
                    f"{table}: found the name {name!r} for label {number}; expected {names[number]!r}, as another "
                    "table has it. Name the labels with --label NAME=NUMBER"
                )
    if not names:
        values = sorted({value for f in segmentations for value in label_values(f.path)} - {0})
        notes.append(f"no dseg.tsv; labels found: {', '.join(map(str, values))} (name them with --label NAME=NUMBER)")
        return named_by_value([str(value) for value in values])
    by_name: dict[str, tuple[str, ...]] = {}
    for number, name in sorted(names.items()):
        if number:  # 0 is the background, whatever a table calls it
            by_name[name] = (*by_name.get(name, ()), str(number))
    labels = LabelNames(by_name)
    if not labels.as_they_are:
        changed = [f"{name} {', '.join(values)} -> {labels.numbers[name]}" for name, values in by_name.items()]
        notes.append(f"{counted(len(by_name), 'label')} numbered anew: {listed(changed)}")
    return labels


def _tables(source: Path, segmentation: BidsFile) -> list[Path]:
    """The table nearest to a segmentation: in its folder or one above, with no entity that it does not have."""
    folder = segmentation.path.parent
    while folder.is_relative_to(source):
        fitting = []
        for table in sorted(folder.glob("*dseg.tsv")):
            match = _NAME.fullmatch(table.name)
            entities = dict(p.split("-", 1) for p in match["entities"].strip("_").split("_")) if match else {}
            if all(segmentation.entities.get(k) == v for k, v in entities.items()):
                fitting.append((len(entities), table))
        if fitting:
            return [max(fitting)[1]]
        folder = folder.parent
    return []


def _read_table(table: Path) -> dict[int, str]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        names = {int(row["index"]): row["name"].strip() for row in rows}
    except (OSError, KeyError, TypeError, ValueError, AttributeError, csv.Error) as error:
        raise DataError(
            f"{table}: cannot be read ({type(error).__name__}: {error}); expected columns index and name with tabs "
            "between, a whole number in each row. Correct it, or name the labels with --label NAME=NUMBER"
        ) from None
    wrong = [number for number, name in names.items() if not name or (number and name == BACKGROUND) or number < 0]
    if wrong or len(names) < len(rows):
        what = f"no proper name for label {wrong[0]}" if wrong else "an index twice"
        raise DataError(f"{table}: found {what}; expected one name a number. Use --label NAME=NUMBER instead")
    return names
