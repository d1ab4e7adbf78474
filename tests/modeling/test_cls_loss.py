import pytest
import torch
from detectron2.utils.events import EventStorage
from host_waits import HostWaits
from torch import nn

from apdet import losses
from apdet.checkpoint import Checkpointer
from apdet.errors import UserError
from apdet.losses import ap_loss, dr_loss, focal_loss, ohem_loss
from apdet.losses.ghm import GHMLoss
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


def test_the_moving_average_of_ghm_is_kept_and_saved(cfg):
    cls_loss, module = build(cfg, "ghm_loss", bins=10, momentum=0.5), GHMLoss(10, 0.5)
    for _ in range(3):
        logits = torch.randn(2, 8, 3)
        torch.testing.assert_close(call(cls_loss, logits), module(logits, TARGETS))
    assert module.moving_counts.any()
    torch.testing.assert_close(cls_loss.state_dict()["loss.moving_counts"], module.moving_counts)


def counting_loss(logits, targets, *, bins=10, moving_counts):
    """As apdet 0.1 wanted it: the counts are updated in place."""
    moving_counts += 1
    return (logits.flatten()[: len(moving_counts)] * moving_counts).sum()


@pytest.mark.parametrize("loss", ["ghm_loss", counting_loss])
@pytest.mark.filterwarnings("ignore:counting_loss names moving_counts")
def test_a_checkpoint_of_0_1_goes_on_with_its_moving_counts(tmp_path, loss):
    def detector():
        model = nn.Linear(3, 3)
        model.cls_loss = ClsLoss(loss=loss, num_classes=3, kwargs={"bins": 10})
        return model

    trained, resumed = detector(), detector()
    for _ in range(3):
        call(trained.cls_loss, torch.randn(2, 8, 3))
    weights = trained.state_dict()
    weights["cls_loss.moving_counts"] = weights.pop("cls_loss.loss.moving_counts")
    torch.save({"model": weights}, tmp_path / "model_0001.pth")
    Checkpointer(resumed, str(tmp_path)).load(str(tmp_path / "model_0001.pth"), strict=True)
    resumed.load_state_dict(weights, strict=True)
    assert "cls_loss.moving_counts" in weights
    for _ in range(2):
        logits = torch.randn(2, 8, 3)
        assert torch.equal(call(resumed.cls_loss, logits), call(trained.cls_loss, logits))


def test_a_checkpoint_of_0_1_with_another_number_of_bins_is_refused(tmp_path):
    cls_loss = ClsLoss(loss="ghm_loss", num_classes=3)
    torch.save({"model": {"moving_counts": torch.ones(7)}}, tmp_path / "old.pth")
    with pytest.raises(UserError, match="a checkpoint of another model"):
        Checkpointer(cls_loss).load(str(tmp_path / "old.pth"), strict=True)


@pytest.mark.parametrize(
    ("loss", "kwargs"),
    [
        ("ap_loss", {}),
        ("ap_loss", {"step": "sigmoid"}),
        ("auc_loss", {}),
        ("pnp_loss", {}),
        ("focal_loss", {}),
    ],
)
def test_the_host_waits_once_from_labels_and_logits_to_the_loss(monkeypatch, loss, kwargs):
    monkeypatch.setenv("APDET_NATIVE", "0")  # as on CUDA; so few scores are binned as there, too
    cls_loss = ClsLoss(loss=loss, num_classes=3, kwargs=kwargs)
    levels = [torch.randn(2, size, 3, requires_grad=True) for size in (5, 3)]
    with HostWaits() as waits:
        value = cls_loss(levels, list(GT_LABELS))["loss_cls"]
    assert waits.calls == ["tolist"]
    expected = getattr(losses, loss)(torch.cat(levels, 1), TARGETS, **kwargs)
    torch.testing.assert_close(value, expected)


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
    assert cls_loss.num_positives_per_process(torch.tensor(0)) == 1
    assert cls_loss.num_positives_per_process(torch.tensor(7)) == 7
    with pytest.warns(DeprecationWarning, match="now called num_positives_per_process"):
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
        ("ap_loss", {"delta": 0}, "kwargs .*delta must be > 0, got 0"),
        ("ap_loss", {"step": "linear"}, "step must be 'piecewise' or 'sigmoid', got 'linear'"),
        ("auc_loss", {"step": "sigmoid", "k": -1}, "k must be > 0, got -1"),
        ("ap_loss", {"step": "sigmoid", "delta": 0.1}, "delta=0.1 is a width of the piecewise"),
        ("pnp_loss", {"k": 0.5}, "k=0.5 is a width of the sigmoid step"),
        ("auc_loss", {"delta": "wide"}, "kwargs .*'wide'"),
        ("pnp_loss", {"variant": "D"}, "variant must be one of .*, got 'D'"),
        ("ohem_loss", {"neg_pos_ratio": 0}, "neg_pos_ratio must be > 0, got 0"),
        ("ghm_loss", {"bins": 2.5}, "kwargs .*of ghm_loss"),
        ("dr_loss", {"smoothness": 0}, "smoothness must be > 0, got 0"),
    ],
)
def test_a_wrong_value_is_refused_when_the_model_is_built(cfg, name, kwargs, message):
    with pytest.raises(UserError, match=message):
        build(cfg, name, **kwargs)


def test_a_wrong_loss_or_keyword_is_named_with_the_choices(cfg):
    with pytest.raises(
        UserError,
        match=r"kwargs has 'sigma'; ap_loss takes \['step', 'delta', 'k', 'interpolate'\]",
    ):
        build(cfg, sigma=1.0)
    with pytest.raises(UserError, match=r"^loss is 'aploss'; choose one of .*'ap_loss'"):
        build(cfg, "aploss")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SAMPLER", "hard", "^sampler is 'hard'; choose one of"),
        ("NEG_POS_RATIO", 0.0, "^neg_pos_ratio is 0.0; it must be > 0"),
    ],
)
def test_a_wrong_sampler_is_named(cfg, key, value, message):
    cfg.MODEL.CLS_LOSS[key] = value
    with pytest.raises(UserError, match=message):
        build(cfg)


def my_loss(logits, targets):
    return logits.sum()


@pytest.mark.parametrize("iteration", [0, 19])
@pytest.mark.parametrize("loss", [*losses.LOSSES, my_loss])
def test_a_class_that_the_model_does_not_have_is_named(loss, iteration):
    cls_loss = ClsLoss(loss=loss, num_classes=3)
    labels = torch.tensor([[0, 3, 4]])
    message = "class 4, but the model has only 3 classes"
    with EventStorage(iteration), pytest.raises(ValueError, match=message):
        cls_loss([torch.zeros(1, 3, cls_loss.num_logits)], labels)


def test_an_error_of_the_loss_itself_is_not_taken_for_one_of_the_classes():
    def loss(logits, targets):
        if logits.numel() > 1:
            raise ValueError("something else")
        return logits.sum()

    with pytest.raises(ValueError, match="something else"):
        call(ClsLoss(loss=loss, num_classes=3), torch.zeros(2, 8, 3))


def test_a_printed_model_shows_its_loss(cfg):
    assert "ap_loss, delta=0.25" in repr(build(cfg, delta=0.25))
    assert "dr_loss" in repr(ClsLoss(loss=dr_loss, num_classes=3))
