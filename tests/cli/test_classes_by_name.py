"""Classes go by name through the command line: with each detector, in YAML and in Python."""

import json
import shutil
from functools import partial

import pytest
import torch
from conftest import CONFIGS, exit_message, weights_in
from detectron2.evaluation.coco_evaluation import instances_to_coco_json

from apdet.cli.train import main
from apdet.data.digits import write_digits
from apdet.evaluation.coco import PREDICTIONS
from apdet.inference import Detector

CLASSES = ["cat", "dog", "cow"]
REORDERED = ["dog", "cow", "cat"]
ANOTHER_MORE = ["bird", "dog", "cow", "cat"]

RESNET = """MODEL.RESNETS.WIDTH_PER_GROUP 8 MODEL.RESNETS.STEM_OUT_CHANNELS 8
    MODEL.RESNETS.RES2_OUT_CHANNELS 16 MODEL.FPN.OUT_CHANNELS 32
    INPUT.MIN_SIZE_TEST 64 INPUT.MAX_SIZE_TEST 64"""
ROI = f"""{RESNET} MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.ROI_MASK_HEAD.CONV_DIM 8
    MODEL.ROI_MASK_HEAD.NUM_CONV 1 MODEL.RPN.POST_NMS_TOPK_TEST 30"""
CASCADE = f"{ROI} MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True MODEL.ROI_HEADS.NAME"
# {name: config, and options in YAML or the key of the number of classes in Python}.
DETECTORS = {
    "mask": ("faster_rcnn_ap.yaml", f"{ROI} MODEL.MASK_ON True"),
    "ssd": ("ssd_ap.yaml", "MODEL.VGG.WIDTH 0.0625 INPUT.FIXED_SIZE_TEST (64,64)"),
    "retinanet with a background": ("retinanet_ohem.yaml", RESNET),
    "fcos": ("fcos_ap.yaml", RESNET),
    "Detectron2's faster": ("faster_rcnn_ce.yaml", ROI),
    "keypoint": (
        "faster_rcnn_ap.yaml",
        f"""{ROI} MODEL.KEYPOINT_ON True MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS 2
        MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS (8,) TEST.KEYPOINT_OKS_SIGMAS (0.1,0.1)""",
    ),
    "cascade": ("faster_rcnn_ap.yaml", f"{CASCADE} RankingCascadeROIHeads"),
    "Detectron2's cascade": ("faster_rcnn_ce.yaml", f"{CASCADE} CascadeROIHeads"),
    "ssd in Python": ("digits_ssd_ap.py", "model.num_classes"),
    "cascade in Python": ("digits_cascade_rcnn_ap.py", "model.roi_heads.num_classes"),
}
# A softmax sums over the classes in their order, and rounds. Detections of almost the same score
# then change places, which changes an AP a little.
OF_A_SOFTMAX = ("retinanet with a background", "Detectron2's faster", "Detectron2's cascade")
# Parts of the names of weights whose rows are classes.
CLASS_LAYERS = ("cls_score", "box_predictor", "mask_head.predictor")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Digits as three classes. Each has a mask, the lower half of its box, and two keypoints."""
    folder = tmp_path_factory.mktemp("data") / "d"
    write_digits(folder, num_train=8, num_test=4, size=64, seed=0)
    for split in ("train", "test"):
        path = folder / f"coco_{split}.json"
        content = json.loads(path.read_text())
        for number, annotation in enumerate(content["annotations"]):
            annotation["category_id"] = number % 3
            x, y, w, h = annotation["bbox"]
            x1, middle, y1 = x + w, y + h / 2, y + h
            annotation["segmentation"] = [[x, middle, x1, middle, x1, y1, x, y1]]
            annotation["keypoints"] = [x + 1, y + 1, 2, x1 - 1, y1 - 1, 2]
        path.write_text(json.dumps(content))
    return folder


class SmallDetector:
    """Calls the command line with a small detector and a list of classes, in any order."""

    def __init__(self, name, digits, folder):
        self.config, self.options = DETECTORS[name]
        self.tolerance = 0.02 if name in OF_A_SOFTMAX else 1e-9
        self.is_python = self.config.endswith(".py")
        self.digits, self.folder = digits, folder

    def __call__(self, output, classes, *flags, weights="", num_iters=3, base_lr=0.01):
        keys = self._python_keys if self.is_python else self._yaml_keys
        kind = "lazy" if self.is_python else "digits"
        path = CONFIGS / kind / self.config
        entries = [self._entry(split, classes) for split in ("train", "test")]
        options = keys(entries, len(classes), self.folder / output, weights, num_iters, base_lr)
        main(["--config-file", str(path), "--device", "cpu", *flags, *map(str, options)])

    def _entry(self, split, classes):
        """Register the data set with its categories in an order, or by other names."""
        content = json.loads((self.digits / f"coco_{split}.json").read_text())
        numbers = [classes.index(name) if name in classes else i for i, name in enumerate(CLASSES)]
        for annotation in content["annotations"]:
            annotation["category_id"] = numbers[annotation["category_id"]]
        content["categories"] = [
            {"id": i, "name": name, "keypoints": ["a", "b"]} for i, name in enumerate(classes)
        ]
        path = self.folder / f"{split}.json"
        path.write_text(json.dumps(content))
        images = str(self.digits / "JPEGImages")
        return {"name": f"t_{split}", "format": "coco", "json": str(path), "images": images}

    def _yaml_keys(self, entries, num_classes, output, weights, num_iters, base_lr):
        return [
            *self.options.split(), "DATASETS.REGISTER", entries, "DATASETS.TRAIN", ["t_train"],
            "DATASETS.TEST", ["t_test"], "INPUT.FIXED_SIZE_TRAIN", (64, 64),
            "SOLVER.IMS_PER_BATCH", 2, "SOLVER.REFERENCE_BATCH_SIZE", 0, "SOLVER.BASE_LR", base_lr,
            "SOLVER.MAX_ITER", num_iters, "SOLVER.CHECKPOINT_PERIOD", 2, "TEST.EVAL_PERIOD", 0,
            "SOLVER.WARMUP_ITERS", 0, "OUTPUT_DIR", output, "MODEL.WEIGHTS", weights,
        ]  # fmt: skip

    def _python_keys(self, entries, num_classes, output, weights, num_iters, base_lr):
        register = ",".join(
            "{" + ",".join(f"{key}: '{value}'" for key, value in entry.items()) + "}"
            for entry in entries
        )
        return [
            f"{self.options}={num_classes}", f"datasets.register=[{register}]",
            "datasets.train=[t_train]", "datasets.test=[t_test]", f"optimizer.lr={base_lr}",
            "dataloader.train.total_batch_size=2", f"train.max_iter={num_iters}",
            "train.checkpointer.period=2", "train.eval_period=0", f"train.output_dir={output}",
            f"train.init_checkpoint='{weights}'",
        ]  # fmt: skip


@pytest.fixture
def detector(request, digits, tmp_path):
    return SmallDetector(request.param, digits, tmp_path)


def results_in(folder):
    """{(task, name): number}, without those that are not measured for want of objects."""
    results = json.loads((folder / "results.json").read_text())["results"]
    found = {(task, name): value for task in results for name, value in results[task].items()}
    return {key: value for key, value in found.items() if value is not None}


@pytest.mark.slow
@pytest.mark.parametrize("detector", DETECTORS, indirect=True)
def test_a_checkpoint_is_evaluated_resumed_and_fine_tuned_by_the_names_of_its_classes(
    detector, digits, tmp_path
):
    detector("run", CLASSES)
    weights, results = tmp_path / "run" / "model_final.pth", results_in(tmp_path / "run")
    assert_the_file_alone_finds_the_same(tmp_path / "run", tmp_path / "test.json", digits)

    detector("evaluated", REORDERED, "--eval-only", weights=weights)
    found = results_in(tmp_path / "evaluated")
    assert found == pytest.approx(results, rel=detector.tolerance)

    # As if it had been interrupted before the last step.
    shutil.copytree(tmp_path / "run", tmp_path / "resumed")
    (tmp_path / "resumed" / "model_final.pth").unlink()
    (tmp_path / "resumed" / "last_checkpoint").write_text("model_0000001.pth")
    detector("resumed", REORDERED, "--resume")
    shared, found = (of_no_class(p) for p in (weights, tmp_path / "resumed" / "model_final.pth"))
    torch.testing.assert_close(found, shared, rtol=0, atol=1e-6)

    detector("tuned", ANOTHER_MORE, weights=weights, num_iters=1, base_lr=1e-9)
    assert_rows_go_by_name(weights_in(tmp_path / "tuned" / "model_final.pth"), weights_in(weights))

    renamed = ["lion", *CLASSES[1:]]
    for message in refusals(detector, renamed, weights):
        assert f"3 {CLASSES} in the checkpoint, 3 {renamed} in the data sets" in message

    nameless = torch.load(weights, weights_only=True)
    del nameless["classes"]
    torch.save(nameless, weights)
    for message in refusals(detector, ANOTHER_MORE, weights):
        assert "another class count?" in message


def assert_the_file_alone_finds_the_same(folder, coco_json, digits):
    """Boxes, masks and keypoints of `Detector` are those of the evaluation."""
    written = json.loads((folder / "inference" / "t_test" / PREDICTIONS).read_text())
    detector = Detector(folder / "model_final.pth", device="cpu")
    num_found = 0
    for image in json.loads(coco_json.read_text())["images"]:
        found = detector(digits / "JPEGImages" / image["file_name"], threshold=0)
        results = instances_to_coco_json(found, image["id"])
        expected = [entry for entry in written if entry["image_id"] == image["id"]]
        assert sorted(map(json.dumps, results)) == sorted(map(json.dumps, expected))
        num_found += len(results)
    assert num_found > 0


def refusals(detector, classes, weights):
    """The messages when a checkpoint is evaluated, and when its training is resumed."""
    evaluate = partial(detector, "evaluated", classes, "--eval-only", weights=weights)
    return exit_message(evaluate), exit_message(partial(detector, "run", classes, "--resume"))


def of_no_class(path):
    weights = weights_in(path)
    return {k: w.float() for k, w in weights.items() if not any(n in k for n in CLASS_LAYERS)}


def assert_rows_go_by_name(tuned, weights):
    """Each class of ``CLASSES`` still has the rows that it had."""
    changed = [key for key in weights if tuned[key].shape != weights[key].shape]
    assert changed
    for key in changed:
        rows_of_a_class = len(tuned[key]) - len(weights[key])
        # A box has its four rows together; logits stand apart, by anchor.
        num_anchors, num_rows = (1, rows_of_a_class) if "bbox_pred" in key else (rows_of_a_class, 1)
        size = num_rows * weights[key][0].numel()
        new, old = (w[key].reshape(num_anchors, -1, size) for w in (tuned, weights))
        new = new[:, [ANOTHER_MORE.index(name) for name in CLASSES]]
        torch.testing.assert_close(new, old[:, :3], rtol=0, atol=1e-6, msg=key)
