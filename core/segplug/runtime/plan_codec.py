"""`<plans_name>.json` <-> `Plan`.

The file is nnU-Net's. What nnU-Net has no word for stands under its `segplug` key:

    "segplug": {
        "training": {"*": {"name": "short", "options": {...}}, "2d": {...}},  recipe per configuration, * for all others
        "options": {"reader": {...}, "normalization": {"2d": [{...}, ...]}},  options of components named above
        "provenance": [{"kind": ..., "name": ..., "plugin": ..., "distribution": ..., "version": ...}, ...]
    }
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segplug.errors import DataError
from segplug.model import ComponentRef, Configuration, Plan
from segplug.runtime.files import read_json, write_json
from segplug.runtime.fingerprint_codec import CHANNELS, OLD_CHANNELS, decode_channels, encode_channels
from segplug.runtime.old_plans import convert, is_old
from segplug.runtime.plan_checks import check_plan

EXTENSION = "segplug"
EVERY = "*"
"""On disk, the recipe of every configuration without one of its own; `""` in memory."""

_GLOBAL = (
    "dataset_name",
    "plans_name",
    "original_median_spacing_after_transp",
    "original_median_shape_after_transp",
    "image_reader_writer",
    "transpose_forward",
    "transpose_backward",
    "configurations",
    "experiment_planner_used",
    "label_manager",
)
_CONFIGURATION = frozenset(
    (
        "data_identifier",
        "preprocessor_name",
        "batch_size",
        "patch_size",
        "median_image_size_in_voxels",
        "spacing",
        "normalization_schemes",
        "use_mask_for_norm",
        "resampling_fn_data",
        "resampling_fn_seg",
        "resampling_fn_probabilities",
        "resampling_fn_data_kwargs",
        "resampling_fn_seg_kwargs",
        "resampling_fn_probabilities_kwargs",
        "architecture",
        "batch_dice",
        "previous_stage",
        "next_stage",
        "inherits_from",
    )
)
Entry = Mapping[str, Any]


def read_plan(path: Path) -> Plan:
    """Read a plans file.

    Raises:
        DataError: see `decode_plan`; also if the file is missing or no JSON.
    """
    return decode_plan(read_json(path), path)


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plans file, whole or not at all."""
    write_json(path, encode_plan(plan))


