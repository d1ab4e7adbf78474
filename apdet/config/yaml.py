"""YAML configs: read safely, with their bases and overrides."""

import difflib
import os
from pathlib import Path

import yaml
from detectron2.config import CfgNode, get_cfg

from apdet.config.defaults import add_apdet_config
from apdet.errors import UserError


class _ConfigFile(CfgNode):
    """Reads a YAML file and its ``_BASE_`` files, safely; errors name the file."""

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict:
        if not os.path.isfile(filename):
            raise UserError(f"{filename}: no such config file")
        try:
            # A file that asks for `!!python/...` is refused, whatever the caller allows.
            loaded = super().load_yaml_with_base(filename, allow_unsafe=False)
        except yaml.YAMLError as error:
            raise UserError(f"{filename}: not a safe YAML file: {error}") from error
        except TypeError:  # an empty file
            loaded = None
        if not isinstance(loaded, dict):
            raise UserError(f"{filename}: a config file must hold a mapping of keys")
        datasets = loaded.get("DATASETS")
        entries = datasets.get("REGISTER") if isinstance(datasets, dict) else None
        folder = Path(filename).resolve().parent
        for entry in entries if isinstance(entries, list) else []:
            # What is no mapping of strings is left to register_datasets to complain about.
            for key in {"root", "images", "annotations", "json"}:
                if isinstance(entry, dict) and isinstance(entry.get(key), str):
                    entry[key] = str(folder / entry[key])
        return loaded


def load_config(config_file: str | os.PathLike, overrides: list[str] | None = None) -> CfgNode:
    """Read a config file, its bases, and ``KEY VALUE`` pairs that override them.

    Args:
        config_file: YAML. Relative paths under ``DATASETS.REGISTER`` start from its folder.
        overrides: keys and values in turn, as on the command line.

    Raises:
        UserError: a missing, unsafe or malformed file; a key that does not exist; a value of the
            wrong type.
    """
    cfg = get_cfg()
    add_apdet_config(cfg)
    loaded = CfgNode(_ConfigFile.load_yaml_with_base(str(config_file)))
    _merge(cfg, cfg.merge_from_other_cfg, loaded, str(config_file))
    overrides = overrides or []
    if len(overrides) % 2:
        raise UserError(f"overrides come in pairs of KEY VALUE, got {' '.join(overrides)!r}")
    for key in overrides[0::2]:
        # The keywords of a loss are not known here, so yacs would not let them be set.
        if key.startswith("MODEL.CLS_LOSS.KWARGS."):
            cfg.MODEL.CLS_LOSS.KWARGS.setdefault(key.split(".", 3)[3], None)
    _merge(cfg, cfg.merge_from_list, overrides, "command line")
    return cfg


def _merge(cfg: CfgNode, merge, what, where: str) -> None:
    known = _keys(cfg)
    try:
        merge(what)
    except (KeyError, AssertionError) as error:
        key = (
            str(error.args[0])
            .removeprefix("Non-existent config key: ")
            .removeprefix("Non-existent key: ")
        )
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"{where}: unknown config key {key}{hint}") from error
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _keys(node: CfgNode, prefix: str = "") -> list[str]:
    keys = []
    for key, value in node.items():
        keys.append(prefix + key)
        if isinstance(value, CfgNode):
            keys += _keys(value, f"{prefix}{key}.")
    return keys
