"""Which structure gets which number: labels as users name them, brought to nnU-Net's 0, 1, 2, ..."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segplug.errors import UsageError

BACKGROUND, IGNORE = "background", "ignore"


@dataclass(frozen=True)
class LabelNames:
    """Structures in the order of their numbers.

    Args:
        values: name -> what stands for it in the source: numbers of a label map, or words in file names. Holds
            `background` only if values other than 0 belong to it.
    """

    values: Mapping[str, tuple[str, ...]]

    @property
    def numbers(self) -> dict[str, int]:
        """`labels` of dataset.json: background 0, then from 1 in order; ignore last, as nnU-Net demands."""
        names = [name for name in self.values if name not in (BACKGROUND, IGNORE)]
        names += [IGNORE] if IGNORE in self.values else []
        return {BACKGROUND: 0, **{name: number for number, name in enumerate(names, start=1)}}

    @property
    def by_value(self) -> dict[str, int]:
        """Word in file names -> new number."""
        return {value: self.numbers[name] for name, values in self.values.items() for value in values}

    @property
    def mapping(self) -> dict[int, int]:
        """Number in the source's label maps -> new number; 0 stays 0 unless it was given to something else."""
        return {0: 0, **{int(value): number for value, number in self.by_value.items()}}

    @property
    def as_they_are(self) -> bool:
        """True if label maps need no change."""
        return all(old == new for old, new in self.mapping.items())


def parse_labels(given: Sequence[str], *, numbers: bool) -> LabelNames:
    """Labels from `NAME=VALUE` or `NAME=VALUE,VALUE` each; `NAME` alone stands for itself, where values are words.

    Args:
        numbers: values are numbers in label maps, not words in file names.

    Raises:
        UsageError: one is of another form, or a name or value occurs twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in given:
        name, equals, rest = text.partition("=")
        name = name.strip()
        values = tuple(v.strip() for v in rest.split(",")) if equals else (name,)
        if not name or not all(values) or (numbers and not all(v.isdecimal() for v in values)):
            form = "NAME=NUMBER, as liver=1, or NAME=NUMBER,NUMBER" if numbers else "NAME=WORD, as liver=Liver_mask"
            raise UsageError(f"--label {text}: expected {form}")
        if name in found:
            raise UsageError(f"--label {text}: {name!r} stands there twice; list its values behind one name")
        found[name] = tuple(str(int(v)) for v in values) if numbers else values
    taken: dict[str, str] = {}
    for name, values in found.items():
        for value in values:
            if taken.setdefault(value, name) != name:
                raise UsageError(f"--label {name}={value}: {value} belongs to {taken[value]!r} already")
    return LabelNames(found)


def named_by_value(values: Sequence[str]) -> LabelNames:
    """Labels that nobody named: `label_3` for the number 3."""
    return LabelNames({f"label_{value}": (str(value),) for value in values})
