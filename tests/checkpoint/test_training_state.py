"""The state of a training that cannot be resumed from is an error that names the file."""

import copy
import logging

import pytest
import torch
from torch import nn

from apdet.checkpoint import Checkpointer
from apdet.checkpoint.training_state import load_training_state
from apdet.errors import UserError


class Trainer:
    """The state of a trainer of Detectron2, with an optimizer and a hook."""

    def __init__(self, optimizer="SGD", num_groups=1):
        self.model = nn.ModuleDict({"stem": nn.Linear(2, 3), "head": nn.Linear(3, 4)})
        weights = list(self.model.parameters())
        groups = [{"params": weights[i::num_groups]} for i in range(num_groups)]
        settings = {"momentum": 0.9} if optimizer == "SGD" else {}
        self.optimizer = getattr(torch.optim, optimizer)(groups, lr=0.1, **settings)
        self.iter, self.last_epoch = 0, 0

    def step(self):
        self.model["head"](self.model["stem"](torch.ones(1, 2))).sum().backward()
        self.optimizer.step()
        self.iter, self.last_epoch = self.iter + 1, self.last_epoch + 1

    def state_dict(self):
        return {
            "iteration": self.iter,
            "hooks": {"LRScheduler": {"last_epoch": self.last_epoch}},
            "_trainer": {"optimizer": self.optimizer.state_dict()},
        }

    def load_state_dict(self, state):
        self.iter = state["iteration"]
        self.last_epoch = state["hooks"]["LRScheduler"]["last_epoch"]
        self.optimizer.load_state_dict(state["_trainer"]["optimizer"])


def load(trainer, state):
    load_training_state(trainer, state, name="trainer", model=trainer.model, orders={})


@pytest.fixture
def saved():
    """The state of a trainer after some steps."""
    trainer = Trainer()
    for _ in range(3):
        trainer.step()
    return copy.deepcopy(trainer.state_dict())


def change(state, path, value):
    """Set a part of a state, or delete it if the value is None."""
    *parents, last = path.split(".")
    for key in parents:
        state = state[int(key) if key.isdigit() else key]
    last = int(last) if last.isdigit() else last
    if value is None:
        del state[last]
    else:
        state[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("iteration", "7", "its iteration is '7'"),
        ("iteration", 7.0, "its iteration is 7.0"),
        ("iteration", -3, "its iteration is -3"),
        ("iteration", True, "its iteration is True"),
        ("iteration", torch.tensor(3), r"its iteration is tensor\(3\)"),
        ("iteration", None, "it lacks 'iteration'"),
        ("hooks", None, "it lacks 'hooks'"),
        ("hooks", ["LRScheduler"], "TypeError"),
        ("hooks.LRScheduler", None, "it lacks 'LRScheduler'"),
        ("_trainer", None, "it lacks 'optimizer'"),
        ("_trainer.optimizer", None, "it lacks 'optimizer'"),
        ("_trainer.optimizer", [], "TypeError"),
        ("_trainer.optimizer.param_groups", None, "it lacks 'param_groups'"),
        ("_trainer.optimizer.state", None, "it lacks 'state'"),
        ("_trainer.optimizer.param_groups", [], "different number of parameter groups"),
        ("_trainer.optimizer.param_groups.0.params", [0, 1], "doesn't match the size"),
        ("_trainer.optimizer.param_groups.0.momentum", None, "another optimizer, without momentum"),
        (
            "_trainer.optimizer.state.0.momentum_buffer",
            torch.full((3, 2), torch.nan),
            r"1 tensors have NaN or infinity, _trainer\.optimizer\.state\.0\.momentum_buffer",
        ),
        (
            "_trainer.optimizer.state.0.momentum_buffer",
            "abc",
            "a weight is a str",
        ),
        (
            "_trainer.optimizer.state.0.momentum_buffer",
            torch.ones(4, 2),
            r"the momentum_buffer of a weight of shape \(3, 2\) has shape \(4, 2\)",
        ),
    ],
)
def test_a_state_that_cannot_be_resumed_from_is_named_with_its_file(
    saved, tmp_path, path, value, message
):
    change(saved, path, value)
    trainer = Trainer()
    torch.save({"model": trainer.model.state_dict(), "trainer": saved}, tmp_path / "model_2.pth")
    checkpointer = Checkpointer(trainer.model, trainer=trainer)
    with pytest.raises(UserError, match=message) as caught:
        checkpointer.load(str(tmp_path / "model_2.pth"), strict=True, resuming=True)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/model_2.pth: the state of its trainer cannot be loaded: ")
    assert "start a new training from its weights" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("optimizer", "is_told"), [("SGD", True), ("AdamW", True), ("Rprop", False)]
)
def test_a_state_without_momentum_is_told(optimizer, is_told, caplog):
    load(Trainer(optimizer), Trainer(optimizer).state_dict())  # of no step
    assert ("trainer of the checkpoint has no momentum" in caplog.text) == is_told
    stepped = Trainer(optimizer)
    stepped.step()
    caplog.clear()
    load(Trainer(optimizer), stepped.state_dict())
    assert not caplog.records


@pytest.mark.parametrize("state", [None, [], "abc", 3, torch.ones(2)])
def test_a_state_of_another_type_is_refused(state):
    with pytest.raises(UserError, match=f"it is a {type(state).__name__}, not a mapping"):
        load(Trainer(), state)


@pytest.mark.parametrize(("theirs", "ours"), [("SGD", "AdamW"), ("Adam", "SGD")])
def test_the_state_of_another_optimizer_is_refused(theirs, ours):
    trainer, other = Trainer(theirs), Trainer(ours)
    trainer.step()
    with pytest.raises(UserError, match=r"it is of another optimizer, without (betas|dampening)"):
        load(other, trainer.state_dict())


def test_the_state_of_other_groups_of_parameters_is_refused(saved):
    with pytest.raises(UserError, match="different number of parameter groups"):
        load(Trainer(num_groups=2), saved)


def test_settings_that_older_versions_of_torch_did_not_save_are_not_asked_for(saved):
    expected = Trainer()
    expected.load_state_dict(saved)
    older = copy.deepcopy(saved)
    for setting in ("fused", "foreach", "maximize", "differentiable"):
        change(older, f"_trainer.optimizer.param_groups.0.{setting}", None)
    trainer = Trainer()
    load(trainer, older)
    assert trainer.iter == 3
    for ours, theirs in zip(trainer.model.parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(
            trainer.optimizer.state[ours]["momentum_buffer"],
            expected.optimizer.state[theirs]["momentum_buffer"],
        )


def test_a_checkpoint_without_the_state_of_a_training_is_resumed_from_with_a_warning(
    tmp_path, caplog
):
    trainer = Trainer()
    torch.save({"model": trainer.model.state_dict()}, tmp_path / "model_2.pth")
    (tmp_path / "last_checkpoint").write_text("model_2.pth")
    with caplog.at_level(logging.WARNING, "apdet"):
        Checkpointer(trainer.model, str(tmp_path), trainer=trainer).resume_or_load("")
    assert len(caplog.records) == 1
    assert (
        "model_2.pth has no state of the trainer: its weights are loaded, but iter" in caplog.text
    )
    caplog.clear()
    with caplog.at_level(logging.WARNING, "apdet"):  # but weights to start from need none
        Checkpointer(trainer.model, trainer=trainer).resume_or_load(str(tmp_path / "model_2.pth"))
    assert not caplog.records
