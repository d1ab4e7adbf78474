"""Finds the configs that come with apdet by their names."""

import os
from pathlib import Path

# A wheel holds the configs inside the package, a checkout holds them beside it.
_PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED_CONFIGS = next(
    (path for path in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if path.is_dir()),
    _PACKAGE / "configs",
)


def find_config(name: str | os.PathLike, folder: str | os.PathLike = "") -> Path | None:
    """Find a config file: the user's own file, or else a shipped config of this name.

    Args:
        name: a path, such as ``my.yaml`` or ``digits/retinanet_ap.yaml``.
        folder: the folder from which a relative path starts; empty: the working folder.

    Returns:
        The path; None if there is no such file.
    """
    path = Path(name).expanduser()
    for candidate in (Path(folder) / path, SHIPPED_CONFIGS / path):
        if candidate.exists():
            return candidate
    return None


def is_shipped(config_file: str | os.PathLike) -> bool:
    """Whether a config file is one that comes with apdet."""
    return Path(config_file).resolve().is_relative_to(SHIPPED_CONFIGS.resolve())
