import copy

import pytest
import torch
from detectron2.config import LazyCall
from omegaconf import OmegaConf

from apdet.engine.agreement import _values, find_difference

FACTS = {
    "config": {"SOLVER.BASE_LR": "0.1", "SEED": "1"},
    "annotations": {"digits_train": "aa"},
    "versions": {"torch": "2.4", "apdet": "0.3"},
}


def difference(kind, name, value):
    other = copy.deepcopy(FACTS)
    other[kind][name] = value
    return find_difference([FACTS, FACTS, other], ["a", "a", "b"])


def test_processes_that_have_read_the_same_agree():
    assert find_difference([FACTS, copy.deepcopy(FACTS)], ["a", "b"]) == ""


@pytest.mark.parametrize(
    ("kind", "name", "value", "told"),
    [
        ("config", "SOLVER.BASE_LR", "0.2", "SOLVER.BASE_LR is 0.2, not 0.1"),
        ("config", "SOLVER.NEW", "1", "SOLVER.NEW is 1, not missing"),
        ("annotations", "digits_train", "ab", "digits_train is ab, not aa"),
        ("versions", "torch", "2.5", "torch is 2.5, not 2.4"),
    ],
)
def test_what_differs_is_named_with_its_process(kind, name, value, told):
    message = difference(kind, name, value)
    assert message.startswith(f"process 2 on b and process 0 on a differ in their {kind}: {told}")
    for other in set(FACTS) - {kind}:
        assert f"{other}:" not in message


def test_a_long_list_of_differences_is_cut_off():
    other = {**FACTS, "config": {f"KEY{i}": "x" * 1000 for i in range(1000)}}
    message = find_difference([FACTS, other], ["a", "b"])
    assert len(message) < 600
    assert "and 999 more" in message


def test_a_python_config_has_the_same_values_in_each_process():
    cfg = OmegaConf.create({"lr": 0.1, "model": {"sizes": [1, 2]}}, flags={"allow_objects": True})
    cfg.loss = LazyCall(torch.nn.functional.l1_loss)(beta="${lr}")
    cfg.object = object()
    values = dict(_values(cfg))
    assert values["lr"] == "0.1"
    assert values["model.sizes.1"] == "2"
    assert values["loss.beta"] == "'${lr}'"
    assert "0x" not in str(values)
    assert values == dict(_values(copy.deepcopy(cfg)))
