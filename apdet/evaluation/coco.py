"""COCO's AP for any data set, by Detectron2's evaluator and the official pycocotools."""

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
    """An evaluator whose results are AP, AP50, AP75, APs, APm, APl and AP-<class>, in percent.

    Predictions are written to ``coco_instances_results.json`` in ``output_dir``. A data set
    without annotations gets no results. A metric is nan where there is no object to find, and 0
    where there are objects but no detections. Boxes with ``iscrowd`` are neither hits nor misses.

    Args:
        dataset_name: as registered.
        output_dir: where predictions go.
        tasks: of "bbox", "segm" and "keypoints"; "segm" is left out, with a warning, for a data
            set of which some object has no mask.
        kpt_oks_sigmas: of COCO's keypoints; empty: COCO's own.
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
    """Detectron2's evaluator, made to work for every data set that a user may bring."""

    def __init__(self, dataset_name: str, **kwargs: Any) -> None:
        metadata = MetadataCatalog.get(dataset_name)
        converted = metadata.get("json_file") is None
        try:
            super().__init__(dataset_name, **kwargs)
        finally:
            # Detectron2 leaves the file that it converted to in the global catalog, where the
            # next evaluator, with another output folder, would take it for the data set's own.
            if converted and "json_file" in vars(metadata):
                del metadata.json_file
        # Neither source has an "annotations" entry if unannotated; a converted one also lacks it
        # if it merely has no objects.
        has_entry = converted or "annotations" in self._coco_api.dataset
        self._do_evaluation = has_entry and metadata.get("annotated", True)
        self._kpt_oks_sigmas = kwargs.get("kpt_oks_sigmas", ())
        objects = self._coco_api.dataset.get("annotations", [])
        if "segm" in self._tasks and not all(a.get("segmentation") for a in objects):
            logger.warning(
                f"{dataset_name}: not every object has a mask, so only boxes are measured"
            )
            self._tasks = [task for task in self._tasks if task != "segm"]

    def _eval_predictions(self, predictions: list[dict], img_ids: list | None = None) -> None:
        # Not in __init__: Detectron2 learns the classes of a COCO file when it first loads it.
        ids = self._metadata.get("thing_dataset_id_to_contiguous_id")
        _complete_annotations(self._coco_api, ids)
        super()._eval_predictions(predictions, img_ids=img_ids)

    def _derive_coco_results(
        self, coco_eval: COCOeval | None, iou_type: str, class_names: list[str] | None = None
    ) -> dict[str, float]:
        if coco_eval is None:
            logger.warning("The model detected nothing at all.")
            coco_eval = _evaluate_no_detections(self._coco_api, iou_type)
        # COCOeval's order, by category id; that of the metadata's classes may be another.
        categories = self._coco_api.loadCats(coco_eval.params.catIds)
        class_names = [category["name"] for category in categories]
        results = super()._derive_coco_results(coco_eval, iou_type, class_names)
        if len(class_names) == 1:  # which Detectron2 leaves out
            results[f"AP-{class_names[0]}"] = results["AP"]
        return results


def _complete_annotations(coco: COCO, category_ids: dict[int, int] | None) -> None:
    """Give a user's COCO file what COCOeval relies on, and leave out what the model cannot know.

    Args:
        coco: changed in place.
        category_ids: the categories to keep, as keys; None: all.
    """
    dataset = coco.dataset
    if category_ids is not None:
        dataset["categories"] = [c for c in dataset["categories"] if c["id"] in category_ids]
    known = {category["id"] for category in dataset["categories"]}
    annotations = [a for a in dataset.get("annotations", []) if a["category_id"] in known]
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number  # COCOeval takes an id of 0 for "not matched"
        annotation.setdefault("iscrowd", 0)
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
    dataset["annotations"] = annotations
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()


def _evaluate_no_detections(truth: COCO, iou_type: str) -> COCOeval:
    """COCOeval on no detections at all, which ``COCO.loadRes`` cannot make."""
    nothing = COCO()
    nothing.dataset = {**truth.dataset, "annotations": []}
    with contextlib.redirect_stdout(io.StringIO()):
        nothing.createIndex()
    coco_eval = COCOeval(truth, nothing, iou_type)
    coco_eval.evaluate()
    coco_eval.accumulate()
    coco_eval.summarize()
    return coco_eval
