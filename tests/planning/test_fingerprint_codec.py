"""dataset_fingerprint.json and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segplug.errors import DataError
from segplug.runtime.fingerprint_codec import (
    decode_fingerprint,
    encode_fingerprint,
    read_fingerprint,
    write_fingerprint,
)

SOURCE = Path("dataset_fingerprint.json")
STATISTICS = {
    "max": 4,
    "mean": 2.5,
    "median": 2.0,
    "min": 0.0,
    "percentile_00_5": 0.1,
    "percentile_99_5": 3.9,
    "std": 1.0,
}
RAW = {
    "spacings": [[999.0, 1, 1.0]],
    "shapes_after_crop": [[1, 20, 30]],
    "foreground_intensity_properties_per_channel": {"0": STATISTICS, "1": {**STATISTICS, "mean": 9.0}},
    "median_relative_size_after_cropping": 1.0,
    "someone's": {"note": [1, None]},
}


def test_reference_files_come_back_byte_for_byte(shared: Path, real_dataset: str, tmp_path: Path) -> None:
    original = shared / "reference" / real_dataset / "dataset_fingerprint.json"
    copy = tmp_path / "dataset_fingerprint.json"
    write_fingerprint(copy, read_fingerprint(original))
    assert copy.read_bytes() == original.read_bytes()


def test_unknown_keys_and_number_types_survive() -> None:
    again = encode_fingerprint(decode_fingerprint(RAW, SOURCE))
    assert json.dumps(again, sort_keys=True) == json.dumps(RAW, sort_keys=True)


def test_channels_are_in_the_order_of_their_numbers() -> None:
    table = {str(n): {**STATISTICS, "mean": float(n)} for n in reversed(range(12))}
    decoded = decode_fingerprint({**RAW, "foreground_intensity_properties_per_channel": table}, SOURCE)
    assert [c.mean for c in decoded.channels] == list(range(12))


def test_early_versions_name_of_the_intensities_is_understood() -> None:
    early = dict(RAW)
    early["foreground_intensity_properties_by_modality"] = early.pop("foreground_intensity_properties_per_channel")
    assert decode_fingerprint(early, SOURCE).channels == decode_fingerprint(RAW, SOURCE).channels


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"spacings": None}, "not a data set fingerprint"),
        ({"spacings": [[1.0, 1.0, 1.0]] * 2}, "2 spacings for 1 shapes"),
        ({"foreground_intensity_properties_per_channel": {"0": {"mean": 1.0}}}, "percentile_00_5"),
        ({"foreground_intensity_properties_per_channel": {"1": STATISTICS}}, "found for channel 0: None"),
    ],
)
def test_damage_is_told_with_file_and_remedy(change: dict[str, object], told: str) -> None:
    with pytest.raises(DataError, match=told) as caught:
        decode_fingerprint({**RAW, **change}, SOURCE)
    assert str(SOURCE) in str(caught.value)
    assert "segplug fingerprint" in str(caught.value)
