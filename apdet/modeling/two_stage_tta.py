"""Tests a two-stage detector on several scales, with the settings of the model itself."""

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.modeling import DatasetMapperTTA, GeneralizedRCNN, GeneralizedRCNNWithTTA
from torch import nn


class TwoStageDetectorWithTTA(GeneralizedRCNNWithTTA):
    """Detectron2's test-time augmentation of a two-stage detector, built without a config."""

    def __init__(self, model: GeneralizedRCNN, *, sizes: Sequence[int], max_size: int, flip: bool):
        """Wrap ``model``; see :func:`apdet.modeling.tta.with_test_time_augmentation`."""
        heads = model.roi_heads
        # The last stage of a cascade makes the detections.
        cascade = isinstance(heads.box_predictor, nn.ModuleList)
        predictor = heads.box_predictor[-1] if cascade else heads.box_predictor
        # These are all the keys that Detectron2's class reads from its config.
        read = {
            "MODEL": {
                "KEYPOINT_ON": getattr(heads, "keypoint_on", False),
                "LOAD_PROPOSALS": model.proposal_generator is None,
                "MASK_ON": getattr(heads, "mask_on", False),
                "ROI_HEADS": {
                    "NUM_CLASSES": heads.num_classes,
                    "NMS_THRESH_TEST": predictor.test_nms_thresh,
                },
            },
            "TEST": {"DETECTIONS_PER_IMAGE": predictor.test_topk_per_image},
        }
        super().__init__(CfgNode(read), model, DatasetMapperTTA(list(sizes), max_size, flip))
        self.training = model.training  # Detectron2 restores this flag after the evaluation
