import pytest
import torch
from detectron2.utils.events import EventStorage

from apdet.errors import UserError
from apdet.losses import ap_loss, dr_loss, focal_loss, ghm_loss, ohem_loss
from apdet.modeling.cls_loss import ClsLoss

# Of two images: ignored, positives of classes 0 and 2, background, another positive.
GT_LABELS = torch.tensor([[-1, 0, 2, 3, 3, 3, 3, 3], [3, 3, 3, 3, 3, 3, 3, 1]])
TARGETS = torch.nn.functional.one_hot(GT_LABELS.clamp(min=0), 4)[..., :3]
TARGETS[GT_LABELS < 0] = -1


def build(cfg, name="ap_loss", **kwargs):
    cfg.MODEL.CLS_LOSS.NAME = name
    cfg.MODEL.CLS_LOSS.KWARGS.update(kwargs)
    return ClsLoss(cfg, num_classes=3)


def call(cls_loss, logits, normalizer=2.0):
    return cls_loss([logits], GT_LABELS, normalizer=torch.tensor(normalizer))["loss_cls"]


def test_the_loss_of_the_config_has_its_keywords_bound(cfg):
    logits = torch.randn(2, 8, 3)
    loss = call(build(cfg, delta=0.25), logits)
    torch.testing.assert_close(loss, ap_loss(logits, TARGETS, delta=0.25))
    assert loss != ap_loss(logits, TARGETS)


def test_only_sums_are_normalised_by_the_detector(cfg):
    logits = torch.randn(2, 8, 3)
    torch.testing.assert_close(call(build(cfg), logits), ap_loss(logits, TARGETS))
    expected = focal_loss(logits, TARGETS, normalizer=2.0)
    torch.testing.assert_close(call(build(cfg, "focal_loss"), logits), expected)


def test_a_loss_over_classes_gets_the_labels_and_one_logit_more(cfg):
    cls_loss = build(cfg, "ohem_loss")
    assert cls_loss.num_logits == 4
    logits = torch.randn(2, 8, 4)
    torch.testing.assert_close(call(cls_loss, logits), ohem_loss(logits, GT_LABELS, normalizer=2.0))
    scores = cls_loss.scores(logits)
    torch.testing.assert_close(scores, torch.softmax(logits, -1)[..., :3])


def test_the_moving_counts_of_ghm_are_kept_and_saved(cfg):
    cls_loss, moving = build(cfg, "ghm_loss", bins=10), torch.zeros(10)
    for _ in range(3):
        logits = torch.randn(2, 8, 3)
        expected = ghm_loss(logits, TARGETS, bins=10, moving_counts=moving)
        torch.testing.assert_close(call(cls_loss, logits), expected)
    torch.testing.assert_close(cls_loss.state_dict()["moving_counts"], moving)


@pytest.mark.parametrize("name", ["ap_loss", "focal_loss"])
def test_ohem_lets_the_loss_see_the_hardest_negatives_of_each_image(cfg, name):
    cfg.MODEL.CLS_LOSS.SAMPLER, cfg.MODEL.CLS_LOSS.NEG_POS_RATIO = "ohem", 1.5
    cls_loss = build(cfg, name)
    logits = torch.randn(2, 8, 3, requires_grad=True)
    call(cls_loss, logits).backward()
    seen = logits.grad.ne(0).any(-1)
    for image in range(2):
        background = GT_LABELS[image] == 3
        hardness = logits[image].amax(-1).masked_fill(~background, -torch.inf)
        kept = hardness.argsort(descending=True)[: int(1.5 * [2, 1][image])]
        hidden = background.clone()
        hidden[kept] = False
        assert not seen[image][hidden].any()
        if name == "focal_loss":  # whose gradient is never 0
            assert seen[image][kept].all()


