"""A training that ends anywhere goes on as if it had not ended."""

import os
import shutil
import signal

import pytest
import torch
from conftest import weights_in
from detectron2.utils.events import get_event_storage

from apdet.checkpoint import Checkpointer
from apdet.config import read_config
from apdet.engine import Trainer, hooks
from apdet.errors import UserError
from apdet.signals import Stopped, stop_signals

# AP after iterations 1, 3 and 5: the best model is that of iteration 3.
AP_AT = {1: 10.0, 3: 50.0, 5: 20.0, 6: 30.0}


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def evaluations(monkeypatch):
    """Replaces evaluations; the list of the iterations at which they took place."""
    iterations = []

    def evaluate(plan, model, *, final=False, multi_scale=False):
        iterations.append(get_event_storage().iter)
        return {"bbox": {"AP": AP_AT.get(iterations[-1], 0.0)}}

    monkeypatch.setattr(hooks, "evaluate", evaluate)
    return iterations


@pytest.fixture
def train(config, tmp_path):
    """A function that trains in the folder of this name, and returns the trainer."""

    def train(name, *overrides, resume=False, stop=None):
        keys = ["SEED", 1, "SOLVER.MAX_ITER", 6, "TEST.EVAL_PERIOD", 2]
        keys += ["SOLVER.WARMUP_ITERS", 0, "SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR"]
        keys += ["SOLVER.STEPS", "()", "OUTPUT_DIR", tmp_path / name, *overrides]
        torch.manual_seed(0)  # of the initial weights
        trainer = Trainer(read_config(config, list(map(str, keys))).plan(), stop=stop)
        trainer.resume_or_load(resume=resume)
        trainer.train()
        return trainer

    return train


def assert_same_bits(folder, expected, *names):
    for name in names or ("model_best.pth", "model_final.pth"):
        weights, others = weights_in(folder / name), weights_in(expected / name)
        torch.testing.assert_close(weights, others, rtol=0, atol=0, msg=name)


def after_save(name, error):
    def save(self, saved_name, _save=Checkpointer.save, **kwargs):
        _save(self, saved_name, **kwargs)
        if saved_name == name:
            raise error

    return Checkpointer, "save", save


def in_evaluation(number, error):
    def evaluate(plan, model, _evaluate=None, **kwargs):
        raise error

    return hooks, "evaluate", evaluate


def before_tag(name, error):
    def tag(self, filename, _tag=Checkpointer.tag_last_checkpoint):
        if filename == name:
            raise error
        _tag(self, filename)

    return Checkpointer, "tag_last_checkpoint", tag


PLACES = {
    "after the periodic checkpoint": after_save("model_0000003", Killed()),
    "after the best checkpoint": after_save("model_best", Killed()),
    "before last_checkpoint is written": before_tag("model_0000003.pth", Killed()),
    "in the first evaluation": in_evaluation(1, Killed()),
    "before the final checkpoint": after_save("model_0000005", Killed()),
    "after the final checkpoint": after_save("model_final", Killed()),
}


@pytest.mark.parametrize("period", [2, 3])
def test_killed_anywhere_it_ends_with_the_same_weights_and_the_same_best_model(
    train, evaluations, tmp_path, monkeypatch, period
):
    checkpoints = ["SOLVER.CHECKPOINT_PERIOD", period]
    train("straight", *checkpoints)
    assert evaluations == [1, 3, 6]
    for place, patch in PLACES.items():
        with monkeypatch.context() as patched:
            patched.setattr(*patch)
            try:
                train(place, *checkpoints)
            except Killed:
                pass
            else:
                assert period == 3, f"not killed {place}"  # there is no model_0000003
        train(place, *checkpoints, resume=True)
        assert_same_bits(tmp_path / place, tmp_path / "straight")


def test_the_best_checkpoint_holds_its_own_metric_and_is_not_the_one_to_resume_from(
    train, evaluations, tmp_path
):
    train("run")
    best = torch.load(tmp_path / "run" / "model_best.pth", weights_only=True)
    assert best["trainer"]["iteration"] == best["iteration"] == 3
    assert best["trainer"]["hooks"]["BestCheckpointer"]["best_metric"] == AP_AT[3]
    assert (tmp_path / "run" / "last_checkpoint").read_text() == "model_final.pth"


@pytest.mark.parametrize("max_iter", [3, 5])
def test_a_training_that_is_shortened_below_its_checkpoint_keeps_what_it_has_learnt(
    train, evaluations, tmp_path, caplog, max_iter
):
    train("straight", "SOLVER.MAX_ITER", 8)
    train("run")
    (tmp_path / "run" / "last_checkpoint").write_text("model_0000005.pth")
    (tmp_path / "run" / "model_final.pth").unlink()
    train("run", "SOLVER.MAX_ITER", max_iter, resume=True)
    message = f"MAX_ITER is {max_iter}, but the checkpoint was trained for 6 iterations"
    assert any(message in record.message for record in caplog.records)
    final, last = (weights_in(tmp_path / "run" / f"model_{n}.pth") for n in ("final", "0000005"))
    torch.testing.assert_close(final, last, rtol=0, atol=0)
    train("run", "SOLVER.MAX_ITER", 8, resume=True)
    assert_same_bits(tmp_path / "run", tmp_path / "straight", "model_final.pth")


