"""Every path of a data set, its preprocessed cases and its models, in nnU-Net's layout."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from segplug.errors import UsageError


@dataclass(frozen=True)
class Workspace:
    """The three roots nnU-Net users know (`nnUNet_raw`, `nnUNet_preprocessed`, `nnUNet_results`).

    A root may be None as long as nothing asks for it.
    """

    raw: Path | None = None
    preprocessed: Path | None = None
    results: Path | None = None

    def dataset_name(self, dataset: str | int | Path) -> str:
        """The name `DatasetXXX_NAME` for an id, a name or a path.

        Raises:
            UsageError: there is none or there are several; the message lists what exists.
        """
        text = str(dataset)
        if _looks_like_path(text):
            return Path(text).resolve().name
        known = self.datasets()
        if text in known:
            return text
        if text.isdecimal():
            found = [n for n in known if n.startswith(f"Dataset{int(text):03d}_")]
            if len(found) == 1:
                return found[0]
            if found:
                raise UsageError(f"data set {text}: several have this id: {', '.join(found)}. Name one in full")
        near = get_close_matches(text, known, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]}?" if near else ""
        where = ", ".join(str(r) for r in (self.raw, self.preprocessed, self.results) if r is not None)
        raise UsageError(
            f"no data set {text!r} in {where or 'any folder: none is set (nnUNet_raw or --raw)'}.{hint} "
            f"There are: {', '.join(known) or 'none'}"
        )

    def datasets(self) -> list[str]:
        """Names of all data sets in any of the roots."""
        found = set()
        for root in (self.raw, self.preprocessed, self.results):
            if root is not None and root.is_dir():
                found |= {p.name for p in root.iterdir() if re.fullmatch(r"Dataset\d+_.+", p.name) and p.is_dir()}
        return sorted(found)

    def raw_folder(self, dataset: str | int | Path) -> Path:
        """Folder of the raw data set; a path is taken as it is."""
        if _looks_like_path(str(dataset)):
            return Path(str(dataset)).resolve()
        return self._root("raw") / self.dataset_name(dataset)

    def new_raw_folder(self, name: str) -> Path:
        """Where a raw data set of this name is to be made."""
        return self._root("raw") / name

    def preprocessed_folder(self, dataset: str) -> Path:
        return self._root("preprocessed") / dataset

    def fingerprint_file(self, dataset: str) -> Path:
        return self.preprocessed_folder(dataset) / "dataset_fingerprint.json"

    def plans_file(self, dataset: str, plans_name: str) -> Path:
        return self.preprocessed_folder(dataset) / f"{plans_name}.json"

    def splits_file(self, dataset: str) -> Path:
        return self.preprocessed_folder(dataset) / "splits_final.json"

    def store_folder(self, dataset: str, data_identifier: str) -> Path:
        return self.preprocessed_folder(dataset) / data_identifier

    def reference_folder(self, dataset: str) -> Path:
        """Copies of the training label maps, in the raw geometry."""
        return self.preprocessed_folder(dataset) / "gt_segmentations"

    def model_folder(self, dataset: str, trainer: str, plans_name: str, configuration: str) -> Path:
        return self._root("results") / dataset / f"{trainer}__{plans_name}__{configuration}"

    def fold_folder(self, dataset: str, trainer: str, plans_name: str, configuration: str, fold: int | str) -> Path:
        return self.model_folder(dataset, trainer, plans_name, configuration) / f"fold_{fold}"

    def results_folder(self, dataset: str) -> Path:
        """Everything that was trained on a data set."""
        return self._root("results") / dataset

    def ensemble_folder(self, dataset: str, name: str) -> Path:
        """Where the cross-validation of an ensemble is; see `segplug.runtime.model_names`."""
        return self.results_folder(dataset) / "ensembles" / name

    def choice_file(self, dataset: str) -> Path:
        """Which model or ensemble is best."""
        return self.results_folder(dataset) / "inference_information.json"

    def instructions_file(self, dataset: str) -> Path:
        """How to predict with it, for people."""
        return self.results_folder(dataset) / "inference_instructions.txt"

    def _root(self, which: str) -> Path:
        root: Path | None = getattr(self, which)
        if root is None:
            raise UsageError(
                f"the folder for {which} data is not set: segplug --{which} DIR COMMAND, {which} under [paths] in "
                "segplug.toml, "
                f"or set SEGPLUG_{which.upper()} or nnUNet_{which}"
            )
        return root


def _looks_like_path(text: str) -> bool:
    return "/" in text or "\\" in text or text in (".", "..")
