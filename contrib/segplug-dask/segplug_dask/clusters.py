"""Clusters by description: processes of this machine, or jobs of SLURM, PBS or LSF."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segplug.errors import UsageError

JOB_SYSTEMS = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster"}
"""Kind -> class of dask_jobqueue."""

KINDS = ("local", *JOB_SYSTEMS)
_LOCAL = ("memory",)


def read_description(cluster: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """A cluster's description: `kind`, and options of its kind.

    Args:
        cluster: a TOML or YAML file (relative to the current folder), or what would stand in it; None for processes of
            this machine.

    Raises:
        UsageError: the file is not there or not readable, or the kind is unknown.
    """
    where = "cluster"
    if cluster is None:
        return {"kind": "local"}
    if isinstance(cluster, str):
        where, cluster = cluster, _read(Path(cluster).expanduser())
    if not isinstance(cluster, Mapping):
        raise UsageError(f"{where}: found {type(cluster).__name__}; expected a table with 'kind' and its options")
    kind = cluster.get("kind")
    if kind not in KINDS:
        raise UsageError(f"{where}: kind is {kind!r}; expected one of {', '.join(KINDS)}")
    return dict(cluster)


def start(description: Mapping[str, Any], count: int, resources: Mapping[str, float], retries: int) -> Any:
    """Start a cluster with its scheduler in this process, and ask for workers of one thread each.

    Args:
        count: number of workers; of a job system, as many jobs are sent as they need.
        resources: that each worker offers, such as ``{"GPU": 1}``.
        retries: how often a task begins anew after the worker that ran it died.

    Raises:
        UsageError: the kind does not take an option.
    """
    import dask

    own: dict[str, Any] = {
        "distributed.scheduler.allowed-failures": retries,
        "distributed.scheduler.worker-saturation": 1.0,  # nothing waits on a worker: one that dies takes one task along
    }
    with dask.config.set(own):
        if description["kind"] == "local":
            return _local(description, count, resources)
        cluster = job_cluster(description, resources)
        cluster.scale(count)
        return cluster


def job_cluster(description: Mapping[str, Any], resources: Mapping[str, float]) -> Any:
    """A cluster of jobs, of which none is sent yet. `job_script()` of it is what would be sent.

    Raises:
        UsageError: the job system does not take an option.
    """
    import dask_jobqueue

    kind = description["kind"]
    if kind not in JOB_SYSTEMS:
        raise UsageError(f"cluster kind {kind!r} has no job scripts; expected one of {', '.join(JOB_SYSTEMS)}")
    options = {name: value for name, value in description.items() if name != "kind"}
    extra = [*options.pop("worker_extra_args", []), "--nthreads", "1"]
    if resources:
        extra += ["--resources", ",".join(f"{name}={amount:g}" for name, amount in resources.items())]
    options.setdefault("scheduler_options", {"dashboard_address": None})
    try:
        return getattr(dask_jobqueue, JOB_SYSTEMS[kind])(worker_extra_args=extra, **options)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"cluster kind {kind!r} cannot be made from {options}: {error}. It takes the options of "
            f"dask_jobqueue.{JOB_SYSTEMS[kind]}, cores and memory among them"
        ) from None


def _local(description: Mapping[str, Any], count: int, resources: Mapping[str, float]) -> Any:
    import logging

    from distributed import LocalCluster

    unknown = sorted(set(description) - {"kind", *_LOCAL})
    if unknown:
        raise UsageError(f"cluster kind 'local' has no option {', '.join(unknown)}; it takes: {', '.join(_LOCAL)}")
    return LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        processes=True,
        memory_limit=description.get("memory", 0),
        resources=dict(resources),
        dashboard_address=None,
        silence_logs=logging.CRITICAL,  # of workers that die the outcomes tell
    )


def _read(file: Path) -> Any:
    import yaml

    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{file}: no such cluster file") from None
    try:
        return tomllib.loads(text) if file.suffix == ".toml" else yaml.safe_load(text)
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{file}: neither TOML (.toml) nor YAML: {error}") from None
