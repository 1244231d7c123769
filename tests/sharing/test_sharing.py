"""Models leave in a zip and come out of one, and nothing else does."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import stat
import threading
import warnings
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from segplug.errors import CheckpointError, DataError, UsageError
from segplug.model import Choice
from segplug.runtime.checkpoint import read_checkpoint
from segplug.runtime.choice_codec import read_choice, write_choice
from segplug.runtime.model_names import parse_model_name
from segplug.stages.export_model import export_model
from segplug.stages.import_model import import_model, inspect_archive, inspect_model

NAME = "Dataset503_Shared"
MODELS = [f"nnUNetTrainer__nnUNetPlans__{c}" for c in ("2d", "3d_fullres")]


@pytest.fixture
def archive(project, tmp_path):
    return export_model(project, NAME, tmp_path / "model.zip").file


def files_of(folder: Path) -> dict[str, bytes]:
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def changed(archive: Path, target: Path, **changes: bytes | None) -> Path:
    """A copy of an archive with entries replaced, removed (None) or added; `__` in a key stands for `/`."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as out:
        for entry in source.infolist():
            if entry.filename not in changes:
                out.writestr(entry.filename, source.read(entry))
        for name, content in changes.items():
            if content is not None:
                out.writestr(name, content)
    return target


def test_a_model_folder_is_no_data_set(project, tmp_path):
    folder = project.workspace.results_folder(NAME) / MODELS[0]
    with pytest.raises(UsageError, match="a model; expected a data set"):
        export_model(project, folder, tmp_path / "model.zip")


def test_what_is_exported_is_what_is_imported(project, elsewhere, archive):
    done = import_model(elsewhere, archive)
    assert done.checked
    assert done.left_out == ()
    assert [str(m.name) for m in done.description.models] == MODELS
    source, target = project.workspace.results_folder(NAME), elsewhere.workspace.results_folder(NAME)
    there, here = files_of(target), files_of(source)
    assert set(there) - set(here) == {"segplug_model.json", "MODEL_CARD.md"}
    assert {name for name in here if name not in there} == {
        name for name in here if name.endswith((".pkl", "phantom_000.nii.gz"))
    }
    assert all(there[name] == here[name] for name in there if name in here)
    assert [f.name for f in target.parent.iterdir()] == [NAME]  # nothing is left of the work


def test_without_what_training_alone_needs(project, elsewhere, tmp_path):
    whole = export_model(project, NAME, tmp_path / "whole.zip").file
    small = export_model(project, NAME, tmp_path / "small.zip", for_inference=True).file
    assert small.stat().st_size < whole.stat().st_size
    import_model(elsewhere, small)
    file = f"{MODELS[0]}/fold_0/checkpoint_final.pth"
    before, after = (read_checkpoint(p.workspace.results_folder(NAME) / file) for p in (project, elsewhere))
    assert before.state["optimizer_state"] is not None
    assert after.state["optimizer_state"] is None
    assert before.state.keys() == after.state.keys()
    assert all(torch.equal(tensor, after.weights[name]) for name, tensor in before.weights.items())


def test_label_maps_go_along_if_asked(project, elsewhere, tmp_path):
    file = export_model(project, NAME, tmp_path / "all.zip", predictions=True).file
    import_model(elsewhere, file)
    found = files_of(elsewhere.workspace.results_folder(NAME))
    assert sum(name.endswith("phantom_000.nii.gz") for name in found) == 4
    assert not any(name.endswith(".pkl") for name in found)


def test_label_maps_that_no_import_takes_are_left_out(project, elsewhere, tmp_path):
    validation = project.workspace.results_folder(NAME) / MODELS[0] / "fold_0" / "validation"
    for name in (".hidden.json", "phantom_001.mgz", "phantom_002.ome.zarr/zarr.json", "postprocessed/phantom.nii.gz"):
        (validation / name).parent.mkdir(exist_ok=True)
        (validation / name).write_bytes(b"label map")
    with pytest.warns(UserWarning, match=r"no such files: .*/phantom_001\.mgz, [^,]*/phantom_002\.ome\.zarr\. Copy"):
        file = export_model(project, NAME, tmp_path / "all.zip", predictions=True).file
    done = import_model(elsewhere, file)
    assert done.left_out == ()
    there = elsewhere.workspace.results_folder(NAME) / MODELS[0] / "fold_0" / "validation"
    assert {f.name for f in there.iterdir()} == {"summary.json", "phantom_000.nii.gz"}


