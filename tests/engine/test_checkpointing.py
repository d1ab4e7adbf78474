"""The hooks that write checkpoints, without a training."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from apdet.checkpoint import Checkpointer
from apdet.engine.checkpointing import BestCheckpointer

METRIC = "bbox/AP"


def resume(folder, state, *, metric=METRIC, data_sets=("val",)):
    """The hook of a training in a folder that resumes from a checkpoint with this state of it."""
    hook = BestCheckpointer(2, Checkpointer(nn.Linear(2, 2), folder), metric, data_sets=data_sets)
    hook.load_state_dict(state)
    hook.trainer = SimpleNamespace(start_iter=4, max_iter=9, last_iter=4, storage=EventStorage(4))
    hook.before_train()
    return hook


def state(ap, iteration=3, **more):
    return {"best_metric": ap, "best_iter": iteration, "val_metric": METRIC, **more}


def write_best(folder, content):
    if isinstance(content, dict):
        content = {"model": {}, **content}
    torch.save(content, folder / "model_best.pth")


@pytest.mark.parametrize(
    ("resumed", "in_file", "best"),
    [(10.0, 50.0, 50.0), (50.0, 10.0, 50.0), (None, 0.0, 0.0), (0.0, None, 0.0)],
)
def test_the_better_metric_of_the_resumed_and_the_best_checkpoint_counts(
    tmp_path, resumed, in_file, best
):
    write_best(tmp_path, {"trainer": {"hooks": {"BestCheckpointer": state(in_file)}}})
    assert resume(tmp_path, state(resumed)).best_metric == best


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"trainer": [1]},
        {"trainer": {"hooks": [1]}},
        {"trainer": {"hooks": {"BestCheckpointer": "x"}}},
        {"trainer": {"hooks": {"BestCheckpointer": state("90")}}},
        {"trainer": {"hooks": {"BestCheckpointer": {"best_metric": 90.0}}}},
    ],
)
def test_a_best_checkpoint_that_does_not_say_its_metric_does_not_change_it(tmp_path, content):
    write_best(tmp_path, content)
    assert resume(tmp_path, state(10.0)).best_metric == 10.0


@pytest.mark.parametrize("content", [None, [1], 3])
def test_a_best_checkpoint_that_is_missing_or_broken_is_to_be_replaced(tmp_path, content):
    if content is not None:
        write_best(tmp_path, content)
    assert resume(tmp_path, state(10.0)).best_metric is None


@pytest.mark.parametrize("changed", [{"metric": "bbox/AP50"}, {"data_sets": ["other"]}])
def test_results_by_another_metric_or_on_other_data_are_not_compared(tmp_path, changed):
    former = resume(tmp_path, state(10.0)).state_dict()
    write_best(tmp_path, {"trainer": {"hooks": {"BestCheckpointer": former}}})
    assert resume(tmp_path, former, **changed).best_metric is None


def test_a_best_metric_that_is_no_number_is_refused(tmp_path):
    with pytest.raises(ValueError, match="its best metric is '90', not a number"):
        resume(tmp_path, state("90"))


def test_a_metric_of_no_objects_chooses_nothing_and_the_log_says_so(tmp_path, caplog):
    hook = resume(tmp_path, state(None))
    with hook.trainer.storage as storage:
        storage.put_scalar(METRIC, float("nan"))
    hook.trainer.iter = 9
    hook.after_train()
    assert f"{METRIC} is nan, for want of objects, so it chooses no model_best" in caplog.text
    assert not (tmp_path / "model_best.pth").exists()
