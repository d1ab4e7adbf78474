"""One folder that is divided into a training set and a validation set."""

import json
from typing import Any

from faults.checks import Check
from faults.fault import Fault, both
from faults.row import Row, refused, works
from faults.running import Outcome
from faults.setup import Setup


def divide(split: Any) -> Fault:
    """Train on a part of the images, and test on the other."""

    def fault(setup: Setup) -> None:
        entry = setup.config["DATASETS"]["REGISTER"][0]
        entry.update(name="all", split=split)
        setup.config["DATASETS"].update(REGISTER=[entry], TRAIN=["all_train"], TEST=["all_val"])

    return fault


def reverse_images(setup: Setup) -> None:
    """List the images in the reverse order, with other ids."""

    def reverse(content: dict[str, list[dict[str, Any]]]) -> None:
        for image in content["images"]:
            image["id"] = 10 - image["id"]
        for annotation in content["annotations"]:
            annotation["image_id"] = 10 - annotation["image_id"]
        content["images"].reverse()

    setup.edit_json(reverse)


def copy_first_image(setup: Setup) -> None:
    """The last image is the first one by another name."""
    images = setup.folder / "images"
    (images / "im3.png").write_bytes((images / "im0.png").read_bytes())


def validation_images(outcome: Outcome) -> set[str]:
    (path,) = (outcome.output / "inference" / "all_val").glob("*coco_format.json")
    images = json.loads(path.read_text())["images"]
    return {image["file_name"].split("/")[-1] for image in images}


def validates_on(count: int) -> Check:
    def holds(outcome: Outcome) -> None:
        found = validation_images(outcome)
        assert len(found) == count, f"{found} are for validation"

    return holds


def copies_are_on_one_side(outcome: Outcome) -> None:
    found = validation_images(outcome)
    assert len(found & {"im0.png", "im3.png"}) != 1, f"{found} are for validation"
    assert found, "there is no image for validation"


quarter = divide({"fraction": 0.25, "seed": 0})

ROWS = (
    Row(
        name="split: {fraction: 0.25, seed: 0}",
        fault=quarter,
        expect=(works(says="3 images[^\n]*1 image", holds=validates_on(1)),),
    ),
    Row(
        name="split: {fraction: 0.25, seed: 0}, with the images in another order",
        fault=both(quarter, reverse_images),
        command=("--eval-only",),
        expect=(works(twin=quarter, twin_weights=False),),
    ),
    *[
        Row(
            name=f"split: {{fraction: 0.5, seed: {seed}}}, with the same file twice",
            fault=both(divide({"fraction": 0.5, "seed": seed}), copy_first_image),
            expect=(works(holds=copies_are_on_one_side),),
            slow=seed > 0,
        )
        for seed in range(3)
    ],
    *[
        Row(
            name=f"split: {split}",
            fault=divide(split),
            expect=(refused("fraction"),),
        )
        for split in (
            {"fraction": 0},
            {"fraction": 1.0},
            {"fraction": 0.01},
            {"fraction": "0.2"},
            {"fraction": 0.2, "sed": 0},
            {"seed": 0},
        )
    ],
)
