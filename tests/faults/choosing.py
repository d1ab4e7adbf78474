"""What chooses the best model, and what results are compared with."""

import json

from faults.checks import has_files, logged, results_of
from faults.fault import Fault, both, set_keys
from faults.row import Expected, Row, refused, works
from faults.running import Outcome
from faults.setup import Setup

EVALUATE = ("--eval-only",)
MODEL_BEST = has_files("model_best.pth")


def two_test_sets(setup: Setup) -> None:
    entries = setup.config["DATASETS"]["REGISTER"]
    entries.append({**entries[1], "name": "te2"})
    setup.set("DATASETS.TEST", ["te", "te2"])
    setup.set("TEST.EVAL_PERIOD", 1)


def best_metric(name: str) -> Fault:
    return set_keys(TEST__BEST_CHECKPOINT_METRIC=name, TEST__EVAL_PERIOD=1)


def expect_results(*rows: list) -> Fault:
    return set_keys(TEST__EXPECTED_RESULTS=list(rows))


BEST = (
    Row(
        name="two test sets and the default metric of the best model",
        fault=two_test_sets,
        expect=(works(holds=MODEL_BEST), refused("te/bbox/AP")),
    ),
    Row(
        name="two test sets and a metric of the first",
        fault=both(two_test_sets, best_metric("te/bbox/AP")),
        expect=(works(holds=MODEL_BEST),),
    ),
    *[
        Row(
            name=f"TEST.BEST_CHECKPOINT_METRIC {name}, which does not exist",
            fault=best_metric(name),
            expect=(refused("BEST_CHECKPOINT_METRIC"),),
        )
        for name in ("bbox/AP_50", "bbox/ap", "AP", "voc/mAP50_area", "segm/AP")
    ],
    Row(
        name="TEST.BEST_CHECKPOINT_METRIC of one class",
        fault=best_metric("bbox/AP-cat"),
        expect=(works(holds=MODEL_BEST),),
    ),
    *[
        Row(
            name=f"TEST.EXPECTED_RESULTS {name}, --eval-only",
            fault=expect_results(row),
            command=EVALUATE,
            expect=(expected,),
        )
        for name, row, expected in [
            ("is not met", ["bbox", "AP50", 50.0, 1.0], Expected(exit_code=1, says="expected")),
            ("is met", ["bbox", "AP50", 100.0, 1.0], works(says="verif|expected")),
            ("is mistyped", ["bbox", "AP_50", 99.0, 1.0], Expected(exit_code=1, says="expected")),
            (
                "is of another task",
                ["box", "AP50", 99.0, 1.0],
                Expected(exit_code=1, says="expected"),
            ),
        ]
    ],
)


def with_validation(setup: Setup) -> None:
    entries = setup.config["DATASETS"]["REGISTER"]
    entries.append({**entries[1], "name": "va"})
    setup.set("DATASETS.VAL", ["va"])
    setup.set("TEST.EVAL_PERIOD", 1)


def measures_both(outcome: Outcome) -> None:
    results = results_of(outcome.output)
    ap50 = {name: results[name]["bbox"]["AP50"] for name in ("te", "va")}
    assert min(ap50.values()) > 90, f"AP50 is {ap50}"
    assert len(logged(outcome, "va/bbox/AP")) == 2, "the validation set is not measured each time"
    MODEL_BEST(outcome)


VALIDATION = (
    Row(
        name="DATASETS.VAL chooses the best model, and the test set is still measured",
        fault=with_validation,
        expect=(works(says="va/bbox/AP", holds=measures_both),),
    ),
    Row(
        name="no DATASETS.VAL: the log says that the test set chooses the best model",
        fault=set_keys(TEST__EVAL_PERIOD=1),
        expect=(works(says=r"DATASETS\.(VAL|TEST)|no validation set|test set[^\n]*(choose|best)"),),
    ),
    Row(
        name="DATASETS.VAL names no data set",
        fault=set_keys(DATASETS__VAL=["nowhere"]),
        expect=(refused("nowhere"),),
    ),
)


def empty_comparison(setup: Setup) -> None:
    """The folder of a comparison that crashed while it wrote its state."""
    folder = setup.output / "ap_loss" / "lr_0.001" / "seed_1"
    folder.mkdir(parents=True)
    (folder / "comparison.json").touch()


def comparison_is_whole(outcome: Outcome) -> None:
    content = json.loads((outcome.output / "comparison.json").read_text())
    assert [row["loss"] for row in content["losses"]] == ["ap_loss"], f"it holds {content}"


COMPARISON = (
    Row(
        name="comparison.json of a run is empty",
        program="compare",
        fault=empty_comparison,
        command=("--losses", "ap_loss", "--out", "{output}"),
        expect=(works(says="ap_loss", holds=comparison_is_whole),),
        slow=True,
    ),
)

ROWS = (*BEST, *VALIDATION, *COMPARISON)
