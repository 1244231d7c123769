"""Predict with what was chosen for a data set: every member and fold, their ensemble, and the postprocessing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segplug.errors import DataError, UsageError
from segplug.model import Case, Choice, Prediction
from segplug.protocols import PredictionSettings
from segplug.runtime.case_reading import read_labels
from segplug.runtime.choice_codec import chosen_parts
from segplug.runtime.files import copy
from segplug.runtime.folder_lock import working_in
from segplug.runtime.parts import WHOLE, Part
from segplug.runtime.postprocessing_file import build_postprocessor, has_steps, read_decision
from segplug.runtime.prediction_engine import Engine
from segplug.runtime.prediction_folder import FolderDescription, describe_folder
from segplug.runtime.prediction_output import MANIFESTS, PredictionOutput, input_hashes
from segplug.runtime.project import Project
from segplug.runtime.raw_dataset import scan_cases
from segplug.stages.ensemble import ensemble_cases
from segplug.stages.predict import FolderPrediction, predict_folder, require_image_folder

if TYPE_CHECKING:
    from segplug.runtime.trained_model import TrainedModel

STAGE = "predict with the choice"
CASES_AT_ONCE = 8
"""Cases whose probabilities lie on the disk at the same time."""


def predict_choice(
    project: Project,
    source: Path,
    target: Path,
    choice: Choice,
    *,
    settings: PredictionSettings | None = None,
    predictor: str = "torch",
    continue_: bool = False,
    part: Part = WHOLE,
) -> FolderPrediction:
    """Predict every case in a folder of images with a choice: `select` in the past, all its steps in one go.

    A few cases at a time go through all steps; what they need on the way lies in `target/.segplug/members` and is gone
    afterwards.

    Args:
        source: folder of images named CASE_0000.ext.
        target: folder to write to, made if missing.
        choice: from `segplug.stages.select.select` or `segplug.runtime.choice_codec.read_choice`.
        settings: None for the defaults. Probabilities cannot be kept.
        predictor: name of the inference engine.
        continue_: keep what is whole and was made from the same images by the same choice and settings.
        part: see `segplug.stages.predict.predict_folder`.

    Raises:
        UsageError: a folder or model is not there, or probabilities are asked for.
        CheckpointError, PluginError: see `segplug.stages.predict.predict_folder`.
        DataError: cases could not be predicted; all of them are told, after the others have been written.
    """
    settings = settings or PredictionSettings()
    if settings.save_probabilities:
        raise UsageError(
            "--save-probabilities: a choice's postprocessing changes label maps only, so its result has none"
        )
    decision, _ = read_decision(choice.postprocessing)
    if len(choice.members) == 1 and not has_steps(decision):
        return predict_folder(
            project,
            source,
            target,
            choice.members[0],
            folds=choice.folds,
            settings=settings,
            predictor=predictor,
            continue_=continue_,
            part=part,
        )
    require_image_folder(source)
    if source.resolve() == target.resolve():
        raise UsageError(f"{target}: images and predictions cannot share a folder")
    work = _Work(project, choice, settings, predictor, target, decision, part)
    dataset = work.described.dataset
    cases, findings = scan_cases(source, dataset.file_ending, dataset.num_channels)
    wrong = {f.case or str(f.file): str(f).removeprefix("error: ") for f in findings if f.is_error}
    if not cases and not wrong:
        raise DataError(f"{source}: no images; expected files named CASE_0000{dataset.file_ending}")
    mine = part.of(sorted({*cases, *wrong}))
    cases = {name: case for name, case in cases.items() if name in mine}
    failures = [text for name, text in wrong.items() if name in mine]
    predicted: list[str] = []
    kept: list[str] = []
    with working_in(target, part), project.stage(STAGE, f"{source} -> {target}", len(cases)):
        work.described.copy_to(target)
        if not continue_:
            shutil.rmtree(work.scratch, ignore_errors=True)
        waiting = []
        for case in cases.values():
            if continue_ and work.is_done(case):
                kept.append(case.name)
            else:
                waiting.append(case)
        for start in range(0, len(waiting), CASES_AT_ONCE):
            some = waiting[start : start + CASES_AT_ONCE]
            done, failed = work.predict(some)
            failures += failed
            predicted += done
            project.progress(STAGE, some[-1].name, len(predicted) + len(kept), len(cases))
        shutil.rmtree(work.scratch, ignore_errors=True)
        if failures:
            listed = "\n".join(f"  {text}" for text in dict.fromkeys(failures))
            left = len(mine) - len(predicted) - len(kept)
            raise DataError(f"{left} of {len(mine)} cases not predicted; all others are in {target}:\n{listed}")
    return FolderPrediction(target, tuple(predicted), tuple(kept))


class _Work:
    """The steps of a choice for a few cases."""

    def __init__(
        self,
        project: Project,
        choice: Choice,
        settings: PredictionSettings,
        predictor: str,
        target: Path,
        decision: Mapping[str, Any],
        part: Part,
    ) -> None:
        self.described: FolderDescription = describe_folder(project.kernel, choice.members[0])
        self.output = PredictionOutput(
            target, self.described.build_writer(project.kernel), self.described.dataset.file_ending
        )
        self.scratch = target / MANIFESTS / ("members" if part.whole else f"members-{part.number}-of-{part.count}")
        self._project = project
        self._folds = choice.folds
        self._settings = replace(settings, save_probabilities=len(choice.members) > 1)
        engines = [
            Engine(project, folder, folds=choice.folds, settings=self._settings, predictor=predictor)
            for folder in choice.members
        ]
        self._models: list[TrainedModel] = [engine.model for engine in engines]
        self._predictor = predictor
        self._decision = decision
        self._postprocessor = build_postprocessor(project.kernel.registry, choice.postprocessing)
        self._reader = self.described.build_reader(project.kernel)
        self._recipe = {"choice": chosen_parts(choice), "members": [engine.recipe for engine in engines]}

    def made_from(self, case: Case) -> dict[str, Any]:
        """What decides the result of a case."""
        return {**self._recipe, "images": input_hashes(case)}

    def is_done(self, case: Case) -> bool:
        """Whether an earlier run wrote the case, from the same images and with all else the same."""
        try:
            return self.output.is_whole(case.name, self.made_from(case))
        except DataError:  # an image cannot be read: predicting tells it with the case
            return False

    def predict(self, cases: Sequence[Case]) -> tuple[list[str], list[str]]:
        """Predict and write some cases: names of those that are done, and what is wrong with the others."""
        wrong: list[str] = []
        images = _linked(cases, self.scratch / "images")
        members = [self.scratch / f"member_{number}" for number, _ in enumerate(self._models)]
        for model, member in zip(self._models, members, strict=True):
            try:
                predict_folder(
                    self._project,
                    images,
                    member,
                    model,
                    folds=self._folds,
                    settings=self._settings,
                    predictor=self._predictor,
                    continue_=True,
                )
            except DataError as error:
                wrong.append(str(error))
        label_maps = members[0]
        made = [case for case in cases if all(self._is_there(case.name, member) for member in members)]
        if len(members) > 1 and made:
            label_maps = self.scratch / "ensemble"
            files = {case.name: [member / f"{case.name}.npz" for member in members] for case in made}
            shutil.rmtree(label_maps, ignore_errors=True)  # of a run that was killed
            try:
                ensemble_cases(self._project, files, label_maps, self.described)
            except DataError as error:
                wrong.append(str(error))
            ensembles = self.output.in_folder(label_maps)
            made = [case for case in made if ensembles.manifest_file(case.name).is_file()]  # written last
        done = []
        for case in cases:
            try:
                if case in made:
                    self._postprocess(case, label_maps)
                    done.append(case.name)
                    continue
            except DataError as error:
                wrong.append(f"{case.name}: {error}")
            self.output.discard(case.name)  # of an earlier run
        shutil.rmtree(self.scratch)
        return done, wrong

    def _postprocess(self, case: Case, label_maps: Path) -> None:
        predicted = read_labels(self._reader, label_maps / self.output.label_file(case.name).name)
        cleaned = self._postprocessor.apply(predicted, self._decision, self.described.dataset.labels)
        prediction = Prediction(cleaned)
        path = self.output.write(case.name, prediction, self.made_from(case))
        self._project.kernel.emit("segplug_case_predicted", case=case.name, prediction=prediction, path=path)

    def _is_there(self, case: str, member: Path) -> bool:
        return (member / self.output.label_file(case).name).exists()


def _linked(cases: Sequence[Case], folder: Path) -> Path:
    """A folder of these cases alone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for case in cases:
        beside = case.images[0].with_name(f"{case.name}.json")  # the spacing of a TIFF
        for file in [*case.images, *([beside] if beside.is_file() else [])]:
            try:
                os.symlink(file.resolve(), folder / file.name)
            except OSError:  # file systems and accounts without links
                copy(file, folder / file.name)
    return folder
