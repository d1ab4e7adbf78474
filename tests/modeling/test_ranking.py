import pytest
import torch
from detectron2.utils.events import EventStorage

from apdet.errors import UserError
from apdet.losses import ap_loss, focal_loss
from apdet.modeling.ranking import build_cls_loss, call_cls_loss, log_ranking, ranking_targets


def test_targets_replicate_the_label_of_each_anchor_for_every_class():
    # Ignored, of class 0, of class 2, background.
    targets = ranking_targets(torch.tensor([[-1, 0], [2, 3]]), num_classes=3)
    expected = [[[-1, -1, -1], [1, 0, 0]], [[0, 0, 1], [0, 0, 0]]]
    assert targets.tolist() == expected


def test_a_class_that_the_model_does_not_have_is_named():
    with pytest.raises(ValueError, match="class 4, but the model has only 3 classes"):
        ranking_targets(torch.tensor([0, 4]), num_classes=3)


def test_the_loss_of_the_config_has_its_keywords_bound(cfg):
    cfg.MODEL.CLS_LOSS.KWARGS.delta = 0.25
    logits, targets = torch.randn(50), torch.randint(-1, 2, (50,))
    loss = build_cls_loss(cfg)(logits, targets)
    torch.testing.assert_close(loss, ap_loss(logits, targets, delta=0.25))
    assert loss != ap_loss(logits, targets)


def test_only_sums_are_normalised_by_the_detector(cfg):
    logits, targets = torch.randn(50), torch.randint(-1, 2, (50,))
    given = {"normalizer": torch.tensor(2.0), "group": None}
    loss = call_cls_loss(build_cls_loss(cfg), logits, targets, **given)
    torch.testing.assert_close(loss, ap_loss(logits, targets))
    cfg.MODEL.CLS_LOSS.NAME = "focal_loss"
    loss = call_cls_loss(build_cls_loss(cfg), logits, targets, **given)
    torch.testing.assert_close(loss, focal_loss(logits, targets, normalizer=2.0))


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("ap_loss", {"delta": 0}, "KWARGS .*delta must be > 0, got 0"),
        ("ap_loss", {"step": "linear"}, "step must be 'piecewise' or 'sigmoid', got 'linear'"),
        ("auc_loss", {"step": "sigmoid", "k": -1}, "k must be > 0, got -1"),
        ("auc_loss", {"delta": "wide"}, "KWARGS .*'wide'"),
        ("pnp_loss", {"variant": "D"}, "variant must be one of .*, got 'D'"),
    ],
)
def test_a_wrong_value_is_refused_when_the_model_is_built(cfg, name, kwargs, message):
    cfg.MODEL.CLS_LOSS.NAME = name
    cfg.MODEL.CLS_LOSS.KWARGS.update(kwargs)
    with pytest.raises(UserError, match=message):
        build_cls_loss(cfg)


def test_a_wrong_loss_or_keyword_is_named_with_the_choices(cfg):
    cfg.MODEL.CLS_LOSS.KWARGS.sigma = 1.0
    with pytest.raises(
        UserError, match=r"'sigma'; ap_loss takes \['step', 'delta', 'k', 'interpolate'\]"
    ):
        build_cls_loss(cfg)
    cfg.MODEL.CLS_LOSS.NAME = "aploss"
    with pytest.raises(UserError, match=r"NAME is 'aploss'; choose one of .*'ap_loss'"):
        build_cls_loss(cfg)


def test_every_20th_iteration_the_ranking_is_recorded():
    logits = torch.tensor([3.0, 0.0, 2.5, -0.5, -5.0, 9.0])
    targets = torch.tensor([1, 1, 0, 0, 0, -1])
    with EventStorage(start_iter=18) as storage:
        log_ranking(logits, targets)
        assert not storage.latest()
        storage.step()
        log_ranking(logits, targets)
    latest = {key: value for key, (value, _) in storage.latest().items()}
    assert latest["ranking/num_positives"] == 2
    assert latest["ranking/num_relevant_negatives"] == 2  # above 0 - 1: 2.5 and -0.5
    assert latest["ranking/AP"] == pytest.approx(100 * (1 - ap_loss(logits, targets).item()))


@pytest.mark.parametrize("targets", [[0, 0], [-1, -1]])
def test_a_batch_without_positives_is_recorded_without_an_ap(targets):
    with EventStorage(start_iter=19) as storage:
        log_ranking(torch.zeros(2), torch.tensor(targets))
    assert storage.latest()["ranking/num_positives"][0] == 0
    assert "ranking/AP" not in storage.latest()
