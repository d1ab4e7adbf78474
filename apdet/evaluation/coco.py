"""Measures COCO's AP on any data set, with Detectron2's evaluator and pycocotools."""

import contextlib
import io
import itertools
import json
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import _evaluate_predictions_on_coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from apdet.errors import UserError
from apdet.evaluation.coco_ids import category_ids, number_images
from apdet.evaluation.ground_truth import (
    complete_annotations,
    ground_truth_file,
    measurable_tasks,
)
from apdet.files import whole_file

logger = logging.getLogger(__name__)

PREDICTIONS = "coco_instances_results.json"
MAX_DETECTIONS = 100  # the detections of a class in an image that count in COCO's AP


def build_coco_evaluator(
    dataset_name: str,
    output_dir: str,
    *,
    tasks: Sequence[str] = ("bbox",),
    kpt_oks_sigmas: Sequence[float] = (),
    detections_per_image: int = MAX_DETECTIONS,
) -> COCOEvaluator:
    """Build an evaluator of AP, AP50, AP75, APs, APm, APl and AP-<class>, in percent.

    Predictions are written to ``coco_instances_results.json`` in ``output_dir``, with the image ids
    of `apdet.evaluation.coco_ids.number_images`. Without annotations there are no results. A
    metric is nan if there are no objects for it, and 0 if there are objects but no detections.
    Objects with ``iscrowd`` are ignored.

    Args:
        dataset_name: the name of a registered data set.
        output_dir: the folder for the predictions.
        tasks: some of "bbox", "segm" and "keypoints". "segm" is dropped, with a warning, if an
            object of the data set has no mask.
        kpt_oks_sigmas: the OKS sigma of each keypoint; empty: COCO's sigmas.
        detections_per_image: the number of detections that the model keeps of each image. COCO's
            metrics count the best 100 of each class. If the model keeps more, the AP that counts
            all of them is measured too, as "AP@1000" for example; but not for keypoints.
    """
    max_detections = [1, 10, MAX_DETECTIONS]
    if detections_per_image > MAX_DETECTIONS:
        max_detections.append(detections_per_image)
    return _Evaluator(
        dataset_name,
        max_detections,
        tasks=tuple(tasks),
        output_dir=output_dir,
        kpt_oks_sigmas=kpt_oks_sigmas,
        use_fast_impl=False,
    )


def coco_metric_names(
    task: str, class_names: Sequence[str], detections_per_image: int
) -> list[str]:
    """The names of the metrics of a task, see `build_coco_evaluator`."""
    of_sizes = ["APm", "APl"] if task == "keypoints" else ["APs", "APm", "APl"]
    more = task != "keypoints" and detections_per_image > MAX_DETECTIONS
    return [
        *("AP", "AP50", "AP75", *of_sizes),
        *[f"AP@{detections_per_image}"] * more,
        *(f"AP-{name}" for name in class_names),
    ]


