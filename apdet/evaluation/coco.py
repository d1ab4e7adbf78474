"""Measures COCO's AP on any data set, with Detectron2's evaluator and pycocotools."""

import contextlib
import io
import logging
from collections.abc import Sequence
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

logger = logging.getLogger(__name__)


def build_coco_evaluator(
    dataset_name: str,
    output_dir: str,
    *,
    tasks: Sequence[str] = ("bbox",),
    kpt_oks_sigmas: Sequence[float] = (),
) -> COCOEvaluator:
    """Build an evaluator of AP, AP50, AP75, APs, APm, APl and AP-<class>, in percent.

    Predictions are written to ``coco_instances_results.json`` in ``output_dir``. Without
    annotations there are no results. A metric is nan if there are no objects for it, and 0 if there
    are objects but no detections. Objects with ``iscrowd`` are ignored.

    Args:
        dataset_name: the name of a registered data set.
        output_dir: the folder for the predictions.
        tasks: some of "bbox", "segm" and "keypoints". "segm" is dropped, with a warning, if an
            object of the data set has no mask.
        kpt_oks_sigmas: the OKS sigma of each keypoint; empty: COCO's sigmas.
    """
    return _Evaluator(
        dataset_name,
        tasks=tuple(tasks),
        output_dir=output_dir,
        kpt_oks_sigmas=kpt_oks_sigmas,
        use_fast_impl=False,
        allow_cached_coco=False,
    )


class _Evaluator(COCOEvaluator):
    """Detectron2's evaluator with corrections for data sets of users."""

    _tasks: list[str]

    def __init__(self, dataset_name: str, **kwargs: Any) -> None:
        metadata = MetadataCatalog.get(dataset_name)
        converted = metadata.get("json_file") is None
        try:
            super().__init__(dataset_name, **kwargs)
        finally:
            # Detectron2 converts the data set to a file in COCO's format and leaves its path in
            # the global catalog. The next evaluator would read that file as the ground truth.
            if converted and "json_file" in vars(metadata):
                del metadata.json_file
        # A user's file without "annotations" is a data set without ground truth. A converted file
        # also lacks the entry if the data set merely has no objects.
        may_be_annotated = converted or "annotations" in self._coco_api.dataset
        self._do_evaluation = may_be_annotated and metadata.get("annotated", True)
        self._kpt_oks_sigmas = kwargs.get("kpt_oks_sigmas", ())
        objects = self._coco_api.dataset.get("annotations", [])
        if "segm" in self._tasks and not all(a.get("segmentation") for a in objects):
            logger.warning(
                f"{dataset_name}: not every object has a mask, so only boxes are measured"
            )
            self._tasks = [task for task in self._tasks if task != "segm"]

    def _eval_predictions(self, predictions: list[dict], img_ids: list | None = None) -> None:
        # Not in __init__: Detectron2 reads the classes of a COCO file when it first loads it.
        ids = self._metadata.get("thing_dataset_id_to_contiguous_id")
        _complete_annotations(self._coco_api, ids)
        super()._eval_predictions(predictions, img_ids=img_ids)

    def _derive_coco_results(
        self, coco_eval: COCOeval | None, iou_type: str, class_names: list[str] | None = None
    ) -> dict[str, float]:
        if coco_eval is None:
            logger.warning("The model did not detect anything.")
            coco_eval = _evaluate_no_detections(self._coco_api, iou_type)
        # COCOeval orders classes by category id; the metadata may have another order.
        categories = self._coco_api.loadCats(coco_eval.params.catIds)
        class_names = [category["name"] for category in categories]
        results = super()._derive_coco_results(coco_eval, iou_type, class_names)
        if len(class_names) == 1:  # Detectron2 leaves out the AP of a single class
            results[f"AP-{class_names[0]}"] = results["AP"]
        return results


def _complete_annotations(coco: COCO, category_ids: dict[int, int] | None) -> None:
    """Add what COCOeval needs to a user's file, and drop categories that the model does not know.

    Args:
        coco: the ground truth, changed in place.
        category_ids: the keys are the categories to keep; None: keep all.
    """
    dataset = coco.dataset
    if category_ids is not None:
        dataset["categories"] = [c for c in dataset["categories"] if c["id"] in category_ids]
    known = {category["id"] for category in dataset["categories"]}
    annotations = [a for a in dataset.get("annotations", []) if a["category_id"] in known]
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number  # to COCOeval an id of 0 means "not matched"
        annotation.setdefault("iscrowd", 0)
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
    dataset["annotations"] = annotations
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()


def _evaluate_no_detections(ground_truth: COCO, iou_type: str) -> COCOeval:
    """Run COCOeval on an empty list of detections, which ``COCO.loadRes`` cannot read."""
    detections = COCO()
    detections.dataset = {**ground_truth.dataset, "annotations": []}
    with contextlib.redirect_stdout(io.StringIO()):
        detections.createIndex()
    coco_eval = COCOeval(ground_truth, detections, iou_type)
    coco_eval.evaluate()
    coco_eval.accumulate()
    coco_eval.summarize()
    return coco_eval
