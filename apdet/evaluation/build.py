"""Builds the evaluators of a data set."""

import logging
import os
from collections.abc import Sequence

from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.evaluation import DatasetEvaluators

from apdet.evaluation.coco import build_coco_evaluator, coco_metric_names
from apdet.evaluation.finite import FiniteEvaluators
from apdet.evaluation.ground_truth import is_annotated, measurable_tasks
from apdet.evaluation.voc import VOCEvaluator, voc_metric_names

logger = logging.getLogger(__name__)


def inference_folder(output_dir: str | os.PathLike, dataset_name: str, *, tta: bool = False) -> str:
    """The folder for the predictions on a data set.

    Args:
        output_dir: the folder of the training.
        dataset_name: the name of a registered data set.
        tta: whether the predictions were made with test-time augmentation.
    """
    return os.path.join(output_dir, "inference_TTA" if tta else "inference", dataset_name)


def _from_config(cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> dict:
    return {
        "dataset_name": dataset_name,
        "output_folder": output_folder or inference_folder(cfg.OUTPUT_DIR, dataset_name),
        "masks": cfg.MODEL.MASK_ON,
        "keypoints": cfg.MODEL.KEYPOINT_ON,
        "keypoint_oks_sigmas": cfg.TEST.KEYPOINT_OKS_SIGMAS,
        "detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
    }


@configurable(from_config=_from_config)
def build_evaluator(
    dataset_name: str,
    output_folder: str,
    *,
    masks: bool = False,
    keypoints: bool = False,
    keypoint_oks_sigmas: Sequence[float] = (),
    detections_per_image: int = 100,
) -> DatasetEvaluators:
    """Build the evaluators of a data set: COCO's metrics, and VOC's metrics if it is in VOC format.

    If the data set has no annotations, its predictions are written, but nothing is measured.
    ``build_evaluator(cfg, dataset_name, output_folder=None)`` reads the other arguments from a
    YAML config, and by default writes predictions to `inference_folder`.

    Args:
        dataset_name: the name of a registered data set.
        output_folder: the folder for the predictions.
        masks: whether to measure masks too, if every object has a mask.
        keypoints: whether to measure keypoints too.
        keypoint_oks_sigmas: the OKS sigma of each keypoint; empty: COCO's sigmas.
        detections_per_image: the number of detections that the model keeps of each image. Above
            100, the AP that counts all of them is measured too, as "AP@1000" for example.
    """
    metadata = MetadataCatalog.get(dataset_name)
    tasks = ["bbox", *["segm"] * masks, *["keypoints"] * keypoints]
    evaluators = [
        build_coco_evaluator(
            dataset_name,
            output_folder,
            tasks=tasks,
            kpt_oks_sigmas=keypoint_oks_sigmas,
            detections_per_image=detections_per_image,
        )
    ]
    if _has_voc_metrics(metadata):
        evaluators.append(VOCEvaluator(dataset_name))
        if metadata.evaluator_type == "pascal_voc":
            logger.warning(
                f"{dataset_name}: Detectron2's loader does not say which boxes are difficult. They "
                "count as misses if they are not detected, so AP is lower than in the literature. "
                "Register the folder as a data set of your own in format voc to measure AP as "
                "VOC does."
            )
    return FiniteEvaluators(dataset_name, evaluators)


def _has_voc_metrics(metadata: Metadata) -> bool:
    # "pascal_voc" marks the data sets that Detectron2 registers by itself.
    in_voc_format = metadata.get("evaluator_type") in ("voc", "pascal_voc")
    return in_voc_format and metadata.get("annotated", True)


def metric_names(
    dataset_name: str,
    *,
    masks: bool = False,
    keypoints: bool = False,
    keypoint_oks_sigmas: Sequence[float] = (),
    detections_per_image: int = 100,
) -> list[str]:
    """The names of what `build_evaluator`, with the same arguments, measures on a data set.

    Args:
        dataset_name: the name of a registered data set.
        masks: whether masks are measured too, if every object has a mask.
        keypoints: whether keypoints are measured too.
        keypoint_oks_sigmas: has no effect on the names.
        detections_per_image: the number of detections that the model keeps of each image.

    Returns:
        Names such as "bbox/AP" and "voc/mAP50_area"; empty for a data set without annotations.
    """
    metadata = MetadataCatalog.get(dataset_name)
    dataset_dicts = DatasetCatalog.get(dataset_name)
    if not is_annotated(dataset_name, dataset_dicts):
        return []
    classes = metadata.thing_classes
    objects = [annotation for image in dataset_dicts for annotation in image.get("annotations", [])]
    tasks = ["bbox", *["segm"] * masks, *["keypoints"] * keypoints]
    names = [
        f"{task}/{name}"
        for task in measurable_tasks(tasks, objects)
        for name in coco_metric_names(task, classes, detections_per_image)
    ]
    if _has_voc_metrics(metadata):
        names += [f"voc/{name}" for name in voc_metric_names(classes)]
    return names
