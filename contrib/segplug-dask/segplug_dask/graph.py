"""Commands that depend on each other, as a graph of dask tasks."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from segplug.errors import UsageError
from segplug_dask.commands_there import Place, run_command
from segplug_dask.executor import POLL, DaskExecutor, error_of


@dataclass(frozen=True)
class Node:
    """One command.

    Args:
        name: for people; no other node of the graph has it.
        arguments: as behind `segplug` on a command line.
        needs: nodes that have to succeed before.
    """

    name: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    """What became of a graph.

    Args:
        printed: node -> what its command printed.
        failed: node -> why it failed; those that were not begun because of another one among them.
    """

    printed: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


def training_graph(
    dataset: str,
    previous: Mapping[str, str | None],
    wanted: Sequence[str],
    folds: Sequence[str],
    every_fold: Sequence[str],
    options: Sequence[str],
) -> list[Node]:
    """One training per configuration and fold, those that are needed first.

    A stage of a cascade takes the predictions of each case by a fold of the stage before that has not seen it: its
    trainings follow all folds of that stage, which are added where they were not asked for.

    Args:
        previous: each configuration of the plan -> the one that it builds on.
        wanted: names to be trained.
        folds: to be trained of these; `every_fold` of those that others build on.
        options: of each training.

    Raises:
        UsageError: a configuration is not in the plan.
    """
    unknown = [name for name in wanted if name not in previous]
    if unknown:
        raise UsageError(f"no configuration {', '.join(unknown)} in the plan; there are: {', '.join(previous)}")
    ordered: list[str] = []
    for name in wanted:
        chain: list[str] = []
        stage: str | None = name
        while stage is not None and stage not in chain:
            chain.append(stage)
            stage = previous[stage]
        ordered += [each for each in reversed(chain) if each not in ordered]
    built_on = {previous[name] for name in ordered}
    nodes: list[Node] = []
    for name in ordered:
        before = previous[name]
        needs = tuple(f"{before} fold {fold}" for fold in every_fold) if before else ()
        asked = folds if name in wanted else ()
        trained = dict.fromkeys([*(every_fold if name in built_on else ()), *asked])
        nodes += [Node(f"{name} fold {fold}", ("train", dataset, name, fold, *options), needs) for fold in trained]
    return nodes


def run_graph(executor: DaskExecutor, nodes: Sequence[Node], place: Place, told: Callable[[str, str], None]) -> Done:
    """Run all commands, each as soon as what it needs is done and a worker is free.

    A worker that dies costs its command a new beginning on another one, as often as the executor's retries say. A
    command that fails costs those that need it, and no other. Where there has been no worker for as long as the
    executor's patience says, what has not ended is given up.

    Args:
        nodes: in an order in which no node needs a later one.
        told: called with a node's name, and "" or why it failed, as nodes end.
    """
    client, watch = executor.client, executor.watch()
    needs = {node.name: node.needs for node in nodes}
    futures: dict[str, Any] = {}
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    for node in nodes:
        before = [futures[name] for name in node.needs]
        futures[node.name] = client.submit(
            run_command, place, node.arguments, *before, pure=False, resources=executor.resources or None
        )
    names = {future.key: name for name, future in futures.items()}
    for future in futures.values():
        future.add_done_callback(lambda done: ended.put(names[done.key]))
    printed: dict[str, str] = {}
    failed: dict[str, str] = {}
    try:
        while len(printed) + len(failed) < len(futures):
            try:
                name = ended.get(timeout=POLL)
            except queue.Empty:
                if not watch.given_up():
                    continue
                for name in [name for name in futures if name not in printed and name not in failed]:
                    failed[name] = str(watch.error(name))
                    told(name, failed[name])
                break
            error = error_of(futures[name], name)
            if error is None:
                printed[name] = futures[name].result()
            else:
                blamed = [each for each in needs[name] if futures[each].status == "error"]
                failed[name] = f"not begun, because {', '.join(blamed)} failed" if blamed else str(error)
            told(name, failed.get(name, ""))
    finally:
        client.cancel([future for future in futures.values() if not future.done()], force=True)
    return Done({n: printed[n] for n in futures if n in printed}, {n: failed[n] for n in futures if n in failed})
