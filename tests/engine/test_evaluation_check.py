"""An evaluation without a result is refused before it starts, and so are names of no result."""

import pytest

from apdet.config.names import yaml_key
from apdet.config.plan import EvaluationTasks, MultiScaleTesting, TestSet, TrainingPlan
from apdet.config.schedule import Schedule
from apdet.engine.evaluation_check import check_evaluation, log_validation
from apdet.engine.result_keys import best_metric_key, evaluated_sets, expected_results, result_keys
from apdet.errors import UserError

BOX = [10, 10, 60, 60]


def plan_of(test=(), val=(), **options):
    """A plan on registered data sets, of which only the evaluation is of interest."""
    sets = {name: [TestSet(n, None) for n in names] for name, names in [("t", test), ("v", val)]}
    unused = dict.fromkeys(
        ("config", "load_train_dicts", "build_model", "build_optimizer", "build_lr_scheduler")
    )
    return TrainingPlan(
        **unused, build_train_loader=None, key_of=yaml_key, output_dir="", device="cpu", seed=0,
        architecture="", classes=(), train_sets=(), schedule=Schedule(0.1, 1, 1, 0),
        **{"test_sets": sets["t"], "val_sets": sets["v"], **options},
    )  # fmt: skip


@pytest.fixture
def pets(register, make_image):
    """Registers annotated data sets of an image with a cat each."""

    def add(*names, num_objects=1, **metadata):
        for name in names:
            image = make_image("a", [BOX] * num_objects, [0] * num_objects, file_name="a.jpg")
            register(name, [image], thing_classes=["cat"], **metadata)

    return add


@pytest.fixture
def check():
    """Checks a plan; errors name keys of YAML."""

    def check(plan):
        with plan.naming_keys():
            check_evaluation(plan)
            log_validation(plan)

    return check


def test_a_training_evaluates_the_validation_sets_and_at_its_end_the_test_sets_too():
    def names(plan, **options):
        return [test_set.name for test_set in evaluated_sets(plan, **options)]

    assert names(plan_of(["te"], ["va"]), final=False) == ["va"]
    assert names(plan_of(["te"], ["va"])) == ["va", "te"]
    assert names(plan_of(["te", "more"]), final=False) == ["te", "more"]
    assert names(plan_of(["same", "te"], ["same"])) == ["same", "te"]


def test_keys_name_the_data_set_if_there_are_several(pets):
    pets("te", "va")
    one, two = plan_of(["te"]), plan_of(["te"], ["va"])
    assert "bbox/AP-cat" in result_keys(one, evaluated_sets(one))
    assert "va/bbox/AP-cat" in result_keys(two, evaluated_sets(two))
    assert {key.split("/")[0] for key in result_keys(two, evaluated_sets(two))} == {"va", "te"}
    scales = MultiScaleTesting([64], 64)
    for plan, key in [(one, "bbox_TTA/AP"), (two, "te_TTA/bbox/AP")]:
        assert key not in result_keys(plan, evaluated_sets(plan))
        scaled = plan_of(["te"], [s.name for s in plan.val_sets], multi_scale=scales)
        assert key in result_keys(scaled, evaluated_sets(scaled))


@pytest.mark.parametrize(
    ("test", "val", "metric", "key"),
    [
        (["te"], [], "bbox/AP", "bbox/AP"),
        (["te"], ["va"], "bbox/AP50", "va/bbox/AP50"),
        (["te"], ["va"], "va/bbox/AP", "va/bbox/AP"),
        (["te", "va"], [], "bbox/AP", "te/bbox/AP"),
        (["te", "va"], [], "va/bbox/AP", "va/bbox/AP"),
        (["raw", "te"], [], "bbox/AP", "te/bbox/AP"),
    ],
)
def test_the_best_checkpoint_is_chosen_on_the_first_set_that_has_the_metric(
    pets, check, test, val, metric, key
):
    pets("te", "va")
    pets("raw", annotated=False, num_objects=0)
    plan = plan_of(test, val, best_metric=metric)
    check(plan)
    assert best_metric_key(plan) == key


