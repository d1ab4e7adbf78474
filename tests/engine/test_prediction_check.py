from types import SimpleNamespace

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from apdet.config.plan import EvaluationTasks
from apdet.engine.prediction_check import check_predictions
from apdet.errors import UserError

NAME = "objects with two keypoints"


@pytest.fixture(params=["in the metadata", "in the annotations"])
def with_two_keypoints(request):
    """A data set whose number of keypoints is known from its metadata, or from its objects."""
    DatasetCatalog.register(NAME, lambda: [{"annotations": [{"keypoints": [1.5, 1.5, 2.0] * 2}]}])
    if request.param == "in the metadata":
        MetadataCatalog.get(NAME).keypoint_names = ["head", "tail"]
    yield
    DatasetCatalog.remove(NAME)
    MetadataCatalog.pop(NAME, None)


def check(num_keypoints, sigmas=(), *, measured=True):
    head = SimpleNamespace(num_keypoints=num_keypoints)
    plan = SimpleNamespace(
        train_sets=[NAME],
        val_sets=[],
        test_sets=[SimpleNamespace(name=NAME)],
        tasks=EvaluationTasks(keypoints=measured, keypoint_oks_sigmas=sigmas),
    )
    heads = SimpleNamespace(keypoint_on=num_keypoints is not None, keypoint_head=head)
    check_predictions(plan, SimpleNamespace(roi_heads=heads))


@pytest.mark.usefixtures("with_two_keypoints")
def test_the_numbers_of_keypoints_must_agree():
    check(2, [0.1, 0.1])
    check(2, measured=False)
    check(None, measured=False)
    with pytest.raises(UserError, match=r"num_keypoints is 17, but the objects of .* have 2"):
        check(17)
    with pytest.raises(UserError, match=r"keypoints is True, but .* predicts no keypoints"):
        check(None)


@pytest.mark.usefixtures("with_two_keypoints")
@pytest.mark.parametrize("sigmas", [[], [0.1], [0.1] * 3])
def test_there_must_be_an_oks_sigma_for_each_keypoint(sigmas):
    with pytest.raises(UserError, match=f"has {len(sigmas)} values.* predicts 2 keypoints"):
        check(2, sigmas)


@pytest.mark.usefixtures("with_two_keypoints")
def test_keypoints_of_other_names_are_named():
    MetadataCatalog.get(NAME).keypoint_names = ["head", "tail"]
    MetadataCatalog.get("others").keypoint_names = ["left", "right"]
    plan = SimpleNamespace(
        train_sets=[NAME, "others"], val_sets=[], test_sets=[], tasks=EvaluationTasks()
    )
    heads = SimpleNamespace(keypoint_head=SimpleNamespace(num_keypoints=2))
    try:
        with pytest.raises(UserError, match=r"\['head', 'tail'\], but 'others' has \['left'"):
            check_predictions(plan, SimpleNamespace(roi_heads=heads))
    finally:
        MetadataCatalog.remove("others")


@pytest.mark.parametrize("task", ["masks", "keypoints"])
def test_a_detector_of_boxes_alone_is_not_measured_on_more(cfg, task):
    plan = SimpleNamespace(tasks=EvaluationTasks(**{task: True}))
    with pytest.raises(UserError, match=f"{task} is True, but RankingRetinaNet predicts no {task}"):
        check_predictions(plan, build_model(cfg))
