"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# a busy machine is no reason to fail; in CI hypothesis' own profile draws the same examples every time
settings.register_profile("segplug", settings(), deadline=None)
settings.load_profile("segplug")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real data sets and reference results; skips where it is absent."""
    folder = (ROOT / os.environ.get("SEGPLUG_SHARED", "../shared")).resolve()
    if not (folder / "datasets").is_dir():
        pytest.skip(f"shared data is not at {folder} (set SEGPLUG_SHARED)")
    return folder


@pytest.fixture(scope="session")
def peer() -> Path:
    """Python of an environment with nnunetv2, to be run as a program of its own; skips where there is none."""
    python = os.environ.get("SEGPLUG_PEER")
    if not python:
        pytest.skip("nnunetv2 is not at hand (run by nox -s parity, or set SEGPLUG_PEER to its Python)")
    return Path(python)
