"""The one engine: what it trains from either kind of config."""

import pytest
import torch
from conftest import weights_in
from detectron2.utils.events import EventStorage

from apdet.config import load_config, read_config, register_datasets
from apdet.engine import Trainer
from apdet.engine.evaluation import evaluate


def test_a_yaml_config_stands_for_its_plan(config, output):
    cfg = load_config(config, ["SOLVER.MAX_ITER", "2"])
    register_datasets(cfg)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    results = trainer.train()
    assert {"bbox", "voc"} == results.keys()
    assert (output / "model_final.pth").exists()
    with pytest.raises(AttributeError):
        cfg.SOLVER.NO_SUCH_KEY  # noqa: B018  the config is as it was, not frozen or changed
    assert cfg.SOLVER.MAX_ITER == 2


def test_what_is_evaluated_by_hand_is_what_the_training_evaluated(config):
    plan = read_config(config, ["SOLVER.MAX_ITER", "2"]).plan()
    trainer = Trainer(plan)
    trainer.resume_or_load(resume=False)
    trained = trainer.train()
    evaluated = evaluate(plan, trainer.model)
    assert evaluated.keys() == trained.keys() == {"bbox", "voc"}
    for task, metrics in trained.items():
        assert evaluated[task] == pytest.approx(metrics, rel=0, abs=0, nan_ok=True)


def test_the_schedule_that_is_trained_is_the_one_that_is_written(config, output):
    overrides = ["SOLVER.REFERENCE_BATCH_SIZE", "8", "SOLVER.BASE_LR", "0.04"]
    plan = read_config(config, overrides).plan()  # batches of 2
    assert plan.schedule.base_lr == plan.config.SOLVER.BASE_LR == pytest.approx(0.01)
    assert plan.schedule.max_iter == plan.config.SOLVER.MAX_ITER == 24
    assert plan.config.SOLVER.REFERENCE_BATCH_SIZE == 2
    trainer = Trainer(plan)
    assert trainer.optimizer.param_groups[0]["initial_lr"] == pytest.approx(0.01)
    assert trainer.max_iter == 24


def test_batch_statistics_are_recomputed_before_an_evaluation_if_asked_for(config, output):
    def trained(*overrides):
        plan = read_config(config, ["SOLVER.MAX_ITER", "2", "SEED", "1", *overrides]).plan()
        torch.manual_seed(0)  # of the initial weights
        trainer = Trainer(plan)
        trainer.resume_or_load(resume=False)
        trainer.train()
        return weights_in(f"{plan.output_dir}/model_final.pth")

    usual = trained("OUTPUT_DIR", str(output / "usual"))
    keys = ["TEST.PRECISE_BN.ENABLED", "True", "TEST.PRECISE_BN.NUM_ITER", "2"]
    precise = trained("OUTPUT_DIR", str(output / "precise"), *keys)
    differing = {name for name in usual if not torch.equal(usual[name], precise[name])}
    assert differing
    assert {name.rpartition(".")[2] for name in differing} <= {
        *("running_mean", "running_var", "num_batches_tracked")
    }


def test_state_of_a_python_configs_training_by_0_1_is_taken_over(config):
    plan = read_config(config, ["SOLVER.MAX_ITER", "3"]).plan()
    trainer = Trainer(plan)
    with EventStorage():
        trainer.run_step()
    state = trainer.state_dict()
    # There the stepper was the trainer: its state lay beside the hooks.
    former = {"hooks": state["hooks"], **state["_trainer"]}
    former["iteration"] = 7
    other = Trainer(plan)
    other.load_state_dict(former)
    assert other.iter == 7
    expected = state["_trainer"]["optimizer"]["state"]
    assert other.optimizer.state_dict()["state"].keys() == expected.keys() != set()
