"""The evaluators of a data set."""

import logging
import os
from collections.abc import Sequence

from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluators

from apdet.evaluation.coco import build_coco_evaluator
from apdet.evaluation.voc import VOCEvaluator

logger = logging.getLogger(__name__)


def inference_folder(cfg: CfgNode, dataset_name: str, *, tta: bool = False) -> str:
    """Where the predictions on a data set are kept; those of ``TEST.AUG`` with ``tta``."""
    return os.path.join(cfg.OUTPUT_DIR, "inference_TTA" if tta else "inference", dataset_name)


def _from_config(cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> dict:
    output_folder = output_folder or inference_folder(cfg, dataset_name)
    return {
        "dataset_name": dataset_name,
        "output_folder": output_folder,
        "masks": cfg.MODEL.MASK_ON,
        "keypoints": cfg.MODEL.KEYPOINT_ON,
        "keypoint_oks_sigmas": cfg.TEST.KEYPOINT_OKS_SIGMAS,
    }


@configurable(from_config=_from_config)
def build_evaluator(
    dataset_name: str,
    output_folder: str,
    *,
    masks: bool = False,
    keypoints: bool = False,
    keypoint_oks_sigmas: Sequence[float] = (),
) -> DatasetEvaluators:
    """COCO's metrics for every data set, and VOC's for one in VOC format with annotations.

    With a config as first argument, ``output_folder`` is by default `inference_folder`.

    Args:
        dataset_name: as registered.
        output_folder: where predictions go.
        masks: whether masks are measured, too, where every object has one.
        keypoints: whether keypoints are measured, too.
        keypoint_oks_sigmas: of each keypoint; empty: COCO's own.
    """
    metadata = MetadataCatalog.get(dataset_name)
    tasks = ["bbox", *["segm"] * masks, *["keypoints"] * keypoints]
    evaluators = [
        build_coco_evaluator(
            dataset_name, output_folder, tasks=tasks, kpt_oks_sigmas=keypoint_oks_sigmas
        )
    ]
    # "pascal_voc" are the sets that Detectron2 registers by itself.
    if metadata.get("evaluator_type") in ("voc", "pascal_voc") and metadata.get("annotated", True):
        evaluators.append(VOCEvaluator(dataset_name))
        if metadata.evaluator_type == "pascal_voc":
            logger.warning(
                f"{dataset_name}: Detectron2's loader does not say which boxes are difficult, so "
                "they count as misses and AP is below that of the literature. Register the folder "
                "under DATASETS.REGISTER for VOC's own measure."
            )
    return DatasetEvaluators(evaluators)
