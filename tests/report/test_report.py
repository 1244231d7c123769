"""One page about a data set."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from segplug.errors import UsageError
from segplug.kernel import Kernel
from segplug.model import CaseEvaluation
from segplug.runtime.evaluation import summarise
from segplug.runtime.model_names import ModelName
from segplug.runtime.project import Project
from segplug.runtime.report.facts import FoldFacts, ModelFacts, worst_cases
from segplug.runtime.report.plots import curves
from segplug.runtime.training_log import SERIES
from segplug.runtime.workspace import Workspace
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.stages.preprocess import preprocess
from segplug.stages.report import report
from segplug.stages.select import select
from segplug.stages.train import train
from segplug.testing import Phantom, write_phantom_dataset

NAME = "Dataset701_Report"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What a browser would make of it: sections with their text, tables as rows of cells; tags have to match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: dict[str, str] = {}
        self.links: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.tags: list[str] = []
        self._section = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.links += [str(given[name]) for name in ("src", "href", "xlink:href") if given.get(name)]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self._section = str(given["id"])
            self.ids[self._section] = ""
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without a beginning"
        assert self.open[-1] == tag, f"</{tag}> ends {self.open[-1]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self._section:
            self.ids[self._section] += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def table(self, first_heading: str) -> list[list[str]]:
        return next(table for table in self.tables if table[0][0] == first_heading)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    roots = (tmp_path / part for part in ("raw", "preprocessed", "results"))
    with Project(Workspace(*roots), Kernel(discover=False), workers=0) as opened:
        yield opened


def written(project: Project, **options: int) -> Page:
    return Page(report(project, NAME, **options).read_text(encoding="utf-8"))


def test_what_is_missing_is_told_with_its_command(project: Project, tmp_path: Path) -> None:
    write_phantom_dataset(tmp_path / "raw" / NAME, Phantom(shape=(8, 14, 12)), cases=3)
    page = written(project)
    assert list(page.ids) == ["data", "plans", "training", "metrics", "worst", "choice"]
    assert f"segplug plan {NAME}" in page.ids["plans"]
    assert f"segplug run {NAME}" in page.ids["training"]
    assert f"segplug select {NAME}" in page.ids["choice"]
    assert len(page.table("case")) == 1 + 3
    assert page.tags.count("svg") == 3


def test_damaged_and_hostile_data_sets_are_shown_as_what_they_are(project: Project, tmp_path: Path) -> None:
    folder = write_phantom_dataset(tmp_path / "raw" / NAME, Phantom(shape=(8, 14, 12)), cases=3)
    broken = sorted((folder / "imagesTr").iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:200])
    description = json.loads((folder / "dataset.json").read_text())
    description["channel_names"] = {"0": "<script>alert('channel')</script> $x^$"}
    names = list(description["labels"])
    description["labels"]["<img src=x onerror=alert(1)>"] = description["labels"].pop(names[1])
    description["labels"][r"$\frac{$ x$"] = description["labels"].pop(names[2])
    (folder / "dataset.json").write_text(json.dumps(description))
    project.workspace.preprocessed_folder(NAME).mkdir(parents=True)
    project.workspace.plans_file(NAME, "nnUNetPlans").write_text("{")
    text = report(project, NAME).read_text(encoding="utf-8")
    page = Page(text)
    assert broken.name in page.ids["data"]
    assert "$x^$: intensity" in text
    assert "nnUNetPlans.json: not a JSON file" in page.ids["plans"]
    assert len(page.table("case")) == 1 + 2
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert "<img src=x onerror=alert(1)>" in page.ids["data"]  # as text


def test_raw_data_that_are_not_all_there_any_more(project: Project, tmp_path: Path) -> None:
    folder = write_phantom_dataset(tmp_path / "raw" / NAME, Phantom(shape=(8, 14, 12)), cases=3)
    label = sorted((folder / "labelsTr").iterdir())[1]
    label.unlink()
    page = written(project)
    assert str(label) in page.ids["data"]
    assert len(page.table("case")) == 1 + 2
    model = tmp_path / "results" / NAME / "nnUNetTrainer__nnUNetPlans__2d"
    model.mkdir(parents=True)
    (folder / "dataset.json").rename(model / "dataset.json")
    for gone in ("dataset.json", "the whole folder"):
        page = written(project)
        assert f"the description shown is that of {model / 'dataset.json'}" in page.ids["data"]
        assert str(folder) in page.ids["data"]
        if gone == "dataset.json":
            shutil.rmtree(folder)
    (model / "dataset.json").unlink()
    with pytest.raises(UsageError, match="no such folder, and Dataset701_Report is neither preprocessed nor trained"):
        report(project, NAME)


def test_2d_images_have_areas(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "raw" / NAME
    write_phantom_dataset(folder, Phantom(shape=(1, 24, 20), classes=1, file_ending=".png"), cases=3)
    page = written(project)
    heading, *rows = page.table("case")
    assert heading[-1].endswith("(mm²)")
    assert all(float(row[-1].replace("\N{NARROW NO-BREAK SPACE}", "")) > 0 for row in rows)


def test_scores_of_training_cases_are_not_those_of_the_model() -> None:
    def fold(name: str, case: str) -> FoldFacts:
        evaluation = summarise([CaseEvaluation(Path(case), Path(case), {1: {"Dice": 0.5}})])
        return FoldFacts(name, {name: [1.0, 0.5] for name in SERIES} | {"val_losses": [1.0]}, evaluation)

    of_all = fold("all", "trained_on")
    found = ModelFacts(ModelName("a", "b", "c"), (fold("0", "unseen"), of_all)).evaluation
    assert found is not None
    assert [case.name for case in found.cases] == ["unseen"]
    assert ModelFacts(ModelName("a", "b", "c"), (of_all,)).evaluation is None
    assert of_all.epochs == 1  # as many as there is everything of
    assert curves([of_all]).startswith("<svg")


@pytest.mark.slow
def test_a_trained_and_chosen_model_is_shown_whole(project: Project, tmp_path: Path) -> None:
    folder = write_phantom_dataset(tmp_path / "raw" / NAME, Phantom(shape=(16, 20, 18)), cases=5)
    fingerprint(project, NAME)
    plan(project, NAME, planner="compact", plans_name="smallPlans")
    preprocess(project, NAME, configurations=["3d_fullres"], plans_name="smallPlans")
    short = ["trainer.iterations_per_epoch=2", "trainer.val_iterations_per_epoch=1", "trainer.batch_size=2"]
    for fold in (0, 1):
        train(project, NAME, "3d_fullres", fold, plans_name="smallPlans", overrides=short, epochs=2)
    selection = select(project, NAME, folds=(0, 1))
    # a case whose image is gone since then cannot be pictured, but its scores are there
    worst = worst_cases(selection.best.evaluation.cases, 1)[0].name
    next((folder / "imagesTr").glob(f"{worst}_*")).unlink()
    description = json.loads((folder / "dataset.json").read_text())
    description["numTraining"] = 4
    (folder / "dataset.json").write_text(json.dumps(description))
    (folder / "labelsTr" / f"{worst}.nii.gz").unlink()

    page = written(project, worst=2)
    assert page.table("configuration")[0][1:3] == ["patch size", "batch size"]
    assert any("million" in cell for row in page.table("configuration") for cell in row)
    folds = page.table("fold")
    assert [row[0] for row in folds[1:]] == ["0", "1"]
    assert [row[1] for row in folds[1:]] == ["2", "2"]
    compared = page.table("model")
    assert compared[1][2] == f"{selection.best.mean_dice:.4f}"
    scores = next(t for t in page.tables if t[0][:2] == ["case", "mean Dice"])
    assert {row[0] for row in scores[1:]} == {case.name for case in selection.best.evaluation.cases}
    assert "segplug predict -i INPUT -o OUTPUT" in page.ids["choice"]
    pictures = [link for link in page.links if link.startswith("data:image/png;base64,")]
    assert len(pictures) == 1
    assert f"has no training case {worst}" in page.ids["worst"]
    # nothing is fetched from anywhere
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert not re.search(r"@import|url\((?!['\"]?#)", (tmp_path / "results" / NAME / "report.html").read_text())
