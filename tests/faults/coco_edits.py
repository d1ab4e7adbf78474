"""What can be wrong with a file in COCO's format."""

from collections.abc import Callable
from typing import Any

from faults.fault import Fault

Entry = dict[str, Any]


def change(kind: str, edit: Callable[[Entry], None], *, first: int | None = None) -> Fault:
    """Change the first entries, or all, of a list in the JSON file, such as "annotations"."""

    def change_all(content: dict[str, list[Entry]]) -> None:
        for entry in content[kind][:first]:
            edit(entry)

    return lambda setup: setup.edit_json(change_all)


def put(kind: str, *, first: int | None = None, **fields: Any) -> Fault:
    """Set fields of the first entries, or of all, of a list in the JSON file."""
    return change(kind, lambda entry: entry.update(fields), first=first)


def as_text(*keys: str) -> Callable[[Entry], None]:
    return lambda entry: entry.update({key: str(entry[key]) for key in keys})


def change_box(convert: Callable[[float, float, float, float], list[Any]]) -> Fault:
    return change("annotations", lambda entry: entry.update(bbox=convert(*entry["bbox"])))


def name_images(name: Callable[[int], Any], *, first: int | None = None) -> Fault:
    """Give images other ids."""

    def rename(content: dict[str, list[Entry]]) -> None:
        ids = {image["id"]: name(image["id"]) for image in content["images"][:first]}
        for image in content["images"][:first]:
            image["id"] = ids[image["id"]]
        for annotation in content["annotations"]:
            annotation["image_id"] = ids.get(annotation["image_id"], annotation["image_id"])

    return lambda setup: setup.edit_json(rename)


def add_category(name: str, *, boxes: int = 0) -> Fault:
    """Add a category of id 9, and give it the first boxes."""

    def add(content: dict[str, list[Entry]]) -> None:
        content["categories"].append({"id": 9, "name": name})
        for annotation in content["annotations"][:boxes]:
            annotation["category_id"] = 9

    return lambda setup: setup.edit_json(add)


def drop_annotations_of_first_image(content: dict[str, list[Entry]]) -> None:
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 1]