@pytest.mark.parametrize("is_old", [False, True])
def test_an_extended_training_is_one_that_was_that_long_from_the_start(
    train, evaluations, tmp_path, is_old
):
    train("straight")
    train(
        "run",
        "SOLVER.MAX_ITER",
        3,
        "TEST.EVAL_PERIOD",
        0,
        "TEST.BEST_CHECKPOINT_METRIC",
        "bbox/AP50",
    )
    if is_old:  # 0.2 resumed from the best checkpoint, which counted one iteration too many
        content = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)
        content["iteration"] = content["trainer"]["iteration"] = 3
        torch.save(content, tmp_path / "run" / "model_best.pth")
        (tmp_path / "run" / "last_checkpoint").write_text("model_best.pth")
    trainer = train("run", resume=True)
    assert trainer.start_iter == 3
    assert_same_bits(tmp_path / "run", tmp_path / "straight", "model_final.pth")


def test_a_worse_evaluation_after_the_resume_does_not_replace_the_best_model(
    train, evaluations, tmp_path, monkeypatch
):
    best = tmp_path / "run" / "model_best.pth"
    # The best model is that of the last evaluation, which comes after the last checkpoint.
    monkeypatch.setitem(AP_AT, 4, AP_AT[3] + 1)
    train("run", "SOLVER.MAX_ITER", 4)
    content = best.read_bytes()
    train("run", resume=True)
    assert evaluations == [1, 4, 3, 6]
    assert best.read_bytes() == content


def test_another_seed_on_a_resume_has_no_effect_and_is_told(train, evaluations, tmp_path, caplog):
    train("straight")
    train("run", "SOLVER.MAX_ITER", 2)
    train("run", "SOLVER.MAX_ITER", 3, resume=True)
    assert "keeps its seed" not in caplog.text
    train("run", "SEED", 4, resume=True)
    assert "SEED is 4, but a resumed training keeps its seed, 1" in caplog.text
    assert_same_bits(tmp_path / "run", tmp_path / "straight", "model_final.pth")


def test_the_learning_rate_of_the_config_takes_effect_on_a_resume(train, evaluations, caplog):
    first = train("run", "SOLVER.MAX_ITER", 2, "SOLVER.WEIGHT_DECAY", 0.001)
    before = first.optimizer.state_dict()
    rates = [group["lr"] for group in before["param_groups"]]
    momentum = before["state"][0]["momentum_buffer"].clone()
    caplog.set_level("INFO")

    # At the end of the training, so that no step changes the state again.
    half = ["SOLVER.MAX_ITER", 2, "SOLVER.BASE_LR", 0.0005, "SOLVER.WEIGHT_DECAY", 0.002]
    second = train("run", *half, resume=True)
    after = second.optimizer.state_dict()
    assert [group["lr"] for group in after["param_groups"]] == [rate / 2 for rate in rates]
    assert {group["weight_decay"] for group in after["param_groups"]} == {0.002, 0.0}
    torch.testing.assert_close(after["state"][0]["momentum_buffer"], momentum, rtol=0, atol=0)
    assert "base learning rate is now 0.0005; the checkpoint was trained with 0.001" in caplog.text


def test_the_schedule_of_the_config_takes_effect_on_a_resume(train, evaluations):
    train("run", "SOLVER.MAX_ITER", 3)
    trainer = train("run", "SOLVER.STEPS", "(4,)", "SOLVER.GAMMA", 0.5, resume=True)
    history = trainer.storage.history("lr").values()
    assert [(value, iteration) for value, iteration in history] == [
        *((pytest.approx(0.001), 3), (pytest.approx(0.0005), 4), (pytest.approx(0.0005), 5))
    ]


def test_the_newest_checkpoints_are_kept_also_over_a_resume(train, evaluations, tmp_path):
    keys = ["SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.CHECKPOINTS_TO_KEEP", 2]
    for number_of_iterations in (4, 6):
        train("run", *keys, "SOLVER.MAX_ITER", number_of_iterations, resume=True)
        expected = {number_of_iterations - 2, number_of_iterations - 1}
        names = {path.name for path in (tmp_path / "run").glob("model_*.pth")}
        assert names == {
            *(f"model_{i:07d}.pth" for i in expected), "model_best.pth", "model_final.pth"
        }  # fmt: skip
    with pytest.raises(UserError, match=r"SOLVER\.CHECKPOINTS_TO_KEEP is -1"):
        train("other", "SOLVER.CHECKPOINTS_TO_KEEP", -1)


def signalling(call, number, signum=signal.SIGTERM):
    """Replace a function by one that sends this process a signal in its call ``number``."""
    calls = []

    def signal_and_call(*args, **kwargs):
        calls.append(args)
        if len(calls) == number:
            signal.raise_signal(signum)
        return call(*args, **kwargs)

    return signal_and_call


