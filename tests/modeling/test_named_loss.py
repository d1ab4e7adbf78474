import importlib
import sys

import pytest
import torch

from apdet import losses
from apdet.errors import UserError
from apdet.modeling import named_loss
from apdet.modeling.cls_loss import ClsLoss
from apdet.modeling.named_loss import allow_custom_code, bind_loss, is_softmax

MY_LOSS = """
from pathlib import Path
Path("witness").touch()

def scaled_sum(logits, targets, *, factor=1.0, normalizer=None):
    return factor * logits[targets == 1].sum() / (1 if normalizer is None else normalizer)

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


def test_the_losses_over_classes_are_those_that_say_so():
    over_classes = [name for name in losses.__all__ if is_softmax(bind_loss(name, {}))]
    assert tuple(over_classes) == losses.SOFTMAX