@pytest.mark.parametrize("metric", ["bbox/AP_50", "AP", "segm/AP", "te/bbox/AP", "bbox/AP-dog"])
def test_a_metric_that_no_validation_set_has_is_refused(pets, check, metric):
    pets("te", "va")
    with pytest.raises(UserError, match=r"TEST\.BEST_CHECKPOINT_METRIC is .* choose one of"):
        check(plan_of(["te"], ["va"], best_metric=metric))


def test_an_evaluator_of_ones_own_may_have_any_result(register, check):
    register("odd", [])
    own = [TestSet(name, None, build_evaluator=lambda folder: None) for name in ("odd", "va")]
    expected = [["mine", "score", 1, 0]]
    plan = plan_of(test_sets=own[:1], best_metric="mine/score", expected_results=expected)
    check(plan)
    assert best_metric_key(plan) == "mine/score"
    for metric in ("mine/score", "va/mine/score"):
        plan = plan_of(test_sets=own[:1], val_sets=own[1:], best_metric=metric)
        assert best_metric_key(plan) == "va/mine/score"


@pytest.mark.parametrize("metadata", [{}, {"annotated": False, "declared_unannotated": False}])
def test_a_test_set_without_an_object_is_refused_by_its_name(pets, check, metadata):
    pets("te")
    pets("bare", num_objects=0, **metadata)
    with pytest.raises(UserError, match=r"'bare' has no object .* `annotated: false` .*REGISTER"):
        check(plan_of(["te", "bare"]))


def test_objects_that_are_to_be_ignored_do_not_count(register, make_image, check):
    register("crowds", [make_image("a", [BOX, BOX], [0, 0], ignored=[1, 1])])
    with pytest.raises(UserError, match=r"'crowds' has no object .*\(2 boxes are difficult or cro"):
        check(plan_of(["crowds"]))


def test_a_test_set_that_is_declared_unannotated_is_taken_but_cannot_validate(pets, check):
    pets("te")
    pets("raw", num_objects=0, annotated=False, declared_unannotated=True)
    check(plan_of(["raw"]))
    check(plan_of(["te", "raw"]))
    with pytest.raises(UserError, match="validation set 'raw' has no object"):
        check(plan_of(["te"], ["raw"]))


def test_more_objects_than_the_model_keeps_detections_are_said(pets, check, caplog):
    pets("te", num_objects=12)
    check(plan_of(["te"], tasks=EvaluationTasks(detections_per_image=12)))
    assert "objects" not in caplog.text
    check(plan_of(["te"], tasks=EvaluationTasks(detections_per_image=11)))
    assert "te: 1 images have more than 11 objects, first a.jpg" in caplog.text
    assert "TEST.DETECTIONS_PER_IMAGE is 11" in caplog.text


def test_expected_results_are_of_the_test_set_unless_they_name_another(pets):
    pets("te", "va")
    rows = [["bbox", "AP", 40, 1], ["va/bbox", "AP", 30, 1]]
    keys = [row.key for row in expected_results(plan_of(["te"], ["va"], expected_results=rows))]
    assert keys == ["te/bbox/AP", "va/bbox/AP"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["box", "AP", 40, 1]], "expects 'box/AP', which is not measured; choose one of bbox/AP"),
        (
            [["bbox", "AP_50", 40, 1]],
            "expects 'bbox/AP_50', which is not measured; .* bbox/AP50, bbox/AP75, bbox/AP$",
        ),
        ([["bbox", "AP", 40]], r"has \['bbox', 'AP', 40\]; an entry is"),
    ],
)
def test_expected_results_that_cannot_be_are_refused(pets, check, rows, message):
    pets("te")
    with pytest.raises(UserError, match=f"TEST.EXPECTED_RESULTS {message}"):
        check(plan_of(["te"], expected_results=rows))
