"""Evaluations that give no result, or the wrong one."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from faults.checks import Check, results_of
from faults.coco_edits import name_images
from faults.fault import Fault, both
from faults.row import Row, refused, works
from faults.running import Outcome
from faults.setup import Setup
from PIL import Image

EVALUATE = ("--eval-only",)


def use_perfect_detector(setup: Setup) -> None:
    setup.plug_in = "faults.perfect_detector"
    setup.set("MODEL.META_ARCHITECTURE", "PerfectDetector")
    setup.set("MODEL.WEIGHTS", "")


def crowd_image(setup: Setup) -> None:
    """One image of 300 objects: 20 x 15 squares of 12 pixels."""
    use_perfect_detector(setup)
    Image.fromarray(np.zeros((240, 320, 3), np.uint8)).save(setup.folder / "images" / "many.png")

    def replace(content: dict[str, Any]) -> None:
        content["images"] = [{"id": 1, "file_name": "many.png", "width": 320, "height": 240}]
        content["categories"] = content["categories"][:1]
        content["annotations"] = [
            {
                "id": 20 * row + column + 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [16 * column, 16 * row, 12, 12],
                "area": 144,
                "iscrowd": 0,
            }
            for row in range(15)
            for column in range(20)
        ]

    setup.edit_json(replace)


def bbox_is(**expected: float) -> Check:
    """The results of boxes; two underscores stand for @."""

    def holds(outcome: Outcome) -> None:
        bbox = results_of(outcome.output)["bbox"]
        for name, value in expected.items():
            key = name.replace("__", "@")
            assert key in bbox, f"there is no bbox/{key}"
            assert abs(bbox[key] - value) < 0.01, f"bbox/{key} is {bbox[key]}, not {value}"

    return holds


# All detections are right, so the precision is 1 up to the recall that their number allows. COCO
# samples the precision at 101 recalls: 0, 0.01, ..., 1.
AP_OF_100_AMONG_300 = 100 * 34 / 101
AP_OF_150_AMONG_300 = 100 * 51 / 101

LIMITS = tuple(
    Row(
        name=f"300 objects in an image, TEST.DETECTIONS_PER_IMAGE {limit}",
        fault=crowd_image,
        command=("TEST.DETECTIONS_PER_IMAGE", str(limit)),
        expect=(works(says=says, holds=bbox_is(AP=AP_OF_100_AMONG_300, **others)),),
        slow=limit != 1000,
    )
    for limit, says, others in [
        (1000, "AP@1000", {"AP__1000": 100.0}),
        (150, "AP@150", {"AP__150": AP_OF_150_AMONG_300}),
        (100, "AP", {}),
    ]
)


def integer_ids(outcome: Outcome) -> None:
    """All files of results can be read by strict readers of COCO's format."""
    from pycocotools.coco import COCO

    folder = outcome.output / "inference" / "te"
    detections = json.loads((folder / "coco_instances_results.json").read_text())
    assert detections, "there are no detections"
    ids = {type(detection["image_id"]) for detection in detections}
    assert ids == {int}, f"image ids of detections are {ids}"
    for path in folder.glob("*coco_format.json"):
        content = json.loads(path.read_text())
        ids = {type(image["id"]) for image in content["images"]}
        assert ids == {int}, f"image ids in {path.name} are {ids}"
        assert content.get("licenses", []) is not None, f"{path.name} has licenses null"
        names = [image["file_name"] for image in content["images"]]
        assert all("im" in name for name in names), f"{path.name} has lost the names: {names}"
        COCO(path).loadRes(detections)


FILES = (
    Row(
        name="result files of a VOC data set",
        layout="voc",
        fault=lambda setup: None,
        expect=(works(holds=integer_ids),),
    ),
    Row(
        name="result files of a COCO data set whose image ids are strings",
        fault=name_images(lambda number: f"image_{number}"),
        expect=(works(holds=integer_ids),),
    ),
)


def write_test_set(edit: Callable[[dict[str, Any]], Any]) -> Fault:
    """Give the test set a JSON file of its own, changed by ``edit``."""

    def fault(setup: Setup) -> None:
        content = json.loads(setup.annotations.read_text())
        edit(content)
        (setup.folder / "test.json").write_text(json.dumps(content))
        setup.config["DATASETS"]["REGISTER"][1]["json"] = "test.json"

    return fault


def voc_test_set_without_xml(setup: Setup) -> None:
    (setup.folder / "none").mkdir()
    entry = setup.config["DATASETS"]["REGISTER"][1]
    (setup.folder / "bare" / "ImageSets" / "Main").mkdir(parents=True)
    (setup.folder / "bare" / "Annotations").mkdir()
    (setup.folder / "JPEGImages").rename(setup.folder / "bare" / "JPEGImages")
    (setup.folder / "JPEGImages").symlink_to(setup.folder / "bare" / "JPEGImages")
    split = setup.folder / "ImageSets" / "Main" / "all.txt"
    (setup.folder / "bare" / "ImageSets" / "Main" / "all.txt").write_bytes(split.read_bytes())
    entry["root"] = "bare"


def declare_bare(setup: Setup) -> None:
    setup.config["DATASETS"]["REGISTER"][1]["annotated"] = False


def predicts_only(outcome: Outcome) -> None:
    """There are detections, but no results."""
    detections = outcome.output / "inference" / "te" / "coco_instances_results.json"
    assert json.loads(detections.read_text()), "there are no detections"
    assert not results_of(outcome.output), f"there are results: {results_of(outcome.output)}"


NO_RESULT = (
    *[
        Row(
            name=f"a test set {name}{', --eval-only' * bool(command)}",
            fault=write_test_set(edit),
            command=command,
            expect=(refused(r"\bte\b|test\.json"),),
            slow=bool(command),
        )
        for command in ((), EVALUATE)
        for name, edit in [
            ('without "annotations"', lambda content: content.pop("annotations")),
            ("without a box", lambda content: content.update(annotations=[])),
        ]
    ],
    Row(
        name="a test set without annotations that is declared so",
        fault=both(write_test_set(lambda content: content.pop("annotations")), declare_bare),
        expect=(works(holds=predicts_only),),
    ),
    Row(
        name="a test set of which no XML file is there",
        layout="voc",
        fault=voc_test_set_without_xml,
        expect=(refused(r"\bte\b|bare"),),
    ),
)


ROWS = (*LIMITS, *FILES, *NO_RESULT)
