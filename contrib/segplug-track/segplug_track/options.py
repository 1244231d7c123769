"""Options of the plugin: the table [options.track] of segplug.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any

TENSORBOARD = "tensorboard"
MLFLOW = "mlflow"


@dataclass(frozen=True)
class Options:
    """Where trainings are tracked.

    Args:
        tensorboard: whether event files are written to `tracking/tensorboard` beside the checkpoints; None: where
            TensorBoard is installed.
        mlflow: tracking URI (`sqlite:////home/me/mlflow.db`, `https://server`), or None for none.
        experiment: MLflow's experiment, made if missing.
        artifacts: URI or absolute folder of a new experiment's artifacts; None for `mlartifacts` beside an SQLite
            database, else MLflow's own rule.
        patience: seconds that the end of a training or of the program waits for what is not yet delivered.
    """

    tensorboard: bool | None = None
    mlflow: str | None = None
    experiment: str = "segplug"
    artifacts: str | None = None
    patience: float = 30.0

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Options out of a table.

        Raises:
            ValueError: one does not exist, or is of another type.
        """
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise ValueError(f"no option {', '.join(unknown)}; there are: {', '.join(names)}")
        for name, value in given.items():
            kinds, expected = _EXPECTED[name]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds) or value == "":
                raise ValueError(f"{name} is {value!r}; expected {expected}")
        options = cls(**given)
        if not 0 <= options.patience < float("inf"):
            raise ValueError(f"patience is {options.patience}; expected seconds, 0 or more")
        if options.mlflow is not None and _is_relative(options.mlflow):
            # every folder that the program is called in would have a store of its own
            raise ValueError(f"mlflow is {options.mlflow!r}, a relative path; expected {_EXPECTED[MLFLOW][1]}")
        return options

    @property
    def destinations(self) -> tuple[str, ...]:
        """Which are in use, of `tensorboard` and `mlflow`. Nothing is imported to find out."""
        tensorboard = find_spec(TENSORBOARD) is not None if self.tensorboard is None else self.tensorboard
        used = {TENSORBOARD: tensorboard, MLFLOW: self.mlflow is not None}
        return tuple(name for name, is_used in used.items() if is_used)

    @property
    def artifact_location(self) -> str | None:
        """Of a new experiment in MLflow; None for its own rule."""
        if self.artifacts is None and self.mlflow is not None and self.mlflow.startswith("sqlite:///"):
            return f"{self.mlflow.removeprefix('sqlite:///').rpartition('/')[0]}/mlartifacts"
        return self.artifacts


def _is_relative(uri: str) -> bool:
    if uri.startswith("sqlite:"):
        path = uri.removeprefix("sqlite:///")
        return not (path.startswith("/") or path[1:2] == ":")
    return not (":" in uri or uri.startswith("/"))


_EXPECTED: dict[str, tuple[tuple[type, ...], str]] = {
    TENSORBOARD: ((bool,), "true or false"),
    MLFLOW: ((str,), "a tracking URI such as https://server or sqlite:////home/me/mlflow.db"),
    "experiment": ((str,), "a name"),
    "artifacts": ((str,), "a URI or an absolute folder"),
    "patience": ((int, float), "a number of seconds"),
}
