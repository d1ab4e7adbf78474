"""Measures PASCAL VOC's average precision on data sets in any format."""

import logging
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.evaluation.pascal_voc_evaluation import voc_ap
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table

from apdet.evaluation.matching import (
    IGNORED,
    TRUE_POSITIVE,
    Detections,
    match_detections,
    read_objects,
)

logger = logging.getLogger(__name__)


def voc_average_precision(
    detections: Mapping[Hashable, Detections],
    dataset_dicts: Iterable[Mapping[str, Any]],
    num_classes: int,
    *,
    iou_threshold: float = 0.5,
) -> dict[str, np.ndarray]:
    """Compute the average precision of each class by the two rules of PASCAL VOC.

    The interpolated precision at a recall r is the best precision at any recall of at least r.
    "11point" (VOC 2007) is its mean over r = 0, 0.1 .. 1. "area" (since VOC 2010) is the area under
    its curve.

    Args:
        detections: {image id: detections}. Images without detections may be absent.
        dataset_dicts: Detectron2's dataset dicts. Objects with ``iscrowd`` are ignored.
        num_classes: K.
        iou_threshold: a true positive has an IoU above this threshold.

    Returns:
        {"11point": (K,), "area": (K,)} float64 in [0, 1]; nan for a class without objects.
    """
    objects = read_objects(dataset_dicts)
    num_objects = np.zeros(num_classes, dtype=np.int64)
    for ground_truth in objects.values():
        counted = ground_truth.classes[~ground_truth.ignored]
        num_objects += np.bincount(counted, minlength=num_classes)
    scores, classes, verdicts = match_detections(detections, objects, iou_threshold=iou_threshold)

    result = {rule: np.full(num_classes, np.nan) for rule in ("11point", "area")}
    for k in np.flatnonzero(num_objects):
        of_class = (classes == k) & (verdicts != IGNORED)
        order = np.argsort(-scores[of_class], kind="stable")
        num_true_positives = np.cumsum(verdicts[of_class][order] == TRUE_POSITIVE)
        recall = num_true_positives / num_objects[k]
        precision = num_true_positives / np.arange(1, len(order) + 1)
        result["11point"][k] = voc_ap(recall, precision, use_07_metric=True)
        result["area"][k] = voc_ap(recall, precision, use_07_metric=False)
    return result


def voc_metric_names(class_names: Iterable[str]) -> list[str]:
    """The names of the metrics of `VOCEvaluator`."""
    return ["mAP50_11point", "mAP50_area", *(f"AP50_area-{name}" for name in class_names)]


class VOCEvaluator(DatasetEvaluator):
    """Measures VOC's AP at IoU 0.5, in percent, on any data set in Detectron2's catalogs."""

    def __init__(self, dataset_name: str) -> None:
        """Set the name of the registered data set."""
        self._dataset_name = dataset_name
        self.reset()

    def reset(self) -> None:
        self._detections: dict[Hashable, Detections] = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for image, output in zip(inputs, outputs, strict=True):
            instances = output["instances"]
            self._detections[image["image_id"]] = Detections(
                instances.pred_boxes.tensor.double().cpu().numpy(),
                instances.scores.double().cpu().numpy(),
                instances.pred_classes.long().cpu().numpy(),
            )

    def evaluate(self) -> OrderedDict:
        """Gather the detections of all processes, and measure AP. All processes must call this.

        Returns:
            {"voc": {"mAP50_11point", "mAP50_area", "AP50_area-<class>" of each class}}. The AP of
            a class without objects is nan and left out of the means. Empty on all processes but
            the first.
        """
        shards = comm.gather(self._detections, dst=0)
        if not comm.is_main_process():
            return OrderedDict()
        detections = {
            image_id: detected for shard in shards for image_id, detected in shard.items()
        }
        dataset_dicts = DatasetCatalog.get(self._dataset_name)
        class_names = MetadataCatalog.get(self._dataset_name).thing_classes
        aps = voc_average_precision(detections, dataset_dicts, len(class_names))

        means = {f"mAP50_{rule}": 100 * _mean(values) for rule, values in aps.items()}
        logger.info(f"VOC results on {self._dataset_name}:\n{create_small_table(means)}")
        per_class = zip(class_names, (100 * aps["area"]).tolist(), strict=True)
        return OrderedDict(voc={**means, **{f"AP50_area-{name}": ap for name, ap in per_class}})


def _mean(values: np.ndarray) -> float:
    """The mean over the values that are not nan; nan, without a warning, if all are nan."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
