"""Any folder of images and masks, found by patterns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from segplug.errors import DataError, UsageError
from segplug.model import Conversion
from segplug.protocols import recognised_by
from segplug.runtime.findings import Finding, raise_errors
from segplug.runtime.raw_dataset import IMAGE_ENDINGS
from segplug_builtin.converters.file_patterns import Found, find
from segplug_builtin.converters.label_maps import label_values, read_any
from segplug_builtin.converters.label_names import LabelNames, named_by_value, parse_labels
from segplug_builtin.converters.labelled_cases import LabelledCase, convert_cases, ending_of

MASK_FOLDERS = ("masks", "labels", "segmentations")
COLOURS = ("R", "G", "B")
"""Names of the channels of a picture that nobody named."""
ONLY_CHANNEL = "image"
"""Name of the channel that nobody named; it is normalised by itself (z-score)."""


def plain_folders(source: Path) -> str:
    """A folder `images` beside a folder of masks, with files of the same names."""
    patterns = _plain_patterns(source)
    return f"files of the same names in {' and '.join(p.partition('/')[0] for p in patterns)}" if patterns else ""


@recognised_by(plain_folders)
def convert_folder(
    source: Path,
    *,
    images: str = "",
    masks: str = "",
    channel: Sequence[str] = (),
    label: Sequence[str] = (),
    overlap: bool = False,
    unlabelled: str = "error",
) -> Conversion:
    """Images and masks whose paths follow patterns; see `segplug_builtin.converters.file_patterns.find`.

    Images are taken as they are. So are label maps whose numbers need no change; others, and masks of one structure
    each (`{label}` in their pattern), are written anew with the labels 0, 1, 2, ... in the geometry of the mask.

    Args:
        images, masks: patterns; may both be left out where `images` and `masks` hold files of the same names.
        channel: `VALUE` or `VALUE=NAME` for each value of `{channel}`, in the order of the channels; without
            `{channel}` the names of those in the one file of a case. None: all that there are, sorted.
        label: `NAME=NUMBER[,NUMBER]` for label maps, `NAME=WORD[,WORD]` or `NAME` for masks found by `{label}`;
            numbered in this order. `ignore` marks what nobody annotated, `background` takes what is to be dropped.
            None: all that there are.
        overlap: where masks of several structures overlap, the later label wins; else that is an error.
        unlabelled: images without a mask are an `error`, are left out (`skip`) or go into imagesTs (`test`).

    Raises:
        UsageError: the patterns or names make no sense.
        DataError: files are missing or found twice, or are of several formats; all is listed.
    """
    plain = _plain_patterns(source)
    notes: list[str] = []
    if not images or not masks:
        if plain is None:
            raise UsageError(
                "a folder needs patterns: --images and --masks, as --images 'scans/{case}_{channel}.nii.gz' --masks "
                "'segs/{case}.nii.gz'"
            )
        images, masks = images or plain[0], masks or plain[1]
        notes.append(f"images are {images}, masks {masks}")
    channels = _given_channels(channel)
    found_images = _images_only(find(source, images, {"channel": channels}, "--images"))
    labels = parse_labels(label, numbers="{label}" not in masks and "(?P<label>" not in masks)
    found_masks = _images_only(find(source, masks, {"label": labels.by_value}, "--masks"))
    taken = {found.path for found in found_masks}  # a wide pattern for images finds the masks beside them too
    found_images = [found for found in found_images if found.path not in taken]
    found_masks = _of_labels(found_masks, labels, masks)
    _check_found(source, images, found_images, "--images")
    _check_found(source, masks, found_masks, "--masks")
    in_one_file: tuple[str, ...] = ()
    if not any("channel" in f.values for f in found_images):
        in_one_file = _in_one_file(tuple(channels.values()), found_images[0].path, notes)
        channels = {"": ""}
    elif not channels:
        channels = {c: c for c in sorted({f.values.get("channel", "") for f in found_images})}
        notes.append(f"channels: {', '.join(channels)} (set their order and names with --channel)")
    labels = _complete(labels, found_masks, notes)
    cases, findings = _cases(found_images, found_masks, next(iter(channels)))
    raise_errors(findings, source.name)
    return convert_cases(
        source,
        cases,
        channels,
        labels,
        in_one_file=in_one_file,
        overlap=overlap,
        unlabelled=unlabelled,
        notes=notes,
    )


def _plain_patterns(source: Path) -> tuple[str, str] | None:
    folder = source / "images"
    if not folder.is_dir():
        return None
    names = [p.name for p in sorted(folder.iterdir()) if p.name.lower().endswith(IMAGE_ENDINGS) and p.name[0] != "."]
    for other in MASK_FOLDERS:
        masks = source / other
        if names and masks.is_dir() and all((masks / name).exists() for name in names):
            ending = names[0][-len(ending_of(Path(names[0]))) :]  # in capitals, if it is
            return f"images/{{case}}{ending}", f"{other}/{{case}}{ending}"
    return None


def _given_channels(given: Sequence[str]) -> dict[str, str]:
    channels: dict[str, str] = {}
    for text in given:
        value, _, name = text.partition("=")
        if not value or value in channels:
            raise UsageError(f"--channel {text}: expected VALUE or VALUE=NAME, each value once")
        channels[value] = name or value
    return channels


def _in_one_file(given: tuple[str, ...], first: Path, notes: list[str]) -> tuple[str, ...]:
    """Names of the channels of cases of one file each, which holds as many as the first case's."""
    count = len(read_any([first]).array)
    if given and len(given) != count:
        raise UsageError(
            f"--channel {', '.join(given)}: {len(given)}, but {first} holds {count}, and --images has no {{channel}} "
            "to tell files apart"
        )
    if given:
        return given
    if count == len(COLOURS):
        notes.append(f"channels: {', '.join(COLOURS)}, of one file (name them with --channel)")
        return COLOURS
    notes.append(f"the channel is called {ONLY_CHANNEL!r}; CT needs its name for its normalisation: --channel CT")
    return (ONLY_CHANNEL,) if count == 1 else tuple(f"{ONLY_CHANNEL}_{number}" for number in range(count))