def decode_plan(raw: Entry, source: Path) -> Plan:
    """Turn the content of the plans file `source` into a `Plan`; inheritance is resolved, old plans are converted.

    Raises:
        DataError: an entry is missing or of another form (see `check_plan`), a configuration inherits from one that is
            not there or from itself. The message names file, configuration and entry.
    """
    try:
        entries: Mapping[str, Entry] = raw["configurations"]
        ours: Entry = raw.get(EXTENSION, {})
        options: Entry = ours.get("options", {})
        plan = Plan(
            dataset_name=raw["dataset_name"],
            plans_name=raw["plans_name"],
            original_median_spacing=tuple(raw["original_median_spacing_after_transp"]),
            original_median_shape=tuple(raw["original_median_shape_after_transp"]),
            reader=ComponentRef(raw["image_reader_writer"], options.get("reader", {})),
            transpose_forward=tuple(raw["transpose_forward"]),
            transpose_backward=tuple(raw["transpose_backward"]),
            configurations={
                name: _decode_configuration(name, entries, options.get("normalization", {}), source) for name in entries
            },
            planner=raw["experiment_planner_used"],
            channels=decode_channels(raw, source),
            label_manager=raw.get("label_manager", "LabelManager"),
            training={"" if k == EVERY else k: _decode_ref(v) for k, v in ours.get("training", {}).items()},
            provenance=tuple(ours.get("provenance", ())),
            extra={k: v for k, v in raw.items() if k not in (*_GLOBAL, CHANNELS, OLD_CHANNELS, EXTENSION)},
            segplug_extra={k: v for k, v in ours.items() if k not in ("training", "options", "provenance")},
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{source}: not a plans file: {_told(error)}. Mend it by hand or plan again") from None
    check_plan(plan, source)
    return plan


def encode_plan(plan: Plan) -> dict[str, Any]:
    """The file's content as JSON values, in nnU-Net's order.

    Raises:
        DataError: a configuration inherits from one that the plan does not have.
    """
    raw = {
        "dataset_name": plan.dataset_name,
        "plans_name": plan.plans_name,
        "original_median_spacing_after_transp": _json(plan.original_median_spacing),
        "original_median_shape_after_transp": _json(plan.original_median_shape),
        "image_reader_writer": plan.reader.name,
        "transpose_forward": _json(plan.transpose_forward),
        "transpose_backward": _json(plan.transpose_backward),
        "configurations": {name: _encode_configuration(name, plan) for name in plan.configurations},
        "experiment_planner_used": plan.planner,
        "label_manager": plan.label_manager,
        CHANNELS: encode_channels(plan.channels),
        **_json(plan.extra),
    }
    ours = _encode_extension(plan)
    return {**raw, EXTENSION: ours} if ours else raw


# --- one configuration ---------------------------------------------------------------------------------------------


def _decode_configuration(
    name: str, entries: Mapping[str, Entry], normalization_options: Mapping[str, Any], source: Path
) -> Configuration:
    where = f"{source}: configuration {name!r}"
    chain = _ancestry(name, entries, where)
    entry: dict[str, Any] = {}
    for ancestor in reversed(chain):
        entry.update(entries[ancestor])
    if is_old(entry):
        entry = convert(entry, where)
    # the options belong to the schemes: they come from the configuration that names the schemes, or one below it
    owner = next((a for a in chain if "normalization_schemes" in entries[a] or a in normalization_options), name)
    try:
        schemes = entry["normalization_schemes"]
        own_options = normalization_options.get(owner, [{}] * len(schemes))
        architecture = entry["architecture"]
        return Configuration(
            name=name,
            data_identifier=entry["data_identifier"],
            batch_size=entry["batch_size"],
            patch_size=tuple(entry["patch_size"]),
            median_shape=tuple(entry.get("median_image_size_in_voxels", ())),
            spacing=tuple(entry["spacing"]),
            normalization=tuple(ComponentRef(n, o) for n, o in zip(schemes, own_options, strict=True)),
            use_mask_for_norm=tuple(entry["use_mask_for_norm"]),
            resample_data=_resampler(entry, "data"),
            resample_seg=_resampler(entry, "seg"),
            resample_probabilities=_resampler(entry, "probabilities"),
            architecture=ComponentRef(architecture["network_class_name"], architecture["arch_kwargs"]),
            architecture_imports=tuple(architecture.get("_kw_requires_import", ())),
            batch_dice=entry["batch_dice"],
            preprocessor=entry.get("preprocessor_name", "DefaultPreprocessor"),
            previous_stage=entry.get("previous_stage"),
            next_stage=_names(entry.get("next_stage")),
            inherits_from=entry.get("inherits_from"),
            extra={key: value for key, value in entry.items() if key not in _CONFIGURATION},
            as_written={key: value for key, value in entries[name].items() if key in entry},
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{where}: {_told(error)}. Mend it by hand or plan again") from None


def _ancestry(name: str, entries: Mapping[str, Entry], where: str) -> list[str]:
    """The configuration and those that it inherits from, nearest first."""
    chain = [name]
    while (parent := entries[chain[-1]].get("inherits_from")) is not None:
        if parent in chain:
            raise DataError(f"{where} inherits from itself: {' -> '.join([*chain, parent])}. Break the circle")
        if parent not in entries:
            raise DataError(
                f"{where}: {chain[-1]!r} inherits from {parent!r}, which is not there. There are: {', '.join(entries)}"
            )
        chain.append(parent)
    return chain


def _encode_configuration(name: str, plan: Plan) -> dict[str, Any]:
    configuration = plan.configurations[name]
    entry = _full_entry(configuration)
    written = configuration.as_written
    if written.get("inherits_from") != configuration.inherits_from:
        written = {}  # copied from a configuration that stood elsewhere in the file
    own = {key: _spelled(value, entry.get(key)) for key, value in written.items() if key in entry or value is None}
    if configuration.inherits_from is None:
        return {**own, **{key: value for key, value in entry.items() if key not in own}}
    parent = plan.configurations.get(configuration.inherits_from)
    if parent is None:
        raise DataError(
            f"plan {plan.plans_name!r}: configuration {name!r} inherits from {configuration.inherits_from!r}, which is "
            f"not there. There are: {', '.join(plan.configurations)}"
        )
    inherited = {key: value for key, value in _full_entry(parent).items() if key != "inherits_from"}
    own = own or {"inherits_from": configuration.inherits_from}
    for key, value in entry.items():
        if key not in own and (key not in inherited or inherited[key] != value):
            own[key] = value
    # null takes an inherited stage away again
    own.update({key: None for key in ("previous_stage", "next_stage") if key in inherited and key not in entry})
    return own


def _full_entry(configuration: Configuration) -> dict[str, Any]:
    """Everything in a configuration, inherited or not, in nnU-Net's order."""
    c = configuration
    entry: dict[str, Any] = {} if c.inherits_from is None else {"inherits_from": c.inherits_from}
    entry.update(
        {
            "data_identifier": c.data_identifier,
            "preprocessor_name": c.preprocessor,
            "batch_size": c.batch_size,
            "patch_size": c.patch_size,
            "median_image_size_in_voxels": c.median_shape,
            "spacing": c.spacing,
            "normalization_schemes": [ref.name for ref in c.normalization],
            "use_mask_for_norm": c.use_mask_for_norm,
            "resampling_fn_data": c.resample_data.name,
            "resampling_fn_seg": c.resample_seg.name,
            "resampling_fn_data_kwargs": c.resample_data.options,
            "resampling_fn_seg_kwargs": c.resample_seg.options,
            "resampling_fn_probabilities": c.resample_probabilities.name,
            "resampling_fn_probabilities_kwargs": c.resample_probabilities.options,
            "architecture": {
                "network_class_name": c.architecture.name,
                "arch_kwargs": c.architecture.options,
                "_kw_requires_import": c.architecture_imports,
            },
            "batch_dice": c.batch_dice,
        }
    )
    if c.next_stage:
        entry["next_stage"] = c.next_stage[0] if len(c.next_stage) == 1 else c.next_stage
    if c.previous_stage is not None:
        entry["previous_stage"] = c.previous_stage
    return _json({**entry, **c.extra})  # type: ignore[no-any-return]


def _spelled(written: Any, now: Any) -> Any:
    """The value as it stood in the file if it says the same as now, else as it is now."""
    if isinstance(written, list) and isinstance(now, str):
        return written if written == [now] else now
    if isinstance(written, Mapping) and isinstance(now, Mapping) and all(written.get(k) == v for k, v in now.items()):
        return written
    return now


# --- what nnU-Net has no word for ----------------------------------------------------------------------------------


def _encode_extension(plan: Plan) -> dict[str, Any]:
    normalization = {}
    for name, configuration in plan.configurations.items():
        parent = plan.configurations.get(configuration.inherits_from or "")
        given = [_json(ref.options) for ref in configuration.normalization]
        if any(given) and not (parent and parent.normalization == configuration.normalization):
            normalization[name] = given
    options = {"reader": _json(plan.reader.options), "normalization": normalization}
    training = {name or EVERY: {"name": ref.name, "options": _json(ref.options)} for name, ref in plan.training.items()}
    parts = {
        "training": training,
        "options": {key: value for key, value in options.items() if value},
        "provenance": _json(plan.provenance),
    }
    return {**{key: value for key, value in parts.items() if value}, **_json(plan.segplug_extra)}


def _decode_ref(raw: Any) -> ComponentRef:
    return ComponentRef(raw) if isinstance(raw, str) else ComponentRef(raw["name"], raw.get("options", {}))


def _resampler(entry: Entry, what: str) -> ComponentRef:
    return ComponentRef(entry[f"resampling_fn_{what}"], entry.get(f"resampling_fn_{what}_kwargs") or {})


def _names(value: str | list[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _json(value: Any) -> Any:
    """Plain dicts, lists and Python numbers, copied."""
    if isinstance(value, Mapping):
        return {key: _json(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(v) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _told(error: Exception) -> str:
    return f"no entry {error}" if isinstance(error, KeyError) else str(error)
