"""Reads XML files in PASCAL VOC's format."""

import math
import reprlib
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException
from detectron2.structures import BoxMode

from apdet.data.clean import in_order
from apdet.data.flaws import Flaws
from apdet.data.truth import parse_truth
from apdet.errors import UserError
from apdet.files import check_regular_file, unreadable_file


def parse_file(path: Path) -> Element:
    """Read an XML file; a UserError if it is missing, broken or harmful."""
    missing = "no such annotation file; add it or take its id out of the split"
    check_regular_file(path, missing=missing)
    try:
        return defusedxml.ElementTree.parse(path, forbid_dtd=True).getroot()
    except OSError as error:
        raise unreadable_file(path, error) from error
    except DefusedXmlException as error:
        raise UserError(
            f"{path}: holds a DTD or entities, which may be harmful ({error}); remove them"
        ) from error
    except (ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path}: broken XML ({error}); correct it or write it anew") from error


def read_side(root: Element, tag: str, path: Path) -> int | None:
    """The width or height in pixels; None if the file does not say it."""
    size = _find(root, "size", path)
    if size is None or not _text(size, tag, path):
        return None
    return int(_number(size, tag, path))


def read_objects(root: Element, path: Path, flaws: Flaws) -> list[dict[str, Any]]:
    """Read the objects of a file, in the form of `Records`.

    Args:
        root: the content of the file.
        path: the file, for errors.
        flaws: each correction is added to them.

    Raises:
        UserError: the file is not in VOC's format.
    """
    objects = root.findall("object")
    tags = {element.tag for element in root.iter()}
    is_elsewhere = len(list(root.iter("object"))) != len(objects)
    is_respelled = any(tag != "object" and _plain(tag) == "object" for tag in tags)
    if is_elsewhere or is_respelled or not (objects or root.tag == "annotation"):
        raise UserError(
            f"{path}: not in VOC's format; write <annotation> with each <object> directly in it, "
            "in small letters"
        )
    return [_read_object(element, path, flaws) for element in objects]


def _read_object(element: Element, path: Path, flaws: Flaws) -> dict[str, Any]:
    name = _text(element, "name", path)
    if not name:
        raise UserError(f"{path}: an <object> lacks its <name>; write the class there")
    box = _child(element, "bndbox", path)
    x0, y0, x1, y1 = in_order(
        [_number(box, key, path) for key in ("xmin", "ymin", "xmax", "ymax")], flaws, str(path)
    )
    text = _text(element, "difficult", path)
    difficult = parse_truth(text)
    if difficult is None:
        raise UserError(f"{path}: <difficult> is {reprlib.repr(text)}; write 0 or 1 there")
    return {
        "category": sys.intern(name),  # each file has its own copy of a name
        "bbox": [x0 - 1, y0 - 1, x1, y1],
        "bbox_mode": BoxMode.XYXY_ABS,
        "iscrowd": int(difficult),
        "difficult": int(difficult),
    }


def _find(element: Element, tag: str, path: Path) -> Element | None:
    """The only child with a tag; None if there is none."""
    children = element.findall(tag)
    if len(children) > 1:
        raise UserError(f"{path}: <{element.tag}> has more than one <{tag}>; write one")
    if children:
        return children[0]
    for child in element:
        if _plain(child.tag) == tag:
            raise UserError(f"{path}: VOC's format has no <{child.tag}>; write <{tag}>")
    return None


@lru_cache(maxsize=1024)
def _plain(tag: str) -> str:
    """A tag in small letters and without its namespace, which may be one of VOC's by mistake."""
    return tag.rpartition("}")[2].casefold()


def _text(element: Element, tag: str, path: Path) -> str:
    """The text of the only child with a tag; empty if there is none."""
    child = _find(element, tag, path)
    # In XML, a line break and several spaces mean the same as one space.
    return "" if child is None else " ".join((child.text or "").split())


def _child(element: Element, tag: str, path: Path) -> Element:
    child = _find(element, tag, path)
    if child is None:
        raise UserError(f"{path}: <{element.tag}> lacks its <{tag}>; add it")
    return child


def _number(element: Element, tag: str, path: Path) -> float:
    text = _child(element, tag, path).text
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or "_" in (text or ""):  # to Python, 1_0 is 10
        raise UserError(f"{path}: <{tag}> is {reprlib.repr(text)}; write a number there")
    return number
