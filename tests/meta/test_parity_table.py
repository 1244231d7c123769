"""The table of parity: rows merge, too large a difference fails, the page is written when everything passed."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).parents[1] / "conftest.py"
PEER = "#!/bin/sh\necho 2.8.1 2.13.0\n"
GOOD = """
def test_first(parity):
    parity("images", 2, 1e-7, 1e-5, section="Preprocessing")
    parity("plans", "2 planners", 0, 0, section="Planning")
def test_second(parity):
    parity("images", 3, 2e-6, 1e-5, section="Preprocessing")
    parity("images", 1, 0, 1e-5, section="Preprocessing")
"""


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder of tests beside the project's conftest, with a peer that says its versions."""
    pytester.makeconftest(CONFTEST.read_text())
    peer = pytester.path / "peer"
    peer.write_text(PEER)
    peer.chmod(0o755)
    monkeypatch.setenv("SEGPLUG_PEER", str(peer))
    monkeypatch.setenv("SEGPLUG_PARITY_TABLE", str(pytester.path / "page.md"))
    return pytester


def test_rows_of_one_comparison_are_one_row(session: pytest.Pytester) -> None:
    session.makepyfile(GOOD)
    shown = session.runpytest_inprocess().stdout
    shown.fnmatch_lines(["Planning", "*plans*2 planners*0*0", "Preprocessing", "*images*6*2e-06*1e-05"])
    page = (session.path / "page.md").read_text()
    assert page.index("| plans | 2 planners | 0 | 0 |") < page.index("| images | 6 | 2e-06 | 1e-05 |")
    assert "nnunetv2 2.8.1 (PyTorch 2.13.0)" in page


@pytest.mark.parametrize("difference", ["2e-5", "float('nan')"])
def test_too_large_a_difference_fails_and_leaves_the_page(session: pytest.Pytester, difference: str) -> None:
    bad = f"def test_bad(parity):\n    parity('images', 1, {difference}, 1e-5, section='Preprocessing')\n"
    session.makepyfile(test_bad=bad, test_good=GOOD)
    done = session.runpytest_inprocess()
    done.assert_outcomes(passed=2, failed=1)
    done.stdout.fnmatch_lines(["*differs from nnunetv2*", "*images*7*(too large)*1e-05", "*is left as it was*"])
    assert not (session.path / "page.md").exists()


def test_unknown_sections_and_two_tolerances_are_refused(session: pytest.Pytester) -> None:
    first = "def test_section(parity):\n    parity('images', 1, 0, 0, section='Images')\n"
    second = "def test_tolerance(parity):\n" + "".join(
        f"    parity('images', 1, 0, {tolerance}, section='Preprocessing')\n" for tolerance in (1, 2)
    )
    session.makepyfile(test_first=first, test_second=second)
    session.runpytest_inprocess().assert_outcomes(failed=2)
