"""The evaluators of a data set."""

import logging
import os

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluators

from apdet.evaluation.coco import build_coco_evaluator
from apdet.evaluation.voc import VOCEvaluator

logger = logging.getLogger(__name__)


def inference_folder(cfg: CfgNode, dataset_name: str, *, tta: bool = False) -> str:
    """Where the predictions on a data set are kept; those of ``TEST.AUG`` with ``tta``."""
    return os.path.join(cfg.OUTPUT_DIR, "inference_TTA" if tta else "inference", dataset_name)


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_folder: str | None = None
) -> DatasetEvaluators:
    """COCO's metrics for every data set, and VOC's for one in VOC format with annotations.

    Args:
        cfg: for its ``OUTPUT_DIR``.
        dataset_name: as registered.
        output_folder: where predictions go; by default `inference_folder`.
    """
    metadata = MetadataCatalog.get(dataset_name)
    output_folder = output_folder or inference_folder(cfg, dataset_name)
    evaluators = [build_coco_evaluator(dataset_name, output_folder)]
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