class _Evaluator(COCOEvaluator):
    """Detectron2's evaluator with corrections for data sets of users."""

    _tasks: list[str]

    def __init__(self, dataset_name: str, max_detections: list[int], **kwargs: Any) -> None:
        self._numbers = number_images(i["image_id"] for i in DatasetCatalog.get(dataset_name))
        with ground_truth_file(dataset_name, kwargs["output_dir"], self._numbers):
            super().__init__(dataset_name, **kwargs)
        self._max_dets_per_image = max_detections
        # A user's file without "annotations" is a data set without ground truth.
        self._do_evaluation &= self._metadata.get("annotated", True)
        self._kpt_oks_sigmas = kwargs["kpt_oks_sigmas"]
        tasks = measurable_tasks(self._tasks, self._coco_api.dataset.get("annotations", []))
        if len(tasks) < len(self._tasks) and self._do_evaluation:
            logger.warning(
                f"{dataset_name}: not every object has a mask, so only boxes are measured"
            )
        self._tasks = tasks

    def _eval_predictions(self, predictions: list[dict], img_ids: list | None = None) -> None:
        results = self._in_coco_format(predictions)
        with whole_file(os.path.join(self._output_dir, PREDICTIONS)) as file:
            file.write(json.dumps(results).encode())
        if not self._do_evaluation:
            logger.info(f"{self._metadata.name} has no annotations, so nothing is measured")
            return
        ids = self._metadata.get("thing_dataset_id_to_contiguous_id")
        complete_annotations(self._coco_api, ids, self._metadata.name)
        if not results:
            logger.warning("The model did not detect anything.")
        for task in sorted(self._tasks):
            evaluated = self._evaluate_task(task, results, img_ids)
            self._results[task] = self._derive_coco_results(evaluated, task)

    def _in_coco_format(self, predictions: list[dict]) -> list[dict]:
        """Put the ids of COCO's format in place of those of the data set and of the model."""
        results = list(itertools.chain(*(image["instances"] for image in predictions)))
        categories = category_ids(self._metadata)
        for ids, key in ((self._numbers, "image_id"), (categories, "category_id")):
            for unknown in {result[key] for result in results} - ids.keys():
                raise UserError(
                    f"there are predictions with {key} {unknown!r}, which {self._metadata.name} "
                    "does not have; evaluate a model of its classes on its images"
                )
        return [
            {
                **result,
                "image_id": self._numbers[result["image_id"]],
                "category_id": categories[result["category_id"]],
            }
            for result in results
        ]

    def _evaluate_task(self, task: str, results: list[dict], img_ids: list | None) -> COCOeval:
        if not results:
            return _evaluate_no_detections(self._coco_api, task, self._max_dets_per_image)
        return _evaluate_predictions_on_coco(
            self._coco_api,
            results,
            task,
            kpt_oks_sigmas=self._kpt_oks_sigmas,
            cocoeval_fn=COCOeval,
            img_ids=img_ids,
            max_dets_per_image=self._max_dets_per_image,
        )

    def _derive_coco_results(
        self, coco_eval: COCOeval, iou_type: str, class_names: list[str] | None = None
    ) -> dict[str, float]:
        # COCOeval orders classes by category id; the metadata may have another order.
        categories = self._coco_api.loadCats(coco_eval.params.catIds)
        class_names = [category["name"] for category in categories]
        of_all = {}
        if len(coco_eval.params.maxDets) > 3:
            precision = coco_eval.eval["precision"]  # (IoU, recall, class, size, max. detections)
            of_all[f"AP@{coco_eval.params.maxDets[3]}"] = _mean(precision[:, :, :, 0, 3])
            # Detectron2 takes the AP of a class from the last entry.
            coco_eval.eval["precision"] = precision[..., :3]
        results = super()._derive_coco_results(coco_eval, iou_type, class_names)
        if len(class_names) == 1:  # Detectron2 leaves out the AP of a single class
            results[f"AP-{class_names[0]}"] = results["AP"]
        for name, ap in of_all.items():
            logger.info(f"{iou_type} {name}, of all detections: {ap:.3f}")
        return {**results, **of_all}


def _evaluate_no_detections(
    ground_truth: COCO, iou_type: str, max_detections: list[int]
) -> COCOeval:
    """Run COCOeval on an empty list of detections, which ``COCO.loadRes`` cannot read."""
    detections = COCO()
    detections.dataset = {**ground_truth.dataset, "annotations": []}
    with contextlib.redirect_stdout(io.StringIO()):
        detections.createIndex()
    coco_eval = COCOeval(ground_truth, detections, iou_type)
    if iou_type != "keypoints":
        coco_eval.params.maxDets = max_detections
    coco_eval.evaluate()
    coco_eval.accumulate()
    coco_eval.summarize()
    return coco_eval


def _mean(precision: np.ndarray) -> float:
    """The mean in percent, without the entries of -1 that COCOeval has for absent classes."""
    precision = precision[precision > -1]
    return 100 * float(precision.mean()) if precision.size else float("nan")
