"""Reads YAML configs safely, with their bases and with overrides from the command line."""

import difflib
import os
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, get_cfg

from apdet.config.defaults import add_apdet_config
from apdet.config.ranges import check_yaml_ranges
from apdet.config.shipped import find_config, is_shipped
from apdet.config.value_types import fit_overrides, fit_values
from apdet.config.yaml_file import read_yaml_file
from apdet.data.builtin import datasets_root
from apdet.errors import UserError

_PATHS_OF_DATA = ("root", "images", "annotations", "json")


def load_config(config_file: str | os.PathLike, overrides: list[str] | None = None) -> CfgNode:
    """Read a config file with its bases, and apply overrides.

    ``_BASE_`` is a path or a list of paths, which start from the folder of the file. A file or base
    that does not exist is looked for among the shipped configs. Relative paths in
    ``DATASETS.REGISTER`` start from the folder of the file; in a shipped config they start from
    :func:`datasets_root`.

    Args:
        config_file: a YAML file.
        overrides: alternating keys and values, as on the command line.

    Raises:
        UserError: a file is missing, unsafe or malformed; a key does not exist or is given twice in
            a file; or a value has the wrong type or is out of range.
    """
    path = find_config(config_file)
    if path is None:
        raise UserError(f"{config_file}: no such config file")
    return config_of(_read_with_bases(path), config_file, overrides)


def config_of(
    content: dict[str, Any], place: str | os.PathLike, overrides: list[str] | None = None
) -> CfgNode:
    """Make a config from the content of a YAML file.

    Args:
        content: keys and values, without ``_BASE_``.
        place: where they come from, for errors.
        overrides: see `load_config`.

    Raises:
        UserError: as `load_config`.
    """
    cfg = get_cfg()
    add_apdet_config(cfg)
    with _naming_place(place, cfg):
        cfg.merge_from_other_cfg(CfgNode(fit_values(content, cfg)))
    overrides = overrides or []
    if len(overrides) % 2:
        raise UserError(f"overrides come in pairs of KEY VALUE, got {' '.join(overrides)!r}")
    for key in overrides[0::2]:
        # The keywords of a loss are not known here, so yacs would not let them be set.
        if key.startswith("MODEL.CLS_LOSS.KWARGS."):
            cfg.MODEL.CLS_LOSS.KWARGS.setdefault(key.split(".", 3)[3], None)
    with _naming_place("command line", cfg):
        cfg.merge_from_list(fit_overrides(overrides, cfg))
    check_yaml_ranges(cfg)
    return cfg


def _read_with_bases(path: Path, heirs: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a file and its bases. The keys of the file win. ``heirs`` have it as a base."""
    if path.resolve() in heirs:
        raise UserError(f"{path}: its _BASE_ leads back to the file itself; take it out")
    own, heirs = _read(path), (*heirs, path.resolve())
    bases = own.pop("_BASE_", [])
    merged: dict[str, Any] = {}
    for base in bases if isinstance(bases, list) else [bases]:
        base_path = find_config(base, path.parent) if isinstance(base, str) else None
        if base_path is None:
            raise UserError(
                f"{path}: its _BASE_ {reprlib.repr(base)}: no such config file; give its "
                "path, from the folder of this file"
            )
        _merge_dicts(_read_with_bases(base_path, heirs), merged, path)
    _merge_dicts(own, merged, path)
    return merged


def _read(path: Path) -> dict[str, Any]:
    loaded = read_yaml_file(path)
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: a config file must hold a mapping of keys")
    _make_paths_absolute(loaded, path)
    return loaded


def _make_paths_absolute(loaded: dict[str, Any], path: Path) -> None:
    """Make the relative paths in ``DATASETS.REGISTER`` absolute, in place."""
    datasets = loaded.get("DATASETS")
    entries = datasets.get("REGISTER") if isinstance(datasets, dict) else None
    folder = (datasets_root() if is_shipped(path) else path.parent).resolve()
    for entry in entries if isinstance(entries, list) else []:
        # `register` reports an entry that is not a mapping of strings.
        for key in _PATHS_OF_DATA:
            value = entry.get(key) if isinstance(entry, dict) else None
            if value and isinstance(value, str):
                entry[key] = str(folder / os.path.expanduser(value))


def _merge_dicts(source: dict[str, Any], target: dict[str, Any], path: Path) -> None:
    for key, value in source.items():
        if isinstance(value, dict):
            # Never the mapping itself: by an alias of YAML, another key may have the same one.
            merged = target.setdefault(key, {})
            if not isinstance(merged, dict):
                raise UserError(
                    f"{path}: {key} is a mapping here and a value in a _BASE_; give it one form"
                )
            _merge_dicts(value, merged, path)
        else:
            target[key] = value


@contextmanager
def _naming_place(place: str | os.PathLike, cfg: CfgNode) -> Iterator[None]:
    """In this context, errors of merging values into ``cfg`` name where the values come from."""
    known = _keys(cfg)
    try:
        yield
    except (KeyError, AssertionError) as error:
        key = (
            str(error.args[0])
            .removeprefix("Non-existent config key: ")
            .removeprefix("Non-existent key: ")
        )
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"{place}: unknown config key {key}{hint}") from error
    except ValueError as error:
        raise UserError(f"{place}: {error}") from error


def _keys(node: CfgNode, prefix: str = "") -> list[str]:
    keys = []
    for key, value in node.items():
        keys.append(prefix + key)
        if isinstance(value, CfgNode):
            keys += _keys(value, f"{prefix}{key}.")
    return keys
