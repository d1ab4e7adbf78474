"""Checkpoints whose classes are not those of the data, or stand in another order."""

from typing import Any

from faults.checkpoint_edits import drop, start_from
from faults.checks import finds_all
from faults.coco_edits import add_category, put
from faults.fault import Fault, both
from faults.row import Row, as_flawless, refused, works
from faults.setup import Setup

EVALUATE = ("--eval-only",)
RESUME = ("--resume",)
OTHER_NAMES = r"(cat[\s\S]*lion|lion[\s\S]*cat)"


def reorder(setup: Setup) -> None:
    """Number the categories the other way round, as another export may do."""

    def renumber(content: dict[str, Any]) -> None:
        content["categories"] = [
            {**category, "id": 10 - category["id"]} for category in content["categories"]
        ]
        for annotation in content["annotations"]:
            annotation["category_id"] = 10 - annotation["category_id"]

    setup.edit_json(renumber)


def list_classes(*names: str) -> Fault:
    """Give the data sets a list of classes."""

    def fault(setup: Setup) -> None:
        for entry in setup.config["DATASETS"]["REGISTER"]:
            entry["classes"] = list(names)

    return fault


def continue_trained(setup: Setup) -> None:
    """Make the training continue that of the trained detector, for two more iterations."""
    setup.copy_run(setup.lab.trained().parent)
    setup.set("MODEL.WEIGHTS", "")
    setup.set("SOLVER.MAX_ITER", 62)


rename = put("categories", first=1, name="lion")
add_class = add_category("lion", boxes=1)

ROWS = (
    Row(
        name="evaluated on a re-export with other category ids",
        fault=reorder,
        command=EVALUATE,
        expect=(as_flawless(weights=False),),
    ),
    Row(
        name="evaluated with `classes` in another order",
        fault=list_classes("cow", "cat", "dog"),
        command=EVALUATE,
        expect=(as_flawless(weights=False),),
    ),
    Row(
        name="resumed on a re-export with other category ids",
        fault=both(continue_trained, reorder),
        command=RESUME,
        expect=(works(holds=finds_all),),
    ),
    Row(
        name="evaluated by --resume on a re-export with other category ids",
        fault=both(continue_trained, reorder),
        command=("--eval-only", "--resume"),
        expect=(works(holds=finds_all),),
    ),
    Row(
        name="fine-tuned on a re-export with other category ids",
        fault=reorder,
        expect=(works(holds=finds_all),),
    ),
    Row(
        name="evaluated on classes of other names",
        fault=rename,
        command=EVALUATE,
        expect=(refused(OTHER_NAMES),),
    ),
    Row(
        name="resumed on classes of other names",
        fault=both(continue_trained, rename),
        command=RESUME,
        expect=(refused(OTHER_NAMES),),
    ),
    Row(
        name="evaluated on a class more",
        fault=add_class,
        command=EVALUATE,
        expect=(refused("lion|classes"),),
    ),
    Row(
        name="resumed on a class more",
        fault=both(continue_trained, add_class),
        command=RESUME,
        expect=(refused("lion|classes"),),
    ),
    Row(
        name="a checkpoint without names of classes",
        fault=start_from(drop("classes")),
        command=EVALUATE,
        expect=(
            works(
                says="(class|name)[^\n]*order|order[^\n]*(class|name)",
                twin=lambda setup: None,
                twin_weights=False,
            ),
        ),
    ),
    Row(
        name="a checkpoint without names of classes, evaluated on a class more",
        fault=both(start_from(drop("classes")), add_class),
        command=EVALUATE,
        expect=(refused("class"),),
    ),
)
