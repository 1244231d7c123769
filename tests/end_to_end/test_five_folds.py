"""Two configurations in five folds on real images: selection, prediction with the choice, sharing, the report."""

from __future__ import annotations

import json
import shlex
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from segplug.cli.main import app
from segplug.model import Choice
from segplug.runtime.choice_codec import instructions, write_choice
from segplug.runtime.model_names import parse_model_name
from segplug.runtime.plan_codec import write_plan
from segplug.runtime.raw_dataset import load_dataset
from segplug.runtime.workspace import Workspace
from segplug.sample import DATASET, sample_root
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug.stages.postprocess import fit_postprocessing
from segplug.stages.report import report
from segplug.stages.run import Planning, run

pytestmark = pytest.mark.slow

PLANS, HELD_OUT, ITERATIONS = "handMade", 4, 160
CONFIGURATIONS = ("2d", "3d_fullres")
SEED = 0
FAST = ("--device", "cpu", "--precision", "fp32", "--workers", "0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, open_small, shrink, recipe) -> Iterator[tuple[Path, object]]:
    """The bundled sample but for four cases, through `run`; the folder of everything, and what `run` returns."""
    root = tmp_path_factory.mktemp("five_folds")
    raw = root / "raw" / DATASET
    shutil.copytree(sample_root() / DATASET, raw)
    cases = sorted(load_dataset(raw).cases)[-HELD_OUT:]
    (root / "images").mkdir()
    (root / "references").mkdir()
    for case in cases:
        (raw / "imagesTr" / f"{case}_0000.nii.gz").rename(root / "images" / f"{case}_0000.nii.gz")
        (raw / "labelsTr" / f"{case}.nii.gz").rename(root / "references" / f"{case}.nii.gz")
    description = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps({**description, "numTraining": 20}))
    with open_small(root) as project:
        fingerprint(project, DATASET)
        made = plan(project, DATASET, planner="compact", plans_name=PLANS)
        small = {
            "2d": shrink(made.configurations["2d"], (56, 40), (8, 16, 32), 8),
            "3d_fullres": shrink(made.configurations["3d_fullres"], (24, 32, 24), (8, 16, 32), 2),
        }
        write_plan(project.workspace.plans_file(DATASET, PLANS), replace(made, configurations=small))
        settings = ("trainer.augmentation=none", "trainer.oversample_foreground=0.67")
        training = recipe(ITERATIONS, *settings, lr=5e-3, seed=SEED)
        yield root, run(project, DATASET, planning=Planning(plans_name=PLANS), training=training)


def roots(root: Path) -> list[str]:
    return [f"--{part}={root / part}" for part in ("raw", "preprocessed", "results")]


def segplug(root: Path, *arguments: object) -> str:
    done = CliRunner().invoke(app, [*roots(root), *map(str, arguments)])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def mean_dice(folder: Path, references: Path) -> float:
    """Computed here, from the files: mean over cases, then over classes."""
    per_class = []
    for label in (1, 2):
        found = []
        for file in sorted(folder.glob("*.nii.gz")):
            a, b = (sitk.GetArrayFromImage(sitk.ReadImage(str(f))) == label for f in (file, references / file.name))
            found.append(2 * (a & b).sum() / (a.sum() + b.sum()))
        per_class.append(np.mean(found))
    return float(np.mean(per_class))


def test_every_candidate_is_scored_out_of_fold_and_the_best_is_chosen(trained) -> None:
    root, done = trained
    assert [(f.configuration, f.trained.fold) for f in done.folds] == [(c, n) for c in CONFIGURATIONS for n in range(5)]
    selection = done.selection
    references = root / "raw" / DATASET / "labelsTr"
    assert len(selection.candidates) == 3
    for candidate in selection.candidates:
        assert len(list(candidate.folder.glob("*.nii.gz"))) == 20
        assert candidate.mean_dice == pytest.approx(mean_dice(candidate.folder, references), abs=1e-9)
        assert candidate.mean_dice > 0.2
    assert selection.best.mean_dice == max(c.mean_dice for c in selection.candidates)
    cleaned = selection.best.folder / "postprocessed"
    assert selection.choice.postprocessed_dice == pytest.approx(mean_dice(cleaned, references), abs=1e-9)
    assert selection.choice.postprocessed_dice >= selection.choice.mean_dice > 0.5


