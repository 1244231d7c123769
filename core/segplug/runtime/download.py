"""Fetch a file from the web, with a limit."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import segplug
from segplug.errors import DataError, UsageError
from segplug.runtime.files import file_hash, replacing

SCHEMES = ("http", "https")
_SECONDS = 60
_BYTES_AT_ONCE = 1 << 20


def is_url(source: str) -> bool:
    """Whether a text is the address of a file in the web rather than a path."""
    return urlsplit(source).scheme.lower() in SCHEMES


def download(
    url: str,
    target: Path,
    *,
    most_bytes: int,
    sha256: str | None = None,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write what is at an address to a file, whole or not at all.

    Args:
        most_bytes: more than this is refused.
        sha256: what its hash has to be, as hex; None for any.
        told: gets megabytes done and in all (0 if the server does not say).

    Raises:
        UsageError: not an http(s) address.
        DataError: the server does not give it, it is too large, ends too soon, or has another hash.
    """
    if not is_url(url):
        raise UsageError(f"{url}: expected an address with http:// or https://")
    request = urllib.request.Request(url, headers={"User-Agent": f"segplug/{segplug.__version__}"})
    try:
        # the scheme was looked at; the opener follows redirects to the web alone
        with _opener().open(request, timeout=_SECONDS) as answer, replacing(target) as partial:
            stated = answer.headers.get("Content-Length") or ""
            expected = int(stated) if stated.isascii() and stated.isdigit() else 0
            if expected > most_bytes:
                raise _too_large(url, expected, most_bytes)
            done = 0
            with partial.open("wb") as file:
                while block := answer.read(_BYTES_AT_ONCE):
                    done += len(block)
                    if done > most_bytes:
                        raise _too_large(url, done, most_bytes)
                    file.write(block)
                    told(done >> 20, expected >> 20)
            if done < expected:
                raise DataError(f"{url}: ended after {done} of {expected} bytes. Call again")
            found = file_hash(partial)
            if sha256 is not None and found != sha256.lower():
                raise DataError(f"{url}: SHA-256 {found}; expected {sha256.lower()}. Do not use this file")
    except urllib.error.URLError as error:
        why = f"the server answers {error.code}" if isinstance(error, urllib.error.HTTPError) else error.reason
        raise DataError(f"{url}: cannot be downloaded: {why}") from None
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise DataError(f"{url}: cannot be downloaded: {error or type(error).__name__}. Call again") from None


def _too_large(url: str, found: int, most: int) -> DataError:
    return DataError(
        f"{url}: {found / 1e9:.1f} GB or more; expected at most {most / 1e9:.1f}. If you trust it, allow more with "
        "--max-size"
    )


def _opener() -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
