"""DATASETS.VAL and several test sets, in YAML and in Python configs."""

import pytest
from conftest import CONFIGS

from apdet.config import read_config
from apdet.data.digits import CLASSES
from apdet.errors import UserError

EXAMPLE = str(CONFIGS / "lazy" / "digits_retinanet_ap.py")


@pytest.fixture
def plan_of(digits):
    """The plan of the example of a Python config, with few small images."""

    def entry(split):
        root, classes = str(digits / "digits"), list(CLASSES)
        return (
            f"{{name: digits_{split}, format: voc, root: {root!r}, split: {split}, "
            f"classes: {classes}}}"
        )

    def plan_of(*overrides, example=EXAMPLE):
        data_sets = f"datasets.register=[{entry('train')},{entry('test')}]"
        return read_config(example, [data_sets, *overrides], device="cpu").plan()

    return plan_of


def file_names(test_set):
    return [image["file_name"] for batch in test_set.build_loader() for image in batch]


def test_a_yaml_config_has_its_validation_sets(config):
    plan = read_config(config, ["DATASETS.VAL", "['digits_train']"]).plan()
    assert [s.name for s in plan.val_sets] == ["digits_train"]
    assert [s.name for s in plan.test_sets] == ["digits_test"]
    assert len(file_names(plan.val_sets[0])) == 12
    assert not read_config(config).plan().val_sets


def test_a_python_config_validates_with_the_loader_of_the_tests(plan_of):
    plan = plan_of("datasets.val=[digits_train]")
    assert [s.name for s in plan.val_sets] == ["digits_train"]
    assert all("train_" in name for name in file_names(plan.val_sets[0]))
    assert all("test_" in name for name in file_names(plan.test_sets[0]))
    assert not plan_of().val_sets


def test_a_python_config_has_every_test_set_that_it_names(plan_of):
    first, second = plan_of("datasets.test=[digits_test,digits_train]").test_sets
    assert (first.name, second.name) == ("digits_test", "digits_train")
    assert (len(file_names(first)), len(file_names(second))) == (4, 12)


def test_a_python_config_may_have_validation_sets_alone_or_none_at_all(plan_of):
    plan = plan_of("datasets.test=[]", "datasets.val=[digits_train]")
    assert len(file_names(plan.val_sets[0])) == 12
    assert not plan.test_sets
    assert not plan_of("datasets.test=[]").test_sets


def test_an_evaluator_of_ones_own_measures_the_data_set_that_it_is_for(plan_of):
    own = "dataloader.evaluator._target_=builtins.dict"
    plan = plan_of("datasets.val=[digits_train]", own)
    for test_set in (*plan.val_sets, *plan.test_sets):
        evaluator = test_set.build_evaluator("folder")
        assert evaluator == {"dataset_name": test_set.name, "output_folder": "folder"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["datasets.val=[digits_train]", "dataloader.test.dataset.names=digits_test"],
            r"datasets.val names 'digits_train', but dataloader.test is of one data set; write "
            r"'\$\{datasets.test.0\}'",
        ),
        (
            [
                "datasets.test=[digits_test,digits_train]",
                "dataloader.evaluator.dataset_name=digits_test",
                "dataloader.evaluator.output_folder=x",
            ],
            "datasets.test names 'digits_train', but dataloader.evaluator is of one data set",
        ),
        (["datasets.test=digits_test"], "datasets.test is 'digits_test'; give a list of names"),
        (["datasets.val=digits_test"], "datasets.val is 'digits_test'; give a list of names"),
        (["datasets.val=[gone]"], "datasets.val names 'gone'"),
    ],
)
def test_a_data_set_that_would_not_be_evaluated_is_refused_by_name(plan_of, overrides, message):
    with pytest.raises(UserError, match=message):
        plan_of(*overrides)


def test_several_scales_need_a_mapper_that_can_be_changed(plan_of, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        f"""
from detectron2.config import LazyConfig
from apdet.data.mapper import BoxMapper

names = ("datasets", "model", "dataloader", "optimizer", "lr_multiplier", "train")
datasets, model, dataloader, optimizer, lr_multiplier, train = LazyConfig.load({EXAMPLE!r}, names)
dataloader.test.mapper = BoxMapper(is_train=False, augmentations=[], image_format="BGR")
train.multi_scale_testing = {{"sizes": [64], "max_size": 64}}
"""
    )
    with pytest.raises(UserError, match=r"write dataloader\.test\.mapper as a call"):
        plan_of(example=path)
