"""Names what predictions depend on, so that a run is not resumed with other settings."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from apdet.config.shipped import find_config
from apdet.inference.selection import Selection
from apdet.inference.sources import SourceImage


def settings_of(
    arguments: Mapping[str, Any], selection: Selection, images: Sequence[SourceImage]
) -> dict[str, Any]:
    """List what predictions depend on.

    Args:
        arguments: those of the command line.
        selection: which detections are kept.
        images: all images.

    Returns:
        {name on the command line: text, number or truth}. Files are told apart by their content.
    """
    config_file = arguments["config_file"] and find_config(arguments["config_file"])
    listed = "\0".join(f"{image.image_id} {image.path}" for image in images)
    return {
        "model": _digest_of_file(arguments["model"]),
        "--config-file": _digest_of_file(config_file) if config_file else None,
        "list of images": _digest(listed.encode(errors="surrogateescape")),
        "--threshold": selection.threshold,
        "--classes": ",".join(map(str, selection.classes)),
        "--max-detections": selection.max_detections,
        "--calibrated": arguments["calibrated"],
        "--tta": arguments["tta"],
        "--batch": arguments["batch"],
        "--bits": arguments["bits"],
        "--no-pictures": arguments["no_pictures"],
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _digest_of_file(path: str | os.PathLike) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
