"""Finds the files of a data set in PASCAL VOC's layout, and reads its splits."""

import os
import re
from collections.abc import Container
from pathlib import Path

from apdet.data.flaws import Flaws
from apdet.data.records import natural_sorted
from apdet.errors import UserError
from apdet.files import check_regular_file, unreadable_file

# In the order of preference, if several files have the same stem.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"),
)
# Other images, which are not read.
OTHER_SUFFIXES = (".avif", ".dng", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".tga")


def split_ids(root: str | os.PathLike, split: str) -> list[str]:
    """Read the image ids in ``ImageSets/Main/<split>.txt``, one in a line.

    A line is an id, which may have spaces, the suffix of a file, or folders before it. If there is
    no annotation or image of this id, but a number follows as in the files that VOC has for each
    class, or two files are named, the first column of the line is the id.

    Raises:
        UserError: the file is missing, empty or not text; the message lists the splits.
    """
    root = Path(root)
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    if path.exists():
        check_regular_file(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        splits = ", ".join(natural_sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
        raise UserError(f"{path}: no such split file; there are: {splits}") from error
    except OSError as error:
        raise unreadable_file(path, error) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8: {error}") from error
    known = {*find_xml(root / "Annotations", Flaws()), *_stems(root / "JPEGImages")}
    found = [_image_id(line, known) for line in lines if line.strip()]
    if not found:
        raise UserError(f"{path}: the split is empty; write one image id a line")
    # The loader would read two images of the same id, but the evaluators only one.
    ids, flaws = list(dict.fromkeys(found)), Flaws()
    for _ in range(len(found) - len(ids)):
        flaws.add("image ids are there more than once and count once", str(path))
    flaws.log(str(path))
    return ids


def _image_id(line: str, known: Container[str]) -> str:
    """The image id in a line of a split: the first reading of the line that is known."""
    line, (column, *others) = line.strip(), line.split()
    readings = [line, *_as_path(line)]
    if others and (re.fullmatch("[+-]?[0-9]+", others[0]) or _are_files(column, others[0])):
        readings += _as_path(column)
    return next((reading for reading in readings if reading in known), readings[-1])


def _as_path(name: str) -> list[str]:
    """Readings of a name as a path: its last part, with and without its suffix."""
    path = Path(name.replace("\\", "/"))
    return [path.name, path.stem] if _are_files(name) else [path.name]


def _are_files(*names: str) -> bool:
    return all(Path(name).suffix.lower() in (*IMAGE_SUFFIXES, ".xml") for name in names)


def _files(folder: Path) -> list[Path]:
    """The files of a folder, without those that macOS writes beside each file."""
    try:
        return [path for path in folder.iterdir() if not path.name.startswith("._")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable_file(folder, error) from error


def find_xml(folder: Path, flaws: Flaws) -> dict[str, Path]:
    """Find the XML files of a folder by their stems. The suffix may be in capital letters."""
    found: dict[str, Path] = {}
    # In this order .xml comes last and wins.
    paths = [path for path in _files(folder) if path.suffix.lower() == ".xml"]
    for path in sorted(paths, key=lambda path: path.name):
        if path.stem in found:
            flaws.add(
                f"annotation files are not read, because {path.name} has its id",
                str(found[path.stem]),
            )
        found[path.stem] = path
    return found


def _stems(folder: Path) -> list[str]:
    return [path.stem for path in _files(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def find_images(folder: Path) -> dict[str, Path]:
    """Find the image files of a folder, by their names and by their stems."""
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder of images; correct the path")
    paths = [path for path in _files(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not paths:
        raise UserError(f"{folder}: no image there; put {', '.join(IMAGE_SUFFIXES)} files in it")
    # If several files have the same stem, the last one in the dict wins. So the preferred suffix,
    # the first one, must come last.
    paths.sort(key=lambda path: IMAGE_SUFFIXES.index(path.suffix.lower()), reverse=True)
    return {path.stem: path for path in paths} | {path.name: path for path in paths}


def find_unread_images(folder: Path) -> list[str]:
    """Find the image files of a folder that are in a format that is not read."""
    return sorted(str(path) for path in _files(folder) if path.suffix.lower() in OTHER_SUFFIXES)