def _images_only(found: Iterable[Found]) -> list[Found]:
    return [f for f in found if f.path.name.lower().endswith(IMAGE_ENDINGS)]


def _check_found(source: Path, pattern: str, found: Sequence[Found], option: str) -> None:
    if not found:
        raise DataError(
            f"{source}: found no image by {option} {pattern}; expected files whose path below this folder is like it. "
            "Correct the pattern: * stands for anything within a name, **/ for folders"
        )


def _of_labels(masks: Sequence[Found], labels: LabelNames, pattern: str) -> list[Found]:
    """Masks of the structures that were named: of a regular expression's finds, as `{label}` finds no others."""
    if not any("label" in found.values for found in masks):
        return list(masks)
    without = [found.path for found in masks if "label" not in found.values]
    if without:
        raise DataError(
            f"{without[0]}: found by --masks {pattern} without a label, as {len(without)} of {len(masks)} masks; "
            "expected masks of one structure each, or label maps. Let its group `label` match something in every name"
        )
    wanted = [found for found in masks if not labels.values or found.values["label"] in labels.by_value]
    if not wanted:
        there = sorted({found.values["label"] for found in masks})
        raise UsageError(
            f"--label {', '.join(labels.by_value)}: --masks {pattern} found masks of {', '.join(there)} alone; "
            "expected names of these. Correct --label, as NAME=WORD where the name is another"
        )
    return wanted


def _complete(labels: LabelNames, masks: Sequence[Found], notes: list[str]) -> LabelNames:
    """Labels as given, or all that the masks have."""
    if labels.values:
        return labels
    words = sorted({f.values["label"] for f in masks if "label" in f.values})
    if words:
        notes.append(f"labels: {', '.join(words)} (set their order and names with --label)")
        return LabelNames({word: (word,) for word in words})
    values = sorted({value for f in masks for value in label_values(f.path)} - {0})
    if not values:
        raise DataError(f"{masks[0].path.parent}: found only 0 in {len(masks)} masks; expected at least one label")
    notes.append(f"labels found in the masks: {', '.join(map(str, values))} (name them with --label NAME=NUMBER)")
    return named_by_value([str(value) for value in values])


def _cases(
    images: Sequence[Found], masks: Sequence[Found], only_channel: str
) -> tuple[list[LabelledCase], list[Finding]]:
    by_case: dict[str, tuple[dict[str, Path], dict[str, Path]]] = {}
    findings = []
    for is_mask, found in [(False, f) for f in images] + [(True, f) for f in masks]:
        files = by_case.setdefault(found.case, ({}, {}))[is_mask]
        key = found.values.get("label", "") if is_mask else found.values.get("channel", only_channel)
        if key in files:
            what = ("mask" if is_mask else "image") + (f" of {key!r}" if key else "")
            remedy = "Choose a pattern that finds one of them, or that has more of the path in {case}"
            expected = f"one; {files[key]} is another"
            findings.append(Finding("found twice", found.case, found.path, f"a second {what}", expected, remedy))
        files[key] = found.path
    for name, (own, own_masks) in by_case.items():
        if not own:
            file = next(iter(own_masks.values()))
            remedy = "Add the image, or correct --images and --masks so that {case} is the same in both"
            findings.append(Finding("missing image", name, file, "a mask without an image", "an image", remedy))
    return [LabelledCase(name, own, own_masks) for name, (own, own_masks) in sorted(by_case.items())], findings
