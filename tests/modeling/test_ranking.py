import pytest
import torch
from detectron2.utils.events import EventStorage

from apdet.losses import ap_loss
from apdet.modeling.ranking import check_classes, log_ranking, ranking_targets


def test_targets_replicate_the_label_of_each_anchor_for_every_class():
    # Ignored, of class 0, of class 2, background.
    targets = ranking_targets(torch.tensor([[-1, 0], [2, 3]]), num_classes=3)
    expected = [[[-1, -1, -1], [1, 0, 0]], [[0, 0, 1], [0, 0, 0]]]
    assert targets.tolist() == expected


@pytest.mark.parametrize("num_classes", [1, 4])
def test_targets_of_many_anchors_are_those_of_each(num_classes):
    gt_labels = torch.randint(-1, num_classes + 1, (3, 50))
    targets = ranking_targets(gt_labels, num_classes)
    assert targets.dtype == torch.int8
    for label, row in zip(gt_labels.flatten().tolist(), targets.flatten(0, 1), strict=True):
        expected = [-1 if label < 0 else int(k == label) for k in range(num_classes)]
        assert row.tolist() == expected


def test_a_label_above_all_classes_becomes_a_target_that_is_refused():
    targets = ranking_targets(torch.tensor([0, 4]), num_classes=3)
    assert targets.tolist() == [[1, 0, 0], [0, 0, 2]]
    with pytest.raises(ValueError, match="targets lie in"):
        ap_loss(torch.zeros(2, 3), targets)
    with pytest.raises(ValueError, match="class 4, but the model has only 3 classes"):
        check_classes(torch.tensor([0, 4]), num_classes=3)


def test_the_ranking_is_recorded():
    logits = torch.tensor([3.0, 0.0, 2.5, -0.5, -5.0, 9.0])
    targets = torch.tensor([1, 1, 0, 0, 0, -1])
    with EventStorage() as storage:
        log_ranking(logits, targets)
    latest = {key: value for key, (value, _) in storage.latest().items()}
    assert latest["ranking/num_positives"] == 2
    assert latest["ranking/num_relevant_negatives"] == 2  # above 0 - 1: 2.5 and -0.5
    assert latest["ranking/AP"] == pytest.approx(100 * (1 - ap_loss(logits, targets).item()))


@pytest.mark.parametrize("targets", [[0, 0], [-1, -1]])
def test_a_batch_without_positives_is_recorded_without_an_ap(targets):
    with EventStorage() as storage:
        log_ranking(torch.zeros(2), torch.tensor(targets))
    assert storage.latest()["ranking/num_positives"][0] == 0
    assert "ranking/AP" not in storage.latest()