def names_in(file: Path) -> list[str]:
    with zipfile.ZipFile(file) as archive:
        return archive.namelist()


def test_folds_are_those_of_trainings(project, tmp_path):
    model = project.workspace.results_folder(NAME) / MODELS[0]
    for fold in ("0_old", "00", "10", "all"):
        shutil.copytree(model / "fold_1", model / f"fold_{fold}")
    names = names_in(export_model(project, NAME, tmp_path / "all.zip", configurations=["2d"]).file)
    weights = [name.split("/")[-2] for name in names if name.endswith("checkpoint_final.pth")]
    assert weights == ["fold_0", "fold_1", "fold_10", "fold_all"]
    assert not [name for name in names if "fold_0_old" in name or "fold_00" in name]


def test_what_was_made_of_several_folds_goes_along_with_all_of_them(project, tmp_path):
    root = project.workspace.results_folder(NAME)
    crossval = f"{NAME}/{MODELS[0]}/crossval_results_folds_0_1/summary.json"
    ensembles = {folds: f"ensemble___{'___'.join(MODELS)}___{folds}" for folds in ("0", "0_1")}
    for name in ensembles.values():
        (root / "ensembles" / name).mkdir(parents=True)
        (root / "ensembles" / name / "summary.json").write_text("{}")

    def made_of_several(**options):
        names = names_in(export_model(project, NAME, tmp_path / "some.zip", **options).file)
        return {n.split("/")[-2] for n in names if "ensembles" in n}, crossval in names

    both = set(ensembles.values())
    assert made_of_several() == (both, True)
    assert made_of_several(configurations=["3d_fullres", "2d"], folds=[1, 0]) == (both, True)
    assert made_of_several(folds=[0]) == ({ensembles["0"]}, False)
    assert made_of_several(folds=[1]) == (set(), False)
    shutil.rmtree(root / MODELS[1] / "fold_1")
    assert made_of_several() == ({ensembles["0"]}, True)


def test_the_fold_of_all_cases_has_no_part_in_a_cross_validation(project, tmp_path):
    model = project.workspace.results_folder(NAME) / MODELS[0]
    shutil.copytree(model / "fold_1", model / "fold_all")
    exported = export_model(project, NAME, tmp_path / "all.zip", configurations=["2d"])
    assert f"{NAME}/{MODELS[0]}/crossval_results_folds_0_1/summary.json" in names_in(exported.file)
    assert exported.description.models[0].crossval["mean"] == 0.85


def choose(project, *models):
    folder = project.workspace.results_folder(NAME)
    decision = folder / models[0] / "crossval_results_folds_0_1" / "postprocessing.json"
    if len(models) > 1:
        decision = folder / "ensembles" / f"ensemble___{'___'.join(models)}___0_1" / "postprocessing.json"
        decision.parent.mkdir(parents=True)
        decision.write_text('{"postprocessing_fns": [], "postprocessing_kwargs": []}')
    choice = Choice(NAME, tuple(folder / model for model in models), (0, 1), 0.8, 0.81, decision)
    names = [parse_model_name(model) for model in models]
    write_choice(project.workspace, choice, considered=names, ensembles=True, results={})
    return choice


@pytest.mark.parametrize("members", [MODELS[1:], MODELS])
def test_the_choice_goes_along_with_its_members(project, elsewhere, tmp_path, members):
    chosen = choose(project, *members)
    import_model(elsewhere, export_model(project, NAME, tmp_path / "all.zip").file)
    found = read_choice(elsewhere.workspace.choice_file(NAME))
    assert [m.name for m in found.members] == members
    assert (found.folds, found.mean_dice) == (chosen.folds, chosen.mean_dice)
    assert found.postprocessing.is_relative_to(elsewhere.workspace.results)
    text = elsewhere.workspace.instructions_file(NAME).read_text()
    assert str(elsewhere.workspace.results) in text
    assert str(project.workspace.results) not in text
    part = export_model(project, NAME, tmp_path / "part.zip", configurations=["2d"])
    assert part.description.choice == {}
    with zipfile.ZipFile(part.file) as archive:
        assert not [name for name in archive.namelist() if "ensemble" in name or "inference" in name]


