"""Faults in annotations in COCO's format."""

import re

from faults.coco_edits import (
    add_category,
    as_text,
    change,
    change_box,
    drop_annotations_of_first_image,
    name_images,
    put,
)
from faults.pictures import SIZE
from faults.row import Row, as_flawless, flawless, rarely, refused, works
from faults.running import Outcome

CORNERS = "corner|order|swap|negative"


def taken_as(value: object, meaning: int, key: str = "iscrowd") -> Row:
    """A row in which a truth value is written otherwise."""
    crowd = put("annotations", first=2, iscrowd=meaning)
    return Row(
        name=f'"{key}": {value!r} for {meaning}',
        fault=put("annotations", first=2, **{key: value}),
        expect=(works(twin=crowd if meaning else flawless), refused(key)),
    )


TRUTH_VALUES = (
    taken_as("0", 0),
    taken_as("false", 0),
    taken_as("1", 1),
    *rarely(
        *[taken_as(value, 0) for value in ("no", 0.0, None)],
        *[taken_as(value, 1) for value in ("true", True)],
        taken_as("0", 0, "ignore"),
    ),
    *[
        Row(
            name=f'"iscrowd": {value!r}, neither true nor false',
            fault=put("annotations", first=2, iscrowd=value),
            expect=(refused("iscrowd"),),
        )
        for value in ("maybe", [0])
    ],
)

NUMBERS = (
    Row(
        name="coordinates of boxes are strings",
        fault=change_box(lambda *box: [str(value) for value in box]),
        expect=(as_flawless(), refused("bbox")),
    ),
    Row(
        name="coordinates of boxes are null",
        fault=put("annotations", first=1, bbox=[None] * 4),
        expect=(refused("bbox"),),
    ),
    Row(
        name="category_id is a string",
        fault=change("annotations", as_text("category_id")),
        expect=(as_flawless(), refused("category_id")),
    ),
    Row(
        name="image_id of annotations is a string, but ids of images are integers",
        fault=change("annotations", as_text("image_id")),
        expect=(as_flawless(), refused("image_id")),
    ),
    Row(
        name="width and height of images are strings",
        fault=change("images", as_text("width", "height")),
        expect=(as_flawless(), refused("width|height")),
    ),
    Row(
        name="image ids are partly strings",
        fault=name_images(lambda number: f"image_{number}", first=2),
        expect=(as_flawless(), refused("image_1")),
    ),
)

BOXES = (
    Row(
        name="COCO boxes of negative width and height",
        fault=change_box(lambda x, y, w, h: [x + w, y + h, -w, -h]),
        expect=(as_flawless(warns=CORNERS), refused("bbox")),
    ),
    Row(
        name="COCO boxes as fractions of the image",
        fault=change_box(lambda *box: [value / SIZE for value in box]),
        expect=(works(warns="fraction|normali[sz]ed|between 0 and 1"), refused("fraction|pixel")),
    ),
    Row(
        name="COCO boxes as corners: x0, y0, x1, y1",
        fault=change_box(lambda x, y, w, h: [x, y, x + w, y + h]),
        expect=(works(warns="outside"), refused("bbox")),
    ),
    Row(
        name="COCO boxes far outside their image",
        fault=change_box(lambda x, y, w, h: [x + 1000, y, w, h]),
        expect=(refused("outside|no annotated box"),),
    ),
    Row(
        name="a COCO box wider than any image: 1e9",
        fault=put("annotations", first=1, bbox=[6, 8, 1e9, 26]),
        expect=(works(warns="outside|pixel"), refused("bbox|data.json")),
    ),
)

CATEGORIES = (
    Row(
        name="a category without a box",
        fault=add_category("unicorn"),
        expect=(works(warns="unicorn"), refused("unicorn")),
    ),
    Row(
        name="two categories whose names differ in case",
        fault=add_category("Cat", boxes=1),
        expect=(works(warns=r"\bcat\b"), refused(r"\bcat\b")),
    ),
    Row(
        name="two categories whose names differ in a hyphen and a space",
        fault=lambda setup: (
            put("categories", first=1, name="ginger cat")(setup),
            add_category("ginger  cat", boxes=1)(setup),
        ),
        expect=(works(warns="ginger  ?cat"), refused("ginger  ?cat")),
    ),
    Row(
        name="a category whose name ends in a space",
        fault=put("categories", first=1, name="cat "),
        expect=(as_flawless(warns="space|cat"), refused("cat ")),
    ),
)

LEFT_OUT = r"\b1 (images? )?(with no|without)"


def is_said_once(outcome: Outcome) -> None:
    count = len(re.findall(LEFT_OUT, outcome.said))
    assert count == 1, f"the log says {count} times that an image is left out"


IMAGES = tuple(
    Row(
        name=f"an image of the training set without a box{', --dry-run' * bool(command)}",
        fault=lambda setup: setup.edit_json(drop_annotations_of_first_image),
        command=command,
        expect=(works(says=LEFT_OUT, holds=is_said_once),),
    )
    for command in ((), ("--dry-run",))
)

VARIANTS = rarely(
    Row(
        name="image ids are 1 and '1'",
        fault=name_images(lambda number: "1" if number == 2 else number),
        expect=(refused("twice"),),
    ),
    Row(
        name="a coordinate of a box above a million",
        fault=put("annotations", first=1, bbox=[5, 5, 3e7, 9]),
        expect=(refused("bbox|box"),),
    ),
    Row(
        name="COCO boxes of negative width",
        fault=change_box(lambda x, y, w, h: [x + w, y, -w, h]),
        expect=(as_flawless(warns=CORNERS), refused("bbox")),
    ),
    Row(
        name="image ids are 1 and '2'",
        fault=name_images(str, first=2),
        expect=(as_flawless(), refused("image")),
    ),
)

ROWS = (*TRUTH_VALUES, *NUMBERS, *BOXES, *CATEGORIES, *IMAGES, *VARIANTS)
