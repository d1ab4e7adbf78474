import numpy as np
import pytest
import torch
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, pairwise_iou
from PIL import Image
from torch import nn

import apdet.modeling  # noqa: F401
from apdet.errors import UserError
from apdet.modeling.dense_tta import merge
from apdet.modeling.tta import with_test_time_augmentation

HEIGHT, WIDTH = 80, 104
THRESH = 0.5


@pytest.fixture
def model(cfg):
    """Untrained, with boxes and scores that differ from place to place."""
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST_PER_LEVEL = [0.05, 0.05, 0.05]
    model = build_model(cfg).eval()
    nn.init.normal_(model.head.cls_score.weight, std=0.3)
    nn.init.normal_(model.head.bbox_pred.weight, std=0.3)
    return model


@pytest.fixture
def pixels():
    """(3, HEIGHT, WIDTH) uint8, coarse noise."""
    coarse = np.random.default_rng(0).integers(0, 256, (10, 13, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.BICUBIC)
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())


def with_tta(model, sizes, *, flip=False, max_size=1000, square=False):
    return with_test_time_augmentation(
        model, sizes=sizes, max_size=max_size, flip=flip, square=square
    ).eval()


def detect(detector, pixels):
    size = {"height": pixels.shape[1], "width": pixels.shape[2]}
    (output,) = detector([{"image": pixels, **size}])
    return output["instances"]


@torch.no_grad()
def detect_resized(model, pixels, height, width):
    """Ordinary testing at one size of the image."""
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((width, height), Image.BILINEAR)
    resized = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())
    size = {"height": pixels.shape[1], "width": pixels.shape[2]}
    return model([{"image": resized, **size}])[0]["instances"]


def assert_same(actual, expected, **tolerance):
    assert actual.image_size == expected.image_size
    assert len(actual) == len(expected) > 10
    torch.testing.assert_close(actual.pred_boxes.tensor, expected.pred_boxes.tensor, **tolerance)
    torch.testing.assert_close(actual.scores, expected.scores, **tolerance)
    torch.testing.assert_close(actual.pred_classes, expected.pred_classes)


EXACT = {"rtol": 0, "atol": 0}


@pytest.mark.parametrize("limit", [20, 1000])
@pytest.mark.parametrize(("size", "max_size"), [(64, 1000), (48, 1000), (80, 1000), (100, 90)])
def test_one_scale_is_ordinary_testing_at_that_scale(model, pixels, size, max_size, limit):
    model.max_detections_per_image = limit
    shape = ResizeShortestEdge.get_output_shape(HEIGHT, WIDTH, size, max_size)
    expected = detect_resized(model, pixels, *shape)
    assert len(expected) == limit or limit == 1000
    assert_same(detect(with_tta(model, [size], max_size=max_size), pixels), expected, **EXACT)


@pytest.mark.parametrize("limit", [20, 1000])
def test_the_same_scale_twice_is_as_good_as_once(model, pixels, limit):
    model.max_detections_per_image = limit
    once, twice = (detect(with_tta(model, [64] * n), pixels) for n in (1, 2))
    # Some boxes were clipped: had they been before, NMS would leave others.
    assert limit < 1000 or not within_image(once).all()
    assert_same(twice, once, **EXACT)


def test_with_squares_sizes_are_sides_of_squares(model, pixels):
    expected = detect_resized(model, pixels, 96, 96)
    actual = detect(with_tta(model, [96], max_size=90, square=True), pixels)
    assert_same(actual, expected, **EXACT)


def mirrored(found):
    boxes = found.pred_boxes.tensor[:, [2, 1, 0, 3]].clone()
    boxes[:, [0, 2]] = WIDTH - boxes[:, [0, 2]]
    return Instances(
        found.image_size,
        pred_boxes=Boxes(boxes),
        scores=found.scores,
        pred_classes=found.pred_classes,
    )


@pytest.mark.parametrize("square", [False, True])
def test_with_flip_the_mirror_image_has_the_mirrored_detections(model, pixels, square):
    flipped = pixels.flip(2)
    tta = with_tta(model, [64, 96], flip=True, square=square)
    assert_same(detect(tta, flipped), mirrored(detect(tta, pixels)), rtol=0, atol=1e-4)
    without = with_tta(model, [64, 96], square=square)
    one_way, other_way = detect(without, flipped), detect(without, pixels)
    assert one_way.scores[0] != other_way.scores[0]


