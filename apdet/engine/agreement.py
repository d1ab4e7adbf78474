"""Checks that all processes of a training have read the same, before its first step."""

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf

from apdet import __version__
from apdet.checkpoint.run_folder import TAG
from apdet.config.plan import TrainingPlan
from apdet.data.digest import annotation_digest
from apdet.errors import UserError

_MAX_NAMED = 3  # differences that a message names
_MAX_LENGTH = 60  # characters of a value in a message

Facts = dict[str, dict[str, str]]  # {kind: {name: value}}


def check_agreement(plan: TrainingPlan, *, training: bool = True) -> None:
    """Check that all processes have the same config, annotations, versions and checkpoint.

    Args:
        plan: the training or evaluation, as this process has read it.
        training: whether the training sets are used.

    Raises:
        UserError: they differ. The error is raised in all processes, and names what differs.
    """
    if comm.get_world_size() == 1:
        return
    facts = {
        "config": dict(_values(plan.config)),
        "annotations": _annotations(plan, training=training),
        "versions": {
            "torch": torch.__version__,
            "detectron2": detectron2.__version__,
            "apdet": __version__,
        },
        "last checkpoint in the output folder, which all machines must share": _checkpoint(
            plan.output_dir
        ),
    }
    every = comm.all_gather((socket.gethostname(), facts))
    problem = find_difference([facts for _, facts in every], [host for host, _ in every])
    if problem:
        raise UserError(problem)


def find_difference(every: Sequence[Facts], hosts: Sequence[str]) -> str:
    """The first process whose facts are not those of process 0, as an error message.

    Args:
        every: the facts of each process.
        hosts: the machine of each process.

    Returns:
        Empty if all agree.
    """
    rank = next((rank for rank, facts in enumerate(every) if facts != every[0]), None)
    if rank is None:
        return ""
    differences = [
        f"{kind}: {_name_differences(every[rank][kind], every[0][kind])}"
        for kind in every[0]
        if every[rank][kind] != every[0][kind]
    ]
    return (
        f"process {rank} on {hosts[rank]} and process 0 on {hosts[0]} differ in their "
        f"{'; '.join(differences)}. Start all processes with the same files and packages"
    )


def _name_differences(values: Mapping[str, str], values_of_0: Mapping[str, str]) -> str:
    names = [
        name
        for name in {**values, **values_of_0}  # in order
        if values.get(name) != values_of_0.get(name)
    ]
    named = [
        f"{name} is {_shorten(values.get(name))}, not {_shorten(values_of_0.get(name))}"
        for name in names[:_MAX_NAMED]
    ]
    more = len(names) - len(named)
    return ", ".join([*named, *[f"and {more} more"] * (more > 0)])


def _shorten(value: str | None) -> str:
    if value is None:
        return "missing"
    return value if len(value) <= _MAX_LENGTH else f"{value[:_MAX_LENGTH]}..."


def _annotations(plan: TrainingPlan, *, training: bool) -> dict[str, str]:
    sets = [*(plan.train_sets if training else ()), *(s.name for s in plan.val_sets)]
    names = dict.fromkeys([*sets, *(s.name for s in plan.test_sets)])
    return {
        name: annotation_digest(DatasetCatalog.get(name))
        for name in names
        if name in DatasetCatalog
    }


def _checkpoint(folder: str) -> dict[str, str]:
    tag = Path(folder, TAG)
    return {TAG: tag.read_text() if tag.is_file() else "none"}


def _values(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The values of a config and all its parts, by their keys."""
    if isinstance(node, DictConfig):
        node = OmegaConf.to_container(node, resolve=False)
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, Mapping):
        items = node.items()
    elif isinstance(node, list | tuple):
        items = enumerate(node)
    for key, value in items:
        yield from _values(value, f"{path}.{key}" if path else str(key))
    if not isinstance(node, Mapping | list | tuple):
        yield path, _text(node)


def _text(value: Any) -> str:
    """A value as text, which must not hold an address in memory."""
    if value is None or isinstance(value, str | bytes | int | float):
        return repr(value)
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"
