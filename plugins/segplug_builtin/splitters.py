"""Splitters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from segplug.errors import DataError
from segplug.model import Split

FOLDS = 5
SEED = 12345


def kfold(cases: Sequence[str], *, folds: int = FOLDS, seed: int = SEED) -> list[Split]:
    """Shuffled cross-validation: the folds that nnU-Net gets from scikit-learn's KFold.

    With fewer cases than folds (nnU-Net refuses) each case is validated once; a single case is both trained on and
    validated.
    """
    names = sorted(cases)
    if len(names) < 2:
        return [Split(tuple(names), tuple(names))] if names else []
    order = np.arange(len(names))
    np.random.RandomState(seed).shuffle(order)  # a newer generator would make other folds than scikit-learn
    splits = []
    for held_out in np.array_split(order, min(folds, len(names))):
        validated = set(held_out.tolist())
        splits.append(
            Split(
                train=tuple(name for i, name in enumerate(names) if i not in validated),
                val=tuple(name for i, name in enumerate(names) if i in validated),
            )
        )
    return splits


def grouped_kfold(
    cases: Sequence[str],
    *,
    groups: Mapping[str, str] | None = None,
    strata: Mapping[str, str] | None = None,
    folds: int = FOLDS,
    seed: int = SEED,
) -> list[Split]:
    """Cross-validation in which cases of one group are never on both sides, and folds are alike in their strata.

    Groups, largest first and shuffled among equals, go one by one to the fold that is furthest below its share: of the
    strata of the group's cases, then of all cases. Groups of one case are as likely to meet in a fold as others.

    Args:
        groups: case -> its group, as its patient; None for each by itself.
        strata: case -> what every fold should have its share of, as the scanner or a diagnosis; None for nothing.
        folds: with fewer groups, as many as there are groups.

    Raises:
        DataError: a case has no group or stratum, or all cases are of one group.
    """
    names = sorted(cases)
    for what, given in (("group", groups), ("stratum", strata)):
        missing = [name for name in names if given is not None and name not in given]
        if missing:
            raise DataError(f"{len(missing)} cases without a {what}: {', '.join(missing[:10])}. Give each case one")
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(name if groups is None else groups[name], []).append(name)
    if len(members) < 2:
        if groups is None:
            return kfold(names)
        raise DataError(f"all {len(names)} cases are of one group, {next(iter(members), '')!r}; expected two or more")
    of_case = dict.fromkeys(names, "") if strata is None else strata
    total = Counter(of_case[name] for name in names)
    order = sorted(members)
    np.random.RandomState(seed).shuffle(order)
    order.sort(key=lambda group: -len(members[group]))
    count = min(folds, len(members))
    validated: list[list[str]] = [[] for _ in range(count)]
    held = [Counter[str]() for _ in range(count)]
    for group in order:
        own = Counter(of_case[name] for name in members[group])

        def filled(fold: int, own: Counter[str] = own) -> tuple[float, int, int]:
            share = max(held[fold][stratum] / total[stratum] for stratum in own)
            return share, len(validated[fold]), fold

        chosen = min(range(count), key=filled)
        validated[chosen] += members[group]
        held[chosen] += own
    parts = [frozenset(part) for part in validated]
    return [Split(tuple(n for n in names if n not in p), tuple(n for n in names if n in p)) for p in parts]
