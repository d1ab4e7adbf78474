import importlib
import sys
from functools import partial

import pytest
import torch

from apdet import losses
from apdet.errors import UserError
from apdet.modeling import named_loss
from apdet.modeling.cls_loss import ClsLoss
from apdet.modeling.named_loss import allow_custom_code, bind_loss

MY_LOSS = """
from pathlib import Path
Path("witness").touch()

def scaled_sum(logits, targets, *, factor=1.0, normalizer=None):
    return factor * logits[targets == 1].sum() / (1 if normalizer is None else normalizer)
scaled_sum.needs = ("normalizer",)

def over_classes(logits, labels):
    return logits.sum()
over_classes.softmax = True

number = 3
"""


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A working directory with a loss of the user's own; nothing is left of it afterwards."""
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "my_file.py").write_text(MY_LOSS)
    (tmp_path / "broken_loss.py").write_text("import no_such_module")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(named_loss, "_custom_code_is_allowed", False)
    importlib.invalidate_caches()
    yield tmp_path
    for name in ("my_package.my_file", "my_package", "broken_loss"):
        sys.modules.pop(name, None)


def test_a_loss_is_known_by_its_name_and_as_a_function():
    for loss in ("ap_loss", losses.ap_loss):
        bound = bind_loss(loss, {"delta": 0.5})
        assert (bound.func, bound.keywords) == (losses.ap_loss, {"delta": 0.5})


def test_code_of_ones_own_is_not_run_unless_it_is_allowed(workplace, cfg):
    cfg.MODEL.CLS_LOSS.NAME = "my_package.my_file:scaled_sum"
    with pytest.raises(UserError, match=r"scaled_sum', which is code .*--allow-custom-code"):
        ClsLoss(cfg, num_classes=3)
    assert not (workplace / "witness").exists()


def test_a_loss_of_ones_own_is_given_its_keywords_and_the_normaliser(workplace, cfg):
    allow_custom_code()
    cfg.MODEL.CLS_LOSS.NAME = "my_package.my_file:scaled_sum"
    cfg.MODEL.CLS_LOSS.KWARGS.factor = 6.0
    cls_loss = ClsLoss(cfg, num_classes=2)
    logits = torch.tensor([[[1.0, 5.0], [7.0, 9.0]]])
    result = cls_loss([logits], torch.tensor([[1, 0]]))
    assert result["loss_cls"] == 6 * (5 + 7) / 2  # of two positives
    assert "scaled_sum, factor=6.0" in repr(cls_loss)
    cfg.MODEL.CLS_LOSS.KWARGS.facto = 1.0
    with pytest.raises(UserError, match=r"'facto'; scaled_sum takes \['factor'\]"):
        ClsLoss(cfg, num_classes=2)


def test_a_loss_of_ones_own_may_be_over_classes_and_background(workplace):
    allow_custom_code()
    assert ClsLoss(loss="my_package.my_file:over_classes", num_classes=3).num_logits == 4
    assert ClsLoss(loss="my_package.my_file:scaled_sum", num_classes=3).num_logits == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_package.my_file:missing", r"my_file\.py has no function 'missing'"),
        ("my_package.my_file:number", r"my_file\.py has no function 'number'"),
        ("my_package.absent:loss", "importing my_package.absent fails: ModuleNotFoundError"),
        ("broken_loss:loss", "importing broken_loss fails: .*no_such_module"),
        (":loss", "importing  fails"),
    ],
)
def test_what_cannot_be_imported_is_named(workplace, name, message):
    allow_custom_code()
    with pytest.raises(UserError, match=message):
        bind_loss(name, {})


def test_a_partial_keeps_its_keywords_and_may_be_given_more():
    bound = bind_loss(partial(losses.ap_loss, delta=0.5), {"interpolate": False})
    assert bound.keywords == {"delta": 0.5, "interpolate": False}
    module = bind_loss(partial(losses.ghm_loss, bins=7), {"momentum": 0.5})
    assert (len(module.moving_counts), module.momentum) == (7, 0.5)


def test_the_extension_point_is_no_loss():
    with pytest.raises(UserError, match=r"^loss is 'ranking_loss'; choose one of"):
        bind_loss("ranking_loss", {})


def of_0_1(logits, targets, *, factor=1.0, normalizer=None):
    return factor * logits[targets == 1].sum() / (1 if normalizer is None else normalizer)


def test_a_loss_of_0_1_is_served_and_told_what_to_set():
    with pytest.warns(FutureWarning, match=r"set of_0_1.needs = \('normalizer',\)"):
        cls_loss = ClsLoss(loss=of_0_1, num_classes=2, kwargs={"factor": 6.0})
    logits = torch.tensor([[[1.0, 5.0], [7.0, 9.0]]])
    assert cls_loss([logits], torch.tensor([[1, 0]]))["loss_cls"] == 6 * (5 + 7) / 2


def test_a_need_that_no_detector_gives_is_named_with_what_can_be_given():
    def loss(logits, targets, *, quality):
        return logits.sum()

    loss.needs = ("quality",)
    message = r"^loss: loss needs 'quality', but a detector gives only \['normalizer', 'group'\]"
    with pytest.raises(UserError, match=message):
        ClsLoss(loss=loss, num_classes=2)


def test_a_module_with_state_is_not_touched_when_it_is_tried_out():
    class Counter(torch.nn.Module):
        def __init__(self, start=0):
            super().__init__()
            self.register_buffer("calls", torch.tensor(start))

        def forward(self, logits, targets, *, normalizer):
            self.calls += 1
            return logits.sum() / normalizer

    def loss(logits, targets, *, normalizer):
        return logits.sum() / normalizer

    loss.needs, loss.module = ("normalizer",), Counter
    cls_loss = ClsLoss(loss=loss, num_classes=1, kwargs={"start": 5})
    assert cls_loss.state_dict() == {"loss.calls": 5}
    cls_loss([torch.zeros(1, 2, 1)], torch.tensor([[0, 1]]))
    assert cls_loss.state_dict() == {"loss.calls": 6}
    assert "loss, start=5" in repr(cls_loss)