def test_a_part_of_it(project, tmp_path):
    done = export_model(project, NAME, tmp_path / "part.zip", configurations=["2d"], folds=[1])
    assert [str(m.name) for m in done.description.models] == MODELS[:1]
    assert list(done.description.models[0].folds) == ["1"]
    for options, told in (
        ({"configurations": ["3d_lowres"]}, r"no model nnUNetTrainer__nnUNetPlans__3d_lowres. There are: .*2d"),
        ({"folds": [0, 7]}, "fold 7 has no checkpoint_final.pth. Folds that have: 0, 1"),
        ({"checkpoints": ["best"]}, "fold of any number has no checkpoint_best.pth"),
        ({"checkpoints": ["first"]}, "expected one of final"),
        ({"trainer": "Nobody"}, "no models of trainer Nobody"),
    ):
        with pytest.raises(UsageError, match=told):
            export_model(project, NAME, tmp_path / "none.zip", **options)
    assert not (tmp_path / "none.zip").exists()


def test_the_only_trainer_need_not_be_named(project, tmp_path):
    folder = project.workspace.results_folder(NAME)
    for model in MODELS:
        (folder / model).rename(folder / model.replace("nnUNetTrainer", "nnunet"))
    done = export_model(project, NAME, tmp_path / "all.zip")
    assert {m.name.trainer for m in done.description.models} == {"nnunet"}


def test_a_damaged_checkpoint_is_not_passed_on(project, tmp_path):
    file = project.workspace.results_folder(NAME) / MODELS[0] / "fold_0" / "checkpoint_final.pth"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        export_model(project, NAME, tmp_path / "model.zip")
    assert not (tmp_path / "model.zip").exists()


def test_inspection_tells_the_same_of_all_forms(project, elsewhere, archive):
    of_zip = inspect_archive(archive)
    import_model(elsewhere, archive)
    folder = elsewhere.workspace.results_folder(NAME)
    assert inspect_model(elsewhere, folder) == of_zip
    assert inspect_model(elsewhere, "503") == of_zip
    (one,) = inspect_model(elsewhere, folder / MODELS[1]).models
    assert one == of_zip.models[1]
    assert one.dice == {"0": 0.8, "1": 0.9}
    assert one.crossval == {"organ_1": 0.85, "organ_2": 0.85, "mean": 0.85}
    assert one.network["class"] == "PlainConvUNet"
    assert {p["distribution"] for p in one.providers} == {"segplug"}
    card = (folder / "MODEL_CARD.md").read_text()
    for text in (NAME, "organ_1 (1)", "| 1 | 0.9000 |", "segplug model import", "nnUNetv2_predict -i IMAGES", "-f 0 1"):
        assert text in card
    with pytest.raises(UsageError, match="no data set"):
        inspect_model(elsewhere, "99")


def test_inspection_compares_hashes(archive, tmp_path):
    other = changed(archive, tmp_path / "other.zip", **{f"{NAME}/{MODELS[0]}/fold_0/progress.png": b"another"})
    with pytest.raises(DataError, match=r"progress.png is not as its segplug_model.json says"):
        inspect_archive(other)


def test_what_a_person_put_aside_is_no_fold(project):
    folder = project.workspace.results_folder(NAME) / MODELS[0]
    (folder / "fold_0").rename(folder / "fold_0_old")
    assert list(inspect_model(project, folder).models[0].folds) == ["1"]


