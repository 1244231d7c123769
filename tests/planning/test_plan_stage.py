"""The plan stage: what it writes and keeps, what it refuses, and planners of strangers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segplug import Component, hookimpl
from segplug.cli.main import main
from segplug.errors import DataError, PluginError, UsageError
from segplug.model import Budget, ComponentRef, DatasetDescription, Fingerprint, Plan
from segplug.runtime.plan_codec import encode_plan, read_plan
from segplug.runtime.planned import find_configuration, find_plan
from segplug.runtime.project import Project, open_project
from segplug.stages import fingerprint as fingerprint_module
from segplug.stages.fingerprint import fingerprint
from segplug.stages.plan import plan
from segplug_builtin.planners import plan_default


@pytest.fixture
def measured(project: Project, phantom: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The phantom data set with its fingerprint."""
    monkeypatch.setattr(fingerprint_module, "TOTAL_DRAWS", 1e5)
    fingerprint(project, phantom)
    return phantom


def plan_thick(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget, *, batch: int = 3) -> Plan:
    """A stranger's planner: the default plan with another batch size, name and recipe."""
    made = plan_default(fingerprint, dataset, budget)
    full = replace(made.configurations["3d_fullres"], batch_size=batch)
    return replace(
        made,
        plans_name=budget.plans_name or "ThickPlans",
        configurations={**made.configurations, "3d_fullres": full},
        training={"3d_fullres": ComponentRef("short", {"epochs": 2, "loss": "dice_ce"})},
    )


class Stranger:
    """A plugin with planners, good and bad, and a say in which normalizer a channel gets."""

    @hookimpl
    def segplug_planners(self) -> Iterable[Component[Any]]:
        yield Component("thick", plan_thick, "default, other batch")
        yield Component("lost", lambda fingerprint, dataset, budget: None, "returns nothing")
        yield Component("unknown_parts", self.unknown_parts, "names what is not there")
        yield Component("contradictory", self.contradictory, "one normalizer for two channels")

    @hookimpl
    def segplug_choose_normalizer(self, channel_name: str) -> str | None:
        return "rescale_to_0_1" if channel_name == "CT" else None

    @staticmethod
    def unknown_parts(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget) -> Plan:
        made = plan_default(fingerprint, dataset, budget)
        flat = replace(made.configurations["2d"], architecture=ComponentRef("plane_unet"))
        recipe = ComponentRef("short", {"optimizer": {"name": "adamv"}})
        return replace(made, configurations={**made.configurations, "2d": flat}, training={"": recipe})

    @staticmethod
    def contradictory(fingerprint: Fingerprint, dataset: DatasetDescription, budget: Budget) -> Plan:
        made = plan_default(fingerprint, dataset, budget)
        flat = replace(made.configurations["2d"], normalization=(ComponentRef("zscore"),), previous_stage="3d_lowest")
        return replace(made, configurations={"2d": flat})


@pytest.fixture
def stranger(project: Project) -> None:
    project.kernel.register(Stranger(), "stranger")


class TestWhatIsWritten:
    def test_plans_dataset_json_and_provenance(self, project: Project, measured: str) -> None:
        made = plan(project, measured)
        folder = project.workspace.preprocessed_folder(measured)
        assert read_plan(folder / "nnUNetPlans.json") == made
        raw = project.workspace.raw_folder(measured)
        assert (folder / "dataset.json").read_bytes() == (raw / "dataset.json").read_bytes()
        used = {(entry["kind"], entry["name"]) for entry in made.provenance}
        assert {
            ("planners", "default"),
            ("readers", "SimpleITKIO"),
            ("normalizers", "ZScoreNormalization"),
            ("normalizers", "CTNormalization"),
            ("resamplers", "resample_data_or_seg_to_shape"),
            ("architectures", "dynamic_network_architectures.architectures.unet.PlainConvUNet"),
        } == used
        assert {entry["plugin"] for entry in made.provenance} == {"builtin"}

    def test_outside_the_segplug_key_there_is_nothing_new_to_nnunet(
        self, project: Project, measured: str, shared: Path
    ) -> None:
        plan(project, measured, planner="compact")
        written = json.loads((project.workspace.plans_file(measured, "segplugCompactPlans")).read_text())
        reference = json.loads((shared / "reference" / "Dataset004_Hippocampus" / "nnUNetPlans.json").read_text())
        assert set(written) - {"segplug"} == set(reference)
        for name in ("2d", "3d_fullres"):
            assert set(written["configurations"][name]) == set(reference["configurations"][name])

    def test_an_unchanged_file_is_left_alone(self, project: Project, measured: str) -> None:
        plan(project, measured)
        file = project.workspace.plans_file(measured, "nnUNetPlans")
        before = file.stat().st_mtime_ns
        plan(project, measured)
        assert file.stat().st_mtime_ns == before

    def test_real_data_set_end_to_end(self, shared: Path, real_dataset: str, tmp_path: Path) -> None:
        (tmp_path / real_dataset).mkdir()
        reference = shared / "reference" / real_dataset
        shutil.copy(reference / "dataset_fingerprint.json", tmp_path / real_dataset)
        with open_project(shared / "datasets", tmp_path, workers=0) as project:
            made = encode_plan(plan(project, real_dataset, planner="nnUNetPlannerResEncL"))
        del made["segplug"]
        assert made == json.loads((reference / "nnUNetResEncUNetLPlans.json").read_text())


