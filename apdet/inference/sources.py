"""Finds the images that a command line names: files, folders, patterns and lists of paths."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from apdet.data.flaws import Flaws
from apdet.data.records import natural_sorted
from apdet.data.voc_folder import IMAGE_SUFFIXES, OTHER_SUFFIXES
from apdet.errors import UserError
from apdet.files import check_regular_file, unreadable_file

_VIDEO_SUFFIXES = (
    *(".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"),
)


@dataclass(frozen=True)
class SourceImage:
    """An image to predict on.

    Attributes:
        image_id: its id in files in COCO's format.
        path: the absolute path of its file.
        name: its path below the folder that holds all images, which names its output files.
    """

    image_id: int
    path: str
    name: str


def find_images(sources: Sequence[str], *, left_out: str = "") -> list[str]:
    """Find images.

    Args:
        sources: image files; folders, whose images are found recursively and in natural order;
            patterns such as ``"photos/*.jpg"``; and text files (``.txt``) with one path a line,
            relative to their folder or to the working directory.
        left_out: a folder whose images are not wanted, such as that of earlier results.

    Returns:
        Absolute paths. An image that is named twice is there once.

    Raises:
        UserError: a source does not exist, or names no image.
    """
    flaws = Flaws()
    skipped = os.path.realpath(left_out) if left_out else ""
    paths: dict[str, None] = {}
    for source in sources:
        found = [os.path.abspath(path) for path in _expand(source, skipped, flaws)]
        if not found:
            raise UserError(
                f"{source}: no image there; name files that end in {', '.join(IMAGE_SUFFIXES)}, or "
                "a folder that holds some"
            )
        for path in found:
            if path in paths:
                flaws.add("images are named more than once and count once", path)
            paths[path] = None
    flaws.log("the sources")
    return list(paths)


def number_sources(paths: Sequence[str]) -> list[SourceImage]:
    """Number images from 1 on, and name each by its path below the folder that holds all."""
    names = names_below_common_folder(paths)
    return [
        SourceImage(number, path, name)
        for number, (path, name) in enumerate(zip(paths, names, strict=True), 1)
    ]


def names_below_common_folder(paths: Sequence[str]) -> list[str]:
    """The path of each file below the deepest folder that holds all. Different files differ in it.

    Args:
        paths: absolute paths of one or more files.
    """
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [os.path.relpath(path, folder) for path in paths]


def _expand(source: str, skipped: str, flaws: Flaws) -> list[str]:
    """The paths of the images that a source names."""
    if os.path.isdir(source):
        return natural_sorted(_walk(source, skipped, flaws))
    if not os.path.lexists(source) and glob.has_magic(source):
        return _matches(source, skipped, flaws)
    check_regular_file(source, missing="no such file or folder; correct the path")
    suffix = Path(source).suffix.lower()
    if suffix in _VIDEO_SUFFIXES:
        raise UserError(
            f"{source}: a video, which is not read; write its frames as images first, such as by "
            "ffmpeg -i VIDEO frames/%06d.png"
        )
    if suffix == ".json":
        raise UserError(f"{source}: a JSON file; name a data set in COCO's format by --images-json")
    # A file that is named on its own may have any suffix: its content tells what it is.
    return _listed(Path(source)) if suffix == ".txt" else [source]


def _matches(pattern: str, skipped: str, flaws: Flaws) -> list[str]:
    found = []
    for path in natural_sorted(glob.glob(pattern, recursive=True)):
        if os.path.isdir(path):
            # With **, the images of a folder are matches of their own.
            found += [] if "**" in pattern else natural_sorted(_walk(path, skipped, flaws))
        elif not _is_in(os.path.realpath(path), skipped):
            found += _wanted(path, flaws)
    return found


def _walk(folder: str, skipped: str, flaws: Flaws) -> Iterator[str]:
    """All images in a folder and below. Hidden files and folders are passed over."""

    def refuse(error: OSError) -> None:
        raise unreadable_file(error.filename or folder, error) from error

    visited = set()  # a link may lead to a folder above
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in visited or _is_in(real, skipped):
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [name for name in natural_sorted(folders) if not name.startswith(".")]
        for name in natural_sorted(files):
            if not name.startswith("."):
                yield from _wanted(os.path.join(place, name), flaws)


def _wanted(path: str, flaws: Flaws) -> list[str]:
    suffix = Path(path).suffix.lower()
    if suffix in (*OTHER_SUFFIXES, *_VIDEO_SUFFIXES):
        flaws.add("files are left out, because files with their suffix are not read", path)
    return [path] * (suffix in IMAGE_SUFFIXES)


def _is_in(path: str, folder: str) -> bool:
    return bool(folder) and (path == folder or path.startswith(folder + os.sep))


def _listed(path: Path) -> list[str]:
    """The paths in a text file. Missing images are found when they are read."""
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise unreadable_file(path, error) from error
    names = [line.strip() for line in lines if line.strip()]
    beside = [os.path.join(path.parent, name) for name in names]
    return [
        name if os.path.exists(name) and not os.path.exists(near) else near
        for name, near in zip(names, beside, strict=True)
    ]