def test_models_that_are_there_are_replaced_only_if_asked(project, elsewhere, archive):
    import_model(elsewhere, archive)
    folder = elsewhere.workspace.results_folder(NAME)
    (folder / MODELS[0] / "fold_0" / "checkpoint_best.pth").write_bytes(b"mine")
    shutil.rmtree(folder / MODELS[1])
    with pytest.raises(UsageError, match=rf"there already: .*{MODELS[0]}.*--overwrite"):
        import_model(elsewhere, archive)
    assert not (folder / MODELS[1]).exists()
    import_model(elsewhere, archive, overwrite=True)
    assert not (folder / MODELS[0] / "fold_0" / "checkpoint_best.pth").exists()
    assert (folder / MODELS[1]).is_dir()


def test_the_page_and_the_hashes_tell_of_all_models_there(project, elsewhere, tmp_path):
    for configuration in ("2d", "3d_fullres"):
        part = export_model(project, NAME, tmp_path / f"{configuration}.zip", configurations=[configuration])
        import_model(elsewhere, part.file)
    folder = elsewhere.workspace.results_folder(NAME)
    both = import_json(export_model(project, NAME, tmp_path / "both.zip").file)
    found = json.loads((folder / "segplug_model.json").read_text())
    assert found["files"] == both["files"]
    assert found["trained_with"] == both["trained_with"]
    assert found["description"] == both["description"]
    assert all(f"### {model}" in (folder / "MODEL_CARD.md").read_text() for model in MODELS)
    # one of them again, with a fold less: what it replaces is forgotten
    fewer = export_model(project, NAME, tmp_path / "fewer.zip", configurations=["2d"], folds=[1])
    import_model(elsewhere, fewer.file, overwrite=True)
    found = json.loads((folder / "segplug_model.json").read_text())["files"]
    assert set(both["files"]) - set(found) >= {f"{NAME}/{MODELS[0]}/fold_0/checkpoint_final.pth"}
    assert {name for name in both["files"] if MODELS[1] in name} < set(found)
    assert all((folder.parent / name).is_file() for name in found)


def test_nothing_tells_of_models_that_were_replaced(elsewhere, archive, tmp_path):
    import_model(elsewhere, archive)
    beside = {f"{NAME}/{name}": None for name in ("segplug_model.json", "MODEL_CARD.md")}
    theirs = changed(archive, tmp_path / "theirs.zip", **beside, **{f"{NAME}/{MODELS[0]}/fold_0/progress.png": b"x"})
    assert not import_model(elsewhere, theirs, overwrite=True).checked
    assert {f.name for f in elsewhere.workspace.results_folder(NAME).iterdir()} == set(MODELS)


def test_a_damaged_model_beside_is_no_obstacle(project, elsewhere, tmp_path):
    one, other = (
        export_model(project, NAME, tmp_path / f"{c}.zip", configurations=[c]).file for c in ("2d", "3d_fullres")
    )
    import_model(elsewhere, other)
    folder = elsewhere.workspace.results_folder(NAME)
    (folder / MODELS[1] / "plans.json").write_text("{")
    left_out = rf"left out of the description: .*{MODELS[1]}/plans.json: not a JSON file"
    with pytest.warns(UserWarning, match=left_out):
        import_model(elsewhere, one)
    assert f"### {MODELS[0]}" in (folder / "MODEL_CARD.md").read_text()
    files = json.loads((folder / "segplug_model.json").read_text())["files"]
    assert set(files) == set(import_json(one)["files"]) | set(import_json(other)["files"])
    with pytest.warns(UserWarning, match=left_out):
        assert [str(m.name) for m in inspect_model(elsewhere, "503").models] == MODELS[:1]
    assert [str(m.name) for m in inspect_model(elsewhere, folder / MODELS[0]).models] == MODELS[:1]
    with pytest.raises(DataError, match="not a JSON file"):
        inspect_model(elsewhere, folder / MODELS[1])
    shutil.rmtree(folder / MODELS[0])
    with pytest.raises(DataError, match="not a JSON file"):
        inspect_model(elsewhere, "503")


def import_json(file: Path):
    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read(f"{NAME}/segplug_model.json"))


def test_a_folder_is_no_archive(elsewhere, tmp_path):
    with pytest.raises(UsageError, match="a folder; expected a zip of models"):
        import_model(elsewhere, tmp_path)


