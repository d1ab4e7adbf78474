"""PASCAL VOC's average precision for data sets of any layout."""

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

from apdet.evaluation.matching import HIT, IGNORED, Detections, match_detections, read_objects

logger = logging.getLogger(__name__)


def voc_average_precision(
    detections: Mapping[Hashable, Detections],
    dataset_dicts: Iterable[Mapping[str, Any]],
    num_classes: int,
    *,
    iou_threshold: float = 0.5,
) -> dict[str, np.ndarray]:
    """Average precision of each class by the two rules of PASCAL VOC.

    "11point" (VOC 2007) is the mean over the recalls r = 0, 0.1 .. 1 of the best precision at a
    recall of at least r; "area" (since VOC 2010) is the area under that interpolated precision.

    Args:
        detections: of each image, by image id. Images may be absent.
        dataset_dicts: Detectron2's. An annotation with ``iscrowd`` is neither a hit nor a miss.
        num_classes: K.
        iou_threshold: a hit has an IoU above this.

    Returns:
        {"11point": (K,), "area": (K,)} in [0, 1], nan for a class without an object.
    """
    objects = read_objects(dataset_dicts)
    num_objects = np.zeros(num_classes, dtype=np.int64)
    for there in objects.values():
        num_objects += np.bincount(there.classes[~there.ignored], minlength=num_classes)
    scores, classes, verdicts = match_detections(detections, objects, iou_threshold=iou_threshold)

    result = {rule: np.full(num_classes, np.nan) for rule in ("11point", "area")}
    for k in np.flatnonzero(num_objects):
        mine = (classes == k) & (verdicts != IGNORED)
        hits = verdicts[mine][np.argsort(-scores[mine], kind="stable")] == HIT
        num_hits = np.cumsum(hits)
        recall = num_hits / num_objects[k]
        precision = num_hits / np.arange(1, len(hits) + 1)
        result["11point"][k] = voc_ap(recall, precision, use_07_metric=True)
        result["area"][k] = voc_ap(recall, precision, use_07_metric=False)
    return result


class VOCEvaluator(DatasetEvaluator):
    """VOC's AP at IoU 0.5, in percent, for any data set in Detectron2's catalogs."""

    def __init__(self, dataset_name: str) -> None:
        """Evaluate on the data set registered under this name."""
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
        """The results; empty on all processes but the first. All processes have to call it.

        Returns:
            {"voc": {"mAP50_11point", "mAP50_area", "AP50_area-<class>" of each class}}. Classes
            without an object are nan and left out of the means.
        """
        shards = comm.gather(self._detections, dst=0)
        if not comm.is_main_process():
            return OrderedDict()
        detections = {image_id: found for shard in shards for image_id, found in shard.items()}
        dataset_dicts = DatasetCatalog.get(self._dataset_name)
        class_names = MetadataCatalog.get(self._dataset_name).thing_classes
        aps = voc_average_precision(detections, dataset_dicts, len(class_names))

        means = {f"mAP50_{rule}": 100 * _mean(values) for rule, values in aps.items()}
        logger.info(f"VOC results on {self._dataset_name}:\n{create_small_table(means)}")
        per_class = zip(class_names, (100 * aps["area"]).tolist(), strict=True)
        return OrderedDict(voc={**means, **{f"AP50_area-{name}": ap for name, ap in per_class}})


def _mean(values: np.ndarray) -> float:
    """The mean over those that are not nan; nan, without a warning, if all are."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