def test_what_is_found_at_any_scale_is_kept_unless_a_better_box_covers_it(model, pixels):
    model.max_detections_per_image = 10_000
    found = [detect(with_tta(model, [size]), pixels) for size in (48, 96)]
    merged = detect(with_tta(model, [48, 96]), pixels)
    candidates = Instances.cat(found)
    same_box = (candidates.pred_boxes.tensor[:, None] == merged.pred_boxes.tensor).all(2)
    same = same_box & (candidates.scores[:, None] == merged.scores)
    assert same.any(0).all()  # nothing is new
    kept_of_each = [kept.sum() for kept in same.any(1).split([len(f) for f in found])]
    assert min(kept_of_each) > 10
    # Clipping changes IoU, so only boxes that lie within the image tell.
    inside = within_image(candidates)
    better = merged.scores >= candidates.scores[:, None]
    better &= merged.pred_classes == candidates.pred_classes[:, None]
    iou = pairwise_iou(candidates.pred_boxes, merged.pred_boxes)
    covered = (better & ((iou > THRESH) | ~within_image(merged))).any(1)
    assert (same.any(1) | covered)[inside].all()


def within_image(found):
    boxes = found.pred_boxes.tensor
    return (boxes > 0).all(1) & (boxes[:, 2] < WIDTH) & (boxes[:, 3] < HEIGHT)


def nms_by_definition(boxes, scores, classes):
    """Indices that stay, by falling score."""
    iou = pairwise_iou(Boxes(boxes), Boxes(boxes))
    kept = []
    for i in scores.argsort(descending=True).tolist():
        if all(classes[i] != classes[j] or iou[i, j] <= THRESH for j in kept):
            kept.append(i)
    return kept


def random_instances(num_boxes):
    corner = 60 * torch.rand(num_boxes, 2) - 50
    return Instances(
        (HEIGHT, WIDTH),
        pred_boxes=Boxes(torch.hstack([corner, corner + 20 + 40 * torch.rand(num_boxes, 2)])),
        scores=torch.rand(num_boxes),
        pred_classes=torch.randint(3, (num_boxes,)),
    )


@pytest.mark.parametrize("limit", [12, 1000])
def test_merging_is_greedy_nms_within_each_class_also_outside_the_image(limit):
    copies = [random_instances(60), random_instances(0), random_instances(40)]
    every = Instances.cat(copies)
    kept = nms_by_definition(every.pred_boxes.tensor, every.scores, every.pred_classes)[:limit]
    assert 12 <= len(kept) < len(every) - 20
    assert_same(merge(copies, THRESH, limit), every[kept], **EXACT)


def test_classes_are_merged_apart_also_where_coordinates_are_negative():
    # For torchvision, a class further means coordinates that are further by max + 1 = 91.
    boxes = torch.tensor([[50.0, 50, 90, 90], [50 - 91, 50 - 91, 90 - 91, 90 - 91]])
    copies = [
        Instances(
            (HEIGHT, WIDTH),
            pred_boxes=Boxes(boxes[k : k + 1]),
            scores=torch.tensor([0.5]),
            pred_classes=torch.tensor([k]),
        )
        for k in (0, 1)
    ]
    assert len(merge(copies, THRESH, 10)) == 2


def test_a_single_copy_is_left_to_the_nms_of_the_detector():
    found = random_instances(60)
    assert_same(merge([found], THRESH, 60), found, **EXACT)


def test_nothing_found_in_any_copy_is_no_detection(model, pixels):
    model.test_score_thresh_per_level = [2.0, 2.0, 2.0]
    assert len(detect(with_tta(model, [48, 64], flip=True), pixels)) == 0


def test_an_image_that_was_resized_before_is_refused(model, pixels):
    image = {"image": pixels, "height": 160, "width": 208, "file_name": "a.jpg"}
    with pytest.raises(UserError, match=r"a\.jpg: .*\(160, 208\) to \(80, 104\).*resize=False"):
        with_tta(model, [64])([image])


@pytest.mark.parametrize("sizes", [[], [0], ["64"]])
def test_sizes_that_cannot_be_are_refused(model, sizes):
    with pytest.raises(UserError, match=r"^sizes is .*at least one size"):
        with_tta(model, sizes)


def test_a_model_of_another_kind_is_refused():
    with pytest.raises(UserError, match=r"^model: .* two-stage detectors, not for Linear"):
        with_tta(nn.Linear(1, 1), [64])