class TestWhatIsKept:
    def test_configurations_added_by_hand_inherit_from_the_new_plan(self, project: Project, measured: str) -> None:
        plan(project, measured)
        file = project.workspace.plans_file(measured, "nnUNetPlans")
        raw = json.loads(file.read_text())
        raw["configurations"]["mine"] = {"inherits_from": "3d_fullres", "batch_size": 17, "note": "by hand"}
        raw["configurations"]["3d_fullres"]["batch_size"] = 99
        raw["segplug"]["training"] = {"mine": {"name": "short", "options": {"epochs": 5}}}
        raw["segplug"]["options"] = {"normalization": {"mine": [{}, {"some": 1}]}}
        file.write_text(json.dumps(raw))
        made = plan(project, measured, spacing=(2.5, 2.0, 2.0))
        mine = made.configurations["mine"]
        assert (mine.batch_size, mine.extra) == (17, {"note": "by hand"})
        assert mine.spacing == made.configurations["3d_fullres"].spacing == (2.5, 2.0, 2.0)
        assert made.configurations["3d_fullres"].batch_size != 99
        written = json.loads(file.read_text())
        assert written["configurations"]["mine"] == raw["configurations"]["mine"]
        assert made.recipe("mine") == ComponentRef("short", {"epochs": 5})
        assert mine.normalization[1].options == {"some": 1}
        assert made.recipe("3d_fullres") is None

    @pytest.mark.parametrize("content", ["{", '{"configurations": {"mine": {}}}'])
    def test_a_damaged_file_is_not_overwritten(self, project: Project, measured: str, content: str) -> None:
        file = project.workspace.plans_file(measured, "nnUNetPlans")
        file.write_text(content)
        with pytest.raises(DataError, match=r"nnUNetPlans\.json"):
            plan(project, measured)
        assert file.read_text() == content

    def test_splits_of_the_raw_data_set_are_taken_over(self, project: Project, measured: str) -> None:
        raw = project.workspace.raw_folder(measured) / "splits_final.json"
        raw.write_text('[{"train": ["phantom_000"], "val": ["phantom_001"]}]')
        plan(project, measured)
        assert project.workspace.splits_file(measured).read_text() == raw.read_text()
        raw.write_text('[{"train": ["phantom_002"], "val": ["phantom_001"]}]')
        with pytest.raises(DataError, match="fold 0 is not that of"):
            plan(project, measured)


class TestRefusals:
    def test_a_missing_fingerprint(self, project: Project, phantom: str) -> None:
        with pytest.raises(DataError, match="Run: segplug fingerprint Dataset501_Phantom"):
            plan(project, phantom)

    def test_a_changed_data_set_is_warned_of(self, project: Project, measured: str) -> None:
        (project.workspace.raw_folder(measured) / "labelsTr" / "phantom_000.nii.gz").touch()
        with pytest.warns(UserWarning, match="out of date: files of"):
            plan(project, measured)

    @pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "dataset", "splits_final", "a b"])
    def test_a_name_that_is_none_for_a_plans_file(self, project: Project, measured: str, name: str) -> None:
        with pytest.raises(UsageError, match=r"plans name .* and none of dataset, dataset_fingerprint, splits_final"):
            plan(project, measured, plans_name=name)

    def test_an_unknown_planner(self, project: Project, measured: str) -> None:
        with pytest.raises(UsageError, match=r"planner: .*'compcat' among the planners\. Did you mean 'compact'"):
            plan(project, measured, planner="compcat")

    @pytest.mark.usefixtures("stranger")
    def test_components_that_do_not_exist_are_all_named(self, project: Project, measured: str) -> None:
        with pytest.raises(PluginError) as caught:
            plan(project, measured, planner="unknown_parts")
        told = str(caught.value)
        assert (
            "configuration '2d': no component 'plane_unet' among the architectures. Did you mean 'plain_unet'?" in told
        )
        assert "recipe of all configurations, optimizer: no component 'adamv' among the optimizers" in told
        assert not project.workspace.plans_file(measured, "nnUNetPlans").exists()

    @pytest.mark.usefixtures("stranger")
    def test_a_planner_that_returns_something_else(self, project: Project, measured: str) -> None:
        with pytest.raises(PluginError, match=r"'lost' returned a NoneType; expected a segplug\.model\.Plan"):
            plan(project, measured, planner="lost")

    @pytest.mark.usefixtures("stranger")
    def test_a_plan_that_cannot_be(self, project: Project, measured: str) -> None:
        with pytest.raises(PluginError, match="1 normalizer for 2 channels; previous_stage of 2d is '3d_lowest'"):
            plan(project, measured, planner="contradictory")


