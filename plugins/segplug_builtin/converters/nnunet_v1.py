"""nnU-Net v1: today's files, with the Decathlon's dataset.json."""

from __future__ import annotations

import re
from pathlib import Path

from segplug.errors import DataError
from segplug.model import Conversion, ConvertedFile
from segplug.protocols import recognised_by
from segplug.runtime.findings import Finding, raise_errors
from segplug.runtime.raw_dataset import scan_cases
from segplug_builtin.converters.old_description import ENDING, image_files, is_old, named_by_channel, read_old

NOT_KEPT = ("modality", "training", "test", "tensorImageSize", "numTest")
"""Entries of dataset.json that nnU-Net's converter drops."""

PARTS = ("Tr", "Ts", "Val")
"""nnU-Net's converter takes over images and labels of all three."""


def looks_like_v1(source: Path) -> str:
    """A folder of old layout with one file a channel."""
    return "its dataset.json (modality) and one file a channel" if is_old(source) and named_by_channel(source) else ""


@recognised_by(looks_like_v1)
def convert_nnunet_v1(source: Path) -> Conversion:
    """Take every file as it is, and bring dataset.json up to date.

    The result is that of nnU-Net's `nnUNetv2_convert_old_nnUNet_dataset`.

    Raises:
        DataError: dataset.json is not of version 1, or training cases lack files.
    """
    described = read_old(source)
    images, labels = image_files(source / "imagesTr"), {p.name: p for p in image_files(source / "labelsTr")}
    if images and not named_by_channel(source) and any(p.name in labels for p in images):
        raise DataError(
            f"{source}: found images named as their label maps, one file a case; expected CASE_0000{ENDING}, one file "
            "a channel. This is the Decathlon's layout: convert it with --from msd"
        )
    cases, findings = scan_cases(source / "imagesTr", ENDING, len(described.channels))
    for name, case in cases.items():
        label = source / "labelsTr" / f"{name}{ENDING}"
        if label.name not in labels:
            remedy = "In a copy of the source, add the label map, or take the images out"
            findings.append(Finding("missing label", name, label, "no such file", "a label map a case", remedy))
        if len(case.images) != len(described.channels):
            file = source / "imagesTr" / f"{name}_{len(case.images):04d}{ENDING}"
            found = f"{len(case.images)} of {len(described.channels)} channels"
            findings.append(Finding("missing channel", name, file, found, "a file a channel", "Restore the file"))
    if not images:
        expected = f"files named CASE_0000{ENDING}"
        findings.append(Finding("no cases", "", source / "imagesTr", "no image", expected, "Check the source"))
    raise_errors(findings, source.name)
    files = []
    for part in PARTS:
        for folder in (f"images{part}", f"labels{part}"):
            for path in image_files(source / folder):
                name = path.name.removesuffix(ENDING)
                of_case = re.sub(r"_\d{4}$", "", name) if folder.startswith("images") else name
                files.append(ConvertedFile(of_case, (path,), (f"{folder}/{path.name}",)))
    training = len(cases)
    notes = (*described.notes, *described.count_note(training))
    return Conversion(described.modern(training, NOT_KEPT), tuple(files), notes)
