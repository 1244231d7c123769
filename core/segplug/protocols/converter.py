"""Converters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from segplug.model import Conversion


class Converter(Protocol):
    """A function that finds out how to make an nnU-Net raw data set from something else.

    It writes nothing: it looks at the source, and says which files the data set is to have and how each is made. The
    framework then makes them, several at a time, beside the place where the data set is to be, and renames the whole
    once it is complete; a file that stays as it is, is copied or linked as the user wishes.

    It returns a `segplug.model.Conversion`. A function marked with `recognised_by` is asked where the user did not name
    a converter.

    Options are further keywords, all of them with defaults. `segplug dataset convert` gives those that the user named:

    | option | keyword | type |
    |---|---|---|
    | `--images`, `--masks`, `--derivative`, `--unlabelled` | of the same name | text |
    | `--channel`, `--label`, `--where` | of the same name | list of texts, as often as it was named |
    | `--overlap` | `overlap` | true |
    | `--set KEY=VALUE` | `KEY` | JSON value; else text |

    Where the function's annotations say that an option is a number, a text, true or false, other values are refused
    before it is called; an option that it has no keyword for is, too.

    Args:
        source: the folder (or file) to convert.

    Raises:
        DataError: the source is not what it has to be; all that is wrong is listed.
        UsageError: the options do not fit the source.
    """

    def __call__(self, source: Path) -> Conversion: ...


F = TypeVar("F", bound=Callable[..., Conversion])
_RECOGNISE = "segplug_recognise"


def recognised_by(recognise: Callable[[Path], str]) -> Callable[[F], F]:
    """Mark a converter with the function that tells whether a source is one of its.

    Args:
        recognise: from a source to what it is recognised by ("TaskXXX folder with ..."), empty if it is something else.
            It looks at names and small files only, and raises nothing.
    """

    def mark(converter: F) -> F:
        setattr(converter, _RECOGNISE, recognise)
        return converter

    return mark


def recognises(converter: object, source: Path) -> str:
    """What a converter recognises a source by; empty if it does not, or cannot tell."""
    recognise = getattr(converter, _RECOGNISE, None)
    return recognise(source) if callable(recognise) else ""