class TestStrangers:
    @pytest.mark.usefixtures("stranger")
    def test_a_short_planner_changes_what_the_default_returns(self, project: Project, measured: str) -> None:
        made = plan(project, measured, planner=ComponentRef("thick", {"batch": 5}))
        assert made.plans_name == "ThickPlans"
        assert made.configurations["3d_fullres"].batch_size == 5
        assert ("trainers", "short") in {(e["kind"], e["name"]) for e in made.provenance}
        assert ("losses", "dice_ce") in {(e["kind"], e["name"]) for e in made.provenance}
        assert next(e for e in made.provenance if e["kind"] == "planners")["plugin"] == "stranger"

    @pytest.mark.usefixtures("stranger")
    def test_the_choice_hook_names_the_normalizer(self, project: Project, measured: str) -> None:
        names = [ref.name for ref in plan(project, measured).configurations["2d"].normalization]
        assert names == ["ZScoreNormalization", "RescaleTo01Normalization"]  # by the names nnU-Net knows


class TestFinding:
    def test_the_only_plans_are_meant_if_none_are_named(self, project: Project, measured: str) -> None:
        plan(project, measured, planner="compact")
        assert find_plan(project.workspace, measured).plans_name == "segplugCompactPlans"
        plan(project, measured, planner="resenc_m")
        with pytest.raises(UsageError, match="has several plans: nnUNetResEncUNetMPlans, segplugCompactPlans"):
            find_plan(project.workspace, measured)
        plan(project, measured)
        assert find_plan(project.workspace, measured).plans_name == "nnUNetPlans"
        assert find_plan(project.workspace, measured, "nnUNetResEncUNetMPlans").planner == "nnUNetPlannerResEncM"

    def test_what_is_not_there_is_told_with_what_is(self, project: Project, measured: str) -> None:
        with pytest.raises(UsageError, match=r"There are: none\. Make them: segplug plan"):
            find_plan(project.workspace, measured)
        made = plan(project, measured)
        with pytest.raises(UsageError, match="Did you mean --plans-name nnUNetPlans"):
            find_plan(project.workspace, measured, "nnUnetPlan")
        with pytest.raises(UsageError, match=r"no configuration '3d_fulres'\. Did you mean 3d_fullres"):
            find_configuration(made, "3d_fulres")


class TestCommand:
    def run(self, project: Project, *arguments: str) -> int:
        roots = ("--raw", str(project.workspace.raw), "--preprocessed", str(project.workspace.preprocessed))
        with pytest.raises(SystemExit) as exit_:
            main([*roots, "plan", *arguments])
        return int(exit_.value.code or 0)

    @pytest.mark.parametrize(
        "spacing", [["--spacing", "3,1.5,1"], ["--spacing", "3", "--spacing", "1.5", "--spacing", "1"]]
    )
    def test_options_reach_the_plan(self, project: Project, measured: str, spacing: list[str]) -> None:
        assert self.run(project, measured, "--memory-gb", "2", "--plans-name", "mine", *spacing) == 0
        made = read_plan(project.workspace.plans_file(measured, "mine"))
        assert made.configurations["3d_fullres"].spacing == (3.0, 1.5, 1.0)
        assert made.plans_name == "mine"

    @pytest.mark.parametrize("spacing", ["3,1", "a,b,c", "1,2,3,4"])
    def test_spacing_that_is_not_three_numbers_is_wrong_usage(
        self, project: Project, measured: str, spacing: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(project, measured, "--spacing", spacing) == 2
        assert "expected three numbers" in capsys.readouterr().err

    def test_a_missing_fingerprint_ends_with_1(
        self, project: Project, phantom: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(project, phantom) == 1
        assert "Traceback" not in capsys.readouterr().err

    def test_json_output(self, project: Project, measured: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(project, measured, "--format", "json") == 0
        rows = json.loads(capsys.readouterr().out)
        assert [row["configuration"] for row in rows] == ["2d", "3d_fullres"]