def test_random_sampling_keeps_as_many_negatives_and_not_always_the_same(cfg):
    cfg.MODEL.CLS_LOSS.SAMPLER = "random"
    cfg.MODEL.CLS_LOSS.NEG_POS_RATIO = 1.0
    cls_loss = build(cfg, "focal_loss")
    draws = set()
    for _ in range(20):
        logits = torch.zeros(2, 8, 3, requires_grad=True)
        call(cls_loss, logits).backward()
        seen = logits.grad.ne(0).any(-1)
        assert (seen & (GT_LABELS == 3)).sum(1).tolist() == [2, 1]
        draws.add(tuple(seen.flatten().tolist()))
    assert len(draws) > 5


def test_a_global_ranking_of_one_process_is_its_own(cfg):
    cfg.MODEL.CLS_LOSS.GLOBAL_RANKING = True
    cls_loss = build(cfg)
    assert cls_loss.group is None
    assert cls_loss.positives_a_process(torch.tensor(0)) == 1
    assert cls_loss.positives_a_process(torch.tensor(7)) == 7


@pytest.mark.parametrize(("name", "num_logits"), [("ap_loss", 3), ("ohem_loss", 4)])
def test_every_20th_iteration_the_ranking_is_recorded(cfg, name, num_logits):
    cls_loss, logits = build(cfg, name), torch.randn(2, 8, num_logits)
    with EventStorage(start_iter=18) as storage:
        call(cls_loss, logits)
        assert not storage.latest()
        storage.step()
        call(cls_loss, logits)
    ranked = logits
    if name == "ohem_loss":  # a class against all others
        p = torch.softmax(logits.double(), -1)[..., :3]
        ranked = (p / (1 - p)).log()
    expected = 100 * (1 - ap_loss(ranked, TARGETS).item())
    assert storage.latest()["ranking/AP"][0] == pytest.approx(expected, rel=1e-5)
    assert storage.latest()["ranking/num_positives"][0] == 3


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("ap_loss", {"delta": 0}, "KWARGS .*delta must be > 0, got 0"),
        ("ap_loss", {"step": "linear"}, "step must be 'piecewise' or 'sigmoid', got 'linear'"),
        ("auc_loss", {"step": "sigmoid", "k": -1}, "k must be > 0, got -1"),
        ("auc_loss", {"delta": "wide"}, "KWARGS .*'wide'"),
        ("pnp_loss", {"variant": "D"}, "variant must be one of .*, got 'D'"),
        ("ohem_loss", {"neg_pos_ratio": 0}, "neg_pos_ratio must be > 0, got 0"),
        ("ghm_loss", {"bins": 2.5}, "KWARGS .*of ghm_loss"),
        ("dr_loss", {"smoothness": 0}, "smoothness must be > 0, got 0"),
    ],
)
def test_a_wrong_value_is_refused_when_the_model_is_built(cfg, name, kwargs, message):
    with pytest.raises(UserError, match=message):
        build(cfg, name, **kwargs)


def test_a_wrong_loss_or_keyword_is_named_with_the_choices(cfg):
    with pytest.raises(
        UserError, match=r"'sigma'; ap_loss takes \['step', 'delta', 'k', 'interpolate'\]"
    ):
        build(cfg, sigma=1.0)
    with pytest.raises(UserError, match=r"NAME is 'aploss'; choose one of .*'ap_loss'"):
        build(cfg, "aploss")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SAMPLER", "hard", "SAMPLER is 'hard'; choose one of"),
        ("NEG_POS_RATIO", 0.0, "NEG_POS_RATIO is 0.0; it must be > 0"),
    ],
)
def test_a_wrong_sampler_is_named(cfg, key, value, message):
    cfg.MODEL.CLS_LOSS[key] = value
    with pytest.raises(UserError, match=message):
        build(cfg)


def test_a_printed_model_shows_its_loss(cfg):
    assert "ap_loss, delta=0.25" in repr(build(cfg, delta=0.25))
    assert "dr_loss" in repr(ClsLoss(loss=dr_loss, num_classes=3))