def chosen(root: Path, which: str, done, project) -> Choice:
    """What was chosen; or the pair with all its postprocessing, so that each step has something to do."""
    if which == "as chosen":
        return done.selection.choice
    pair = done.selection.candidates[2]
    fitted = fit_postprocessing(project, pair.folder, root / "raw" / DATASET / "labelsTr")
    function = "remove_all_but_largest_component_from_segmentation"
    content = json.loads(fitted.file.read_text())
    steps = [{"labels_or_regions": [1, 2]}, {"labels_or_regions": 1}]
    fitted.file.write_text(
        json.dumps({**content, "postprocessing_fns": [function] * 2, "postprocessing_kwargs": steps})
    )
    members = tuple(root / "results" / DATASET / str(member) for member in pair.members)
    return Choice(DATASET, members, tuple(range(5)), pair.mean_dice, fitted.after.mean_dice, fitted.file)


@pytest.mark.parametrize("which", ["as chosen", "a pair, cleaned up"])
def test_one_command_predicts_what_the_single_ones_do(trained, tmp_path: Path, open_small, which: str, read) -> None:
    """The commands are those that were written down for people."""
    root, done = trained
    results = shutil.copytree(root / "results", tmp_path / "results", ignore=shutil.ignore_patterns("*.npz"))
    for part in ("raw", "preprocessed"):
        (tmp_path / part).symlink_to(root / part)
    with open_small(tmp_path) as project:
        choice = chosen(root, which, done, project)
        moved = replace(
            choice,
            members=tuple(results / DATASET / m.name for m in choice.members),
            postprocessing=results / choice.postprocessing.relative_to(root / "results"),
        )
        shutil.copyfile(choice.postprocessing, moved.postprocessing)
        considered = [parse_model_name(m.name) for m in moved.members]
        write_choice(project.workspace, moved, considered=considered, ensembles=True, results={})
    text = (results / DATASET / "inference_instructions.txt").read_text()
    assert text == instructions(moved)
    commands = [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("    segplug ")]
    at_once, steps = commands[0], commands[1:]
    places = {"INPUT": root / "images", "OUTPUT": tmp_path / "at_once"}
    segplug(tmp_path, *(places.get(word, word) for word in at_once), *FAST)
    last = ""
    for words in steps:
        output = next(words[i + 1] for i, word in enumerate(words) if word == "-o")
        last = output
        names = {"INPUT": root / "images"} | {w: tmp_path / w for w in words if w.startswith("OUTPUT")}
        settings = FAST if words[0] == "predict" else ("--workers", "0")
        segplug(tmp_path, *(names.get(word, word) for word in words), *settings)
    made = sorted(file.name for file in (tmp_path / "at_once").glob("*.nii.gz"))
    assert len(made) == HELD_OUT
    for name in made:
        np.testing.assert_array_equal(read(tmp_path / "at_once" / name), read(tmp_path / last / name))
    assert mean_dice(tmp_path / "at_once", root / "references") > 0.4


def test_a_model_in_another_workspace_predicts_the_same(trained, tmp_path: Path, read) -> None:
    """Exported, served, and imported by its address."""
    root, _ = trained
    (tmp_path / "served").mkdir()
    segplug(root, "model", "export", DATASET, "-o", tmp_path / "served" / "model.zip", "-p", PLANS)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    handler.func.log_message = lambda *_: None  # type: ignore[method-assign]
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        segplug(tmp_path, "model", "import", f"http://127.0.0.1:{server.server_port}/model.zip")
    finally:
        server.shutdown()
        server.server_close()
    found = Workspace(results=tmp_path / "results").results_folder(DATASET)
    assert (found / "MODEL_CARD.md").is_file()
    for place, out in ((root, tmp_path / "here"), (tmp_path, tmp_path / "there")):
        segplug(place, "predict", "-i", root / "images", "-o", out, "-d", DATASET, "--choice", *FAST)
    for file in sorted((tmp_path / "here").glob("*.nii.gz")):
        np.testing.assert_array_equal(read(file), read(tmp_path / "there" / file.name))


def test_the_report_tells_of_all_of_it(trained, open_small) -> None:
    root, done = trained
    with open_small(root) as project:
        page = report(project, DATASET).read_text()
    for text in (DATASET, *CONFIGURATIONS, f"{done.selection.choice.mean_dice:.4f}"[:5], "--choice", "<svg", "<img"):
        assert text in page, text
    for fold in done.folds:
        assert all(c.prediction.name.removesuffix(".nii.gz") in page for c in fold.evaluation.cases)