class Touch:
    """A pickle of it makes a file when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def evil_checkpoint(path: Path) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save({"network_weights": Touch(str(path))}, buffer)
    return buffer.getvalue()


def test_a_checkpoint_that_would_run_code_is_refused(elsewhere, archive, tmp_path):
    name = f"{NAME}/{MODELS[0]}/fold_0/checkpoint_final.pth"
    touched = tmp_path / "touched"
    without_hashes = changed(
        archive, tmp_path / "evil.zip", **{name: evil_checkpoint(touched), f"{NAME}/segplug_model.json": None}
    )
    with pytest.raises(CheckpointError, match=rf"evil.zip: {name}: holds .*expected tensors"):
        import_model(elsewhere, without_hashes)
    assert not touched.exists()
    assert list(elsewhere.workspace.results_folder(NAME).parent.iterdir()) == []


def test_pickles_and_programs_stay_in_the_archive(elsewhere, archive, tmp_path):
    touched = tmp_path / "touched"
    extra = {
        f"{NAME}/{MODELS[0]}/crossval_results_folds_0_1/postprocessing.pkl": pickle.dumps(Touch(str(touched))),
        f"{NAME}/{MODELS[0]}/nnUNetTrainer.py": b"import os",
        f"{NAME}/{MODELS[0]}/.hidden.json": b"{}",
        f"{NAME}/.hidden/notes.json": b"{}",
        f"{NAME}/{MODELS[0]}/\x1b[31m.txt": b"{}",
        f"{NAME}/image.nii.gz": b"",
    }
    file = changed(archive, tmp_path / "extra.zip", **extra)
    done = import_model(elsewhere, file)
    assert set(done.left_out) == set(extra)
    assert not touched.exists()
    assert not set(extra) & set(files_of(elsewhere.workspace.results_folder(NAME).parent))


@pytest.mark.parametrize(
    "name",
    ["../outside.json", "/outside.json", f"{NAME}/../../outside.json", "C:\\outside.json", f"{NAME}\\..\\x.json"],
)
def test_nothing_is_written_outside(elsewhere, archive, tmp_path, name):
    file = tmp_path / "outside.zip"
    shutil.copy(archive, file)
    with zipfile.ZipFile(file, "a") as out:
        out.writestr(zipfile.ZipInfo(name), "{}")
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="is outside the folder of results"):
        import_model(elsewhere, file)
    assert {f for f in tmp_path.rglob("*") if f.is_file()} <= before


def test_links_twins_and_other_data_sets_are_refused(elsewhere, archive, tmp_path):
    link = zipfile.ZipInfo(f"{NAME}/{MODELS[0]}/link.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    for info, told in (
        (link, "is no plain file"),
        (zipfile.ZipInfo(f"{NAME}/{MODELS[0]}/plans.json"), "is there twice"),
        (zipfile.ZipInfo("Dataset001_Other/notes.json"), "expected files of one data set"),
        (zipfile.ZipInfo("Dataset001_Other/a__b__2d/plans.json"), "models of Dataset001_Other, Dataset503_Shared"),
    ):
        file = tmp_path / "wrong.zip"
        shutil.copy(archive, file)
        with zipfile.ZipFile(file, "a") as out, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile's own word on twins
            out.writestr(info, "/etc/passwd")
        with pytest.raises(DataError, match=told):
            import_model(elsewhere, file)


def test_archives_that_are_not_what_they_say(elsewhere, archive, tmp_path):
    plans = f"{NAME}/{MODELS[0]}/plans.json"
    for changes, told in (
        (
            {f"{NAME}/{MODELS[0]}/fold_0/progress.png": b"another"},
            r"progress.png is not as its segplug_model.json says",
        ),
        (
            {f"{NAME}/{MODELS[0]}/fold_0/progress.png": None},
            r"lacks .*progress.png, which its segplug_model.json names",
        ),
        ({f"{NAME}/{MODELS[0]}/notes.txt": b"new"}, r"notes.txt is not in its segplug_model.json"),
        ({f"{NAME}/segplug_model.json": b"{"}, "segplug_model.json: damaged"),
        ({f"{NAME}/{MODELS[0]}/fold_-1/checkpoint_final.pth": b""}, "fold_-1: no fold is called so; expected fold_0"),
        ({f"{NAME}/{MODELS[0]}/fold_99999999999/a.txt": b""}, "fold_99999999999: no fold is called so"),
        ({f"{NAME}/segplug_model.json": b"[" * 100_000}, "segplug_model.json: damaged: nested too deeply"),
        ({plans: b'{"a":' * 100_000}, "plans.json: not a JSON file: nested too deeply"),
        ({plans: b'{"a": ' + b"9" * 5000 + b"}"}, "plans.json: not a JSON file"),
        ({f"{plans}/notes.json": b"{}"}, r"plans.json' is a file and a folder"),
        ({f"{NAME}/{MODELS[0]}/{'n' * 260}.txt": b"{}"}, "too long a name"),
        ({f"{NAME}/{'n/' * 1500}notes.txt": b"{}"}, "too long a name"),
        ({plans: b"{"}, "plans.json: not a JSON file"),
        ({plans: None}, f"no {plans}"),
    ):
        with pytest.raises(DataError, match=told):
            import_model(elsewhere, changed(archive, tmp_path / "changed.zip", **changes))
    without = {f"{NAME}/segplug_model.json": None}
    checkpoint = f"{NAME}/{MODELS[0]}/fold_0/checkpoint_final.pth"
    with zipfile.ZipFile(archive) as source:
        other = source.read(f"{NAME}/{MODELS[1]}/fold_0/checkpoint_final.pth")
    with pytest.raises(DataError, match="of configuration 3d_fullres; expected 2d"):
        import_model(elsewhere, changed(archive, tmp_path / "changed.zip", **without, **{checkpoint: other}))
    with pytest.raises(CheckpointError, match="damaged"):
        import_model(elsewhere, changed(archive, tmp_path / "changed.zip", **without, **{checkpoint: other[:900]}))
    (tmp_path / "none.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match="not a zip"):
        import_model(elsewhere, tmp_path / "none.zip")
    content = bytearray(archive.read_bytes())
    content[len(content) // 3] ^= 0xFF
    (tmp_path / "bits.zip").write_bytes(content)
    with pytest.raises((DataError, CheckpointError)):
        import_model(elsewhere, tmp_path / "bits.zip")
    with pytest.raises(UsageError, match="no such file"):
        import_model(elsewhere, tmp_path / "nowhere.zip")


def test_sizes_have_limits(elsewhere, archive, tmp_path):
    bomb = tmp_path / "bomb.zip"
    shutil.copy(archive, bomb)
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as out:
        out.writestr(f"{NAME}/{MODELS[0]}/large.txt", bytes(50_000_000))
    with pytest.raises(DataError, match="when unpacked; expected at most"):
        import_model(elsewhere, bomb, max_gb=0.02)
    # one that says that it is small
    lying = bytearray(bomb.read_bytes())
    size = (50_000_000).to_bytes(4, "little")
    assert lying.count(size) == 2
    (tmp_path / "lying.zip").write_bytes(bytes(lying).replace(size, (5).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"damaged|larger than"):
        import_model(elsewhere, tmp_path / "lying.zip", max_gb=0.02)
    with pytest.raises(UsageError, match="more than 0"):
        import_model(elsewhere, bomb, max_gb=0)
    assert list(elsewhere.workspace.results_folder(NAME).parent.iterdir()) == []


def test_a_given_hash_has_to_be_that_of_the_file(elsewhere, archive):
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    with pytest.raises(UsageError, match="expected 64 hexadecimal digits"):
        import_model(elsewhere, archive, sha256="abc")
    with pytest.raises(DataError, match=rf"SHA-256 {digest}; expected 0{{64}}"):
        import_model(elsewhere, archive, sha256="0" * 64)
    import_model(elsewhere, archive, sha256=digest.upper())


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[str]:
    """Serves the folder of the test on this machine."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            if self.path == "/short.zip":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"x" * 10)
            elif self.path == "/endless.zip":
                self.send_response(200)
                self.end_headers()
                for _ in range(40):
                    self.wfile.write(bytes(1 << 20))
            elif self.path == "/local.zip":
                BaseHTTPRequestHandler.send_response(self, 302)
                self.send_header("Location", "file:///etc/passwd")
                self.end_headers()
            elif self.path == "/moved.zip":
                self.send_response(302)
                self.send_header("Location", "/model.zip")
                self.end_headers()
            else:
                super().do_GET()

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_models_come_from_the_web(elsewhere, archive, server):
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert import_model(elsewhere, f"{server}/model.zip", sha256=digest).checked
    with pytest.raises(UsageError, match=rf"there already: .*{server}/model\.zip holds"):
        import_model(elsewhere, f"{server}/model.zip")
    assert import_model(elsewhere, f"{server}/moved.zip", overwrite=True).checked
    for path, told in (
        ("nothing.zip", "the server answers 404"),
        ("short.zip", "ended after 10 of 1000 bytes|IncompleteRead"),
        ("endless.zip", "expected at most 0.0"),
        ("local.zip", "302|not allowed"),
    ):
        with pytest.raises(DataError, match=told):
            import_model(elsewhere, f"{server}/{path}", max_gb=0.03)
    with pytest.raises(DataError, match="GB or more; expected at most"):
        import_model(elsewhere, f"{server}/model.zip", max_gb=1e-6)
    with pytest.raises(DataError, match=r"expected 0{64}"):
        import_model(elsewhere, f"{server}/model.zip", sha256="0" * 64)
    port = server.rpartition(":")[2]
    with pytest.raises(DataError, match="cannot be downloaded"):
        import_model(elsewhere, f"https://127.0.0.1:{port}/model.zip")  # no TLS there
    with pytest.raises(UsageError, match="no such file"):
        import_model(elsewhere, "ftp://127.0.0.1/model.zip")
    assert [f.name for f in elsewhere.workspace.results_folder(NAME).parent.iterdir()] == [NAME]