@pytest.mark.parametrize(("number_of_step", "last"), [(1, 0), (4, 3), (6, 5)])
def test_a_signal_ends_the_training_after_the_step_with_a_checkpoint(
    train, evaluations, tmp_path, monkeypatch, number_of_step, last
):
    train("straight", "SOLVER.CHECKPOINT_PERIOD", 100)
    evaluations.clear()
    with monkeypatch.context() as patched, stop_signals() as stop:
        patched.setattr(Trainer, "run_step", signalling(Trainer.run_step, number_of_step))
        with pytest.raises(Stopped) as stopped:
            train("run", "SOLVER.CHECKPOINT_PERIOD", 100, stop=stop)
    assert str(stopped.value) == f"stopped by SIGTERM after iteration {last}; go on with --resume"
    assert stopped.value.exit_code == 143
    assert last not in evaluations  # it is made up for
    train("run", "SOLVER.CHECKPOINT_PERIOD", 100, resume=True)
    assert evaluations == [1, 3, 6]
    assert_same_bits(tmp_path / "run", tmp_path / "straight")


def test_an_evaluation_that_fails_loses_no_step(train, evaluations, tmp_path, monkeypatch):
    train("straight", "SOLVER.CHECKPOINT_PERIOD", 100)
    with monkeypatch.context() as patched:
        patched.setattr(*in_evaluation(1, UserError("no image")))
        with pytest.raises(UserError, match="no image"):
            train("run", "SOLVER.CHECKPOINT_PERIOD", 100)
    assert (tmp_path / "run" / "last_checkpoint").read_text() == "model_0000001.pth"
    train("run", "SOLVER.CHECKPOINT_PERIOD", 100, resume=True)
    assert_same_bits(tmp_path / "run", tmp_path / "straight")


def test_a_signal_in_the_final_evaluation_leaves_the_final_checkpoint_as_the_last(
    train, evaluations, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched, stop_signals() as stop:
        patched.setattr(hooks, "evaluate", signalling(hooks.evaluate, 3))
        with pytest.raises(Stopped, match="after iteration 5; go on with --resume"):
            train("run", "SOLVER.CHECKPOINT_PERIOD", 100, stop=stop)
    assert (tmp_path / "run" / "last_checkpoint").read_text() == "model_final.pth"


def test_an_evaluation_that_breaks_because_a_signal_ended_another_process_is_stopped(
    train, evaluations, tmp_path, monkeypatch
):
    def evaluate(*args, **kwargs):
        stop.signum = signal.SIGTERM  # as if it came now
        raise RuntimeError("Connection closed by peer")

    with monkeypatch.context() as patched, stop_signals() as stop:
        patched.setattr(hooks, "evaluate", evaluate)
        with pytest.raises(Stopped, match="SIGTERM after iteration 1; go on with --resume"):
            train("run", "SOLVER.CHECKPOINT_PERIOD", 100, stop=stop)


def test_a_signal_ends_an_evaluation_at_once_with_a_checkpoint(
    train, evaluations, tmp_path, monkeypatch
):
    train("straight", "SOLVER.CHECKPOINT_PERIOD", 100)
    with monkeypatch.context() as patched, stop_signals() as stop:
        patched.setattr(hooks, "evaluate", signalling(hooks.evaluate, 2, signal.SIGINT))
        with pytest.raises(Stopped) as stopped:
            train("run", "SOLVER.CHECKPOINT_PERIOD", 100, stop=stop)
    assert stopped.value.exit_code == 130
    assert (tmp_path / "run" / "last_checkpoint").read_text() == "model_0000003.pth"
    train("run", "SOLVER.CHECKPOINT_PERIOD", 100, resume=True)
    assert_same_bits(tmp_path / "run", tmp_path / "straight")


def test_a_training_whose_folder_is_removed_before_the_report_does_not_end_well(
    train, evaluations, monkeypatch
):
    def report_elsewhere(plan, results):
        shutil.rmtree(plan.output_dir)
        os.mkdir(plan.output_dir)  # as the report does

    monkeypatch.setattr("apdet.engine.trainer.report", report_elsewhere)
    with pytest.raises(UserError, match=r"/run: it was removed; restore the folder"):
        train("run", "SOLVER.MAX_ITER", 1, "TEST.EVAL_PERIOD", 0)


def test_a_folder_that_is_removed_before_an_evaluation_is_not_made_anew(
    train, evaluations, tmp_path, monkeypatch
):
    def run_step(self, _run_step=Trainer.run_step):
        _run_step(self)
        if self.iter == 1:
            shutil.rmtree(self.plan.output_dir)

    monkeypatch.setattr(Trainer, "run_step", run_step)
    with pytest.raises(UserError, match=r"/run: it was removed; restore the folder"):
        train("run", "SOLVER.CHECKPOINT_PERIOD", 100)
    assert evaluations == []
