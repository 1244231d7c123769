"""Files that a pattern describes, with what its placeholders stand for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from segplug.errors import DataError, UsageError

REGEX = "re:"
"""Begins a pattern that is a regular expression with named groups."""

PLACEHOLDERS = ("case", "channel", "label")
_TOKEN = re.compile(r"\{(\w*)\}|\*\*/|\*\*|\*|\?|.", re.DOTALL)
_WILD = {"**/": r"(?:.*/)?", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}


@dataclass(frozen=True)
class Found:
    """A file, and what the placeholders stand for in its path."""

    path: Path
    values: Mapping[str, str]

    @property
    def case(self) -> str:
        """Fit for a file name: folders that belong to it are joined by underscores."""
        return self.values["case"].strip("/").replace("/", "_")


def files_below(source: Path) -> list[str]:
    """Every file below a folder, relative to it, sorted; hidden ones left out."""
    found = []
    for folder, folders, names in os.walk(source, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        inside = Path(folder).relative_to(source)
        found += [(inside / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


def find(source: Path, pattern: str, known: Mapping[str, Iterable[str]], option: str) -> list[Found]:
    """Files whose path relative to `source` is as `pattern` says.

    Args:
        pattern: a path with `{case}`, `{channel}` and `{label}` in it; `*` and `?` stand for anything within a name,
            `**` for any folders. Or `re:` and a regular expression with such named groups.
        known: what a placeholder may stand for, where that is known.
        option: by which the user gave the pattern.

    Raises:
        UsageError: the pattern makes no sense, or has no `{case}`.
        DataError: it finds files in whose paths nothing stands for the case.
    """
    compiled = compile_pattern(pattern, known, option)
    matches = ((path, compiled.fullmatch(path)) for path in files_below(source))
    found = [Found(source / path, {k: v for k, v in m.groupdict().items() if v}) for path, m in matches if m]
    nameless = [file.path for file in found if "case" not in file.values]
    if nameless:
        raise DataError(
            f"{nameless[0]}: found by {option} {pattern} without a case, as {len(nameless)} of {len(found)} files; "
            "expected a name for each. Let its group `case` match something in every path"
        )
    return found


def compile_pattern(pattern: str, known: Mapping[str, Iterable[str]], option: str) -> re.Pattern[str]:
    """The pattern as a regular expression; see `find`."""
    if pattern.startswith(REGEX):
        try:
            compiled = re.compile(pattern[len(REGEX) :])
        except re.error as error:
            raise UsageError(f"{option} {pattern}: no regular expression: {error}") from None
    else:
        compiled = re.compile(_as_regex(pattern, known, option), re.DOTALL)
    unknown = sorted(set(compiled.groupindex) - set(PLACEHOLDERS))
    if "case" not in compiled.groupindex or unknown:
        found = f"the placeholder {unknown[0]!r}" if unknown else "no {case}"
        raise UsageError(
            f"{option} {pattern}: found {found}; expected {{case}}, as in 'images/{{case}}.nii.gz', and where there "
            "are several files a case {channel} or {label}"
        )
    return compiled


def _as_regex(pattern: str, known: Mapping[str, Iterable[str]], option: str) -> str:
    parts, seen = [], set()
    for match in _TOKEN.finditer(pattern.removeprefix("./")):
        name = match[1]
        if name is None:
            parts.append(_WILD.get(match[0], re.escape(match[0])))
        elif name in seen:
            parts.append(f"(?P={name})")
        elif not name.isidentifier():
            raise UsageError(f"{option} {pattern}: found {match[0]}; expected one of {{case}}, {{channel}}, {{label}}")
        else:
            seen.add(name)
            values = sorted(known.get(name, ()), key=len, reverse=True)
            inner = "|".join(map(re.escape, values)) if values else r"[^/]+" if name == "case" else r"[^/]+?"
            parts.append(f"(?P<{name}>{inner})")
    return "".join(parts)