def test_the_commands(project, elsewhere, tmp_path):
    from segplug.cli.main import app

    file = tmp_path / "model.zip"
    run = CliRunner()
    here, there = (["--results", str(p.workspace.results)] for p in (project, elsewhere))
    done = run.invoke(app, [*here, "model", "export", NAME, "-o", str(file)])
    assert done.exit_code == 0, done.output
    done = run.invoke(app, [*there, "model", "import", str(file)])
    assert done.exit_code == 0, done.output
    assert f"installed: {elsewhere.workspace.results_folder(NAME)}" in done.output
    done = run.invoke(app, [*there, "model", "inspect", "503"])
    assert done.exit_code == 0, done.output
    assert "PlainConvUNet" in done.stdout
    done = run.invoke(app, [*there, "model", "inspect", str(file), "--format", "json"])
    assert json.loads(done.stdout)["models"][0]["folds"] == {"0": ["final"], "1": ["final"]}


def test_what_a_model_needs_is_told_before_it_is_used(project, elsewhere, archive, tmp_path):
    from segplug.cli.main import app

    name = f"{NAME}/{MODELS[0]}/plans.json"
    with zipfile.ZipFile(archive) as whole:
        plans = json.loads(whole.read(name))
        manifest = json.loads(whole.read(f"{NAME}/segplug_model.json"))
    entry = {"kind": "architectures", "name": "swin", "plugin": "nets", "distribution": "acme-nets", "version": "1.2"}
    plans["segplug"]["provenance"].append(entry)
    text = json.dumps(plans).encode()
    manifest["files"][name] = {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)}
    other = changed(
        archive, tmp_path / "other.zip", **{name: text, f"{NAME}/segplug_model.json": json.dumps(manifest).encode()}
    )
    there = ["--results", str(elsewhere.workspace.results)]
    for command in (["inspect", str(other)], ["import", str(other)], ["inspect", "503"]):
        done = CliRunner().invoke(app, [*there, "model", *command])
        assert done.exit_code == 0, done.output
        assert done.stderr.count("pip install acme-nets==1.2") == 1
    done = CliRunner().invoke(app, [*there, "model", "inspect", str(archive)])
    assert "not as it was trained" not in done.stderr
