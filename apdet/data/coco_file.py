"""Reads JSON files in COCO's format, and names the place of what is not in that format."""

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apdet.errors import UserError
from apdet.files import check_regular_file, unreadable_file

# The types that a field may have, and how errors call them.
NUMBER, TEXT, LIST, NUMBER_OR_TEXT = (int,), (str,), (list,), (int, str)
_NAMES = {
    NUMBER: "a whole number",
    TEXT: "a text",
    LIST: "a list",
    NUMBER_OR_TEXT: "a number or a text",
}


def parse_file(path: Path) -> dict[str, Any]:
    """Read a JSON file.

    Raises:
        UserError: it is missing, cannot be read, or holds no mapping.
    """
    check_regular_file(path, missing="no such JSON file; correct the path")
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise unreadable_file(path, error) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: broken JSON ({error}); correct it or write it anew") from error
    if not isinstance(content, dict):
        raise UserError(f'{path}: not in COCO\'s format; write a mapping with "images" in it')
    return content


def entries(content: dict[str, Any], key: str, path: Path) -> list[Any]:
    """The list of a key, such as "images"; a UserError if there is none."""
    values = content.get(key)
    if not isinstance(values, list):
        raise UserError(f'{path}: "{key}" is missing or no list; write it in COCO\'s format')
    return values


def entry_name(value: Any, position: int) -> str:
    """How errors call an entry of a list: by its id, or else by its position from 0 on."""
    has_id = isinstance(value, dict) and "id" in value
    return f"of id {value['id']}" if has_id else f"number {position + 1}"


def fields(value: Any, types: Mapping[str, tuple[type, ...]], where: str) -> list[Any]:
    """The values of some keys of an entry; a UserError if one is missing or of another type."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: {reprlib.repr(value)} is not in COCO's format; write a mapping")
    found = []
    for key, expected in types.items():
        own = value.get(key)
        if type(own) not in expected:
            raise UserError(
                f'{where}: "{key}" is {reprlib.repr(own)}; write {_NAMES[expected]} there'
            )
        found.append(own)
    return found
