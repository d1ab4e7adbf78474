"""The schedule follows the batch size and the number of processes, and never becomes 0."""

import logging
from types import SimpleNamespace

import pytest
import torch
from conftest import CONFIGS
from detectron2.engine import DefaultTrainer
from detectron2.solver import build_lr_scheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from apdet.config import load_config, read_config, scale_to_batch_size
from apdet.config.lazy import load_lazy_config
from apdet.config.lazy_plan import plan_from_lazy
from apdet.config.schedule import Schedule
from apdet.errors import UserError

EXAMPLE = str(CONFIGS / "lazy" / "digits_retinanet_ap.py")
counts = st.integers(1, 200)


@pytest.fixture
def reference(tmp_path):
    """A config for 8 processes with 2 images each."""
    path = tmp_path / "c.yaml"
    path.write_text(
        "SOLVER: {REFERENCE_WORLD_SIZE: 8, IMS_PER_BATCH: 16, MAX_ITER: 9000, STEPS: [6000, 8000], "
        "BASE_LR: 0.02, WARMUP_ITERS: 1000, CHECKPOINT_PERIOD: 500}\nTEST: {EVAL_PERIOD: 250}"
    )
    return path


@settings(deadline=None)
@given(
    steps=st.lists(counts, unique=True, max_size=4).map(sorted),
    max_iter=counts,
    checkpoint_period=counts,
    eval_period=st.integers(0, 200),
    batch_size=counts,
    reference=counts,
)
def test_nothing_is_scaled_to_0_and_the_steps_can_be_trained_with(
    steps, max_iter, checkpoint_period, eval_period, batch_size, reference
):
    steps = tuple(step for step in steps if step != max_iter)
    schedule = Schedule(0.1, max_iter, checkpoint_period, eval_period, 7, steps)
    scaled = schedule.scaled(reference_batch_size=reference, batch_size=batch_size)
    assert scaled.max_iter >= 1
    assert scaled.checkpoint_period >= 1
    assert (scaled.eval_period == 0) == (eval_period == 0)
    assert scaled.warmup_iters == round(7 * reference / batch_size)
    # Detectron2 raises an error if the steps do not increase or one is the end of the training.
    cfg = load_config(CONFIGS / "Base-RetinaNet-AP.yaml")
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = scaled.max_iter, scaled.steps
    build_lr_scheduler(cfg, torch.optim.SGD([torch.zeros(1)], lr=0.1))


def test_periods_scaled_to_nearly_0_are_1():
    schedule = Schedule(0.1, max_iter=3, checkpoint_period=1, eval_period=1, warmup_iters=1)
    scaled = schedule.scaled(reference_batch_size=1, batch_size=8)
    assert (scaled.max_iter, scaled.checkpoint_period, scaled.eval_period) == (1, 1, 1)
    assert scaled.warmup_iters == 0


def test_steps_that_coincide_are_merged_and_the_log_says_so(caplog):
    schedule = Schedule(0.1, 100, 10, 10, steps=(50, 52, 80))
    with caplog.at_level(logging.WARNING):
        scaled = schedule.scaled(reference_batch_size=1, batch_size=10)
    assert scaled.steps == (5, 8)
    assert "the learning rate falls 2 times, not 3 times" in caplog.text
    caplog.clear()
    assert schedule.scaled(reference_batch_size=2, batch_size=1).steps == (100, 104, 160)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("num_processes", [1, 4, 8, 16])
def test_the_reference_world_size_scales_as_detectron2_does(reference, num_processes):
    cfg = load_config(reference)
    scaled = scale_to_batch_size(cfg, num_processes=num_processes)
    expected = DefaultTrainer.auto_scale_workers(cfg, num_processes)
    assert scaled.dump() == expected.dump()
    assert 2 * num_processes == scaled.SOLVER.IMS_PER_BATCH
    # What is written to config.yaml is not scaled a second time.
    assert scale_to_batch_size(scaled, num_processes=num_processes) == scaled


def test_the_number_of_processes_is_that_of_this_training(reference, monkeypatch):
    monkeypatch.setattr("apdet.config.schedule.comm", SimpleNamespace(get_world_size=lambda: 4))
    assert scale_to_batch_size(load_config(reference)).SOLVER.IMS_PER_BATCH == 8


def test_a_python_config_scales_likewise():
    overrides = [
        *("train.reference_world_size=4", "dataloader.train.total_batch_size=8"),
        *("train.max_iter=120", "train.eval_period=0", "train.checkpointer.period=1"),
        "optimizer.lr=0.1",
    ]
    cfg = load_lazy_config(EXAMPLE, overrides)
    cfg.datasets.update(register=[], train=[], test=[])
    for _ in range(2):  # not scaled a second time
        plan = plan_from_lazy(cfg, num_processes=12)
        schedule, loader = plan.schedule, cfg.dataloader.train
        assert (schedule.max_iter, schedule.checkpoint_period, schedule.eval_period) == (40, 1, 0)
        assert schedule.base_lr == cfg.optimizer.lr == pytest.approx(0.3)
        assert (loader.total_batch_size, cfg.train.reference_world_size) == (24, 12)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["SOLVER.REFERENCE_WORLD_SIZE", "2"],  # the config sets REFERENCE_BATCH_SIZE
            r"SOLVER.REFERENCE_WORLD_SIZE and SOLVER.REFERENCE_BATCH_SIZE are both set",
        ),
        (
            ["SOLVER.REFERENCE_BATCH_SIZE", "0", "SOLVER.REFERENCE_WORLD_SIZE", "3"],
            r"SOLVER.REFERENCE_WORLD_SIZE is 3, .* set SOLVER.IMS_PER_BATCH to a multiple of 3",
        ),
    ],
)
def test_references_that_do_not_fit_are_refused_by_name(config, overrides, message):
    with pytest.raises(UserError, match=message):
        read_config(config, overrides).plan()
