"""Evaluates only detections whose scores and boxes are finite numbers."""

import logging
from typing import Any

import torch
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.structures import Instances
from detectron2.utils import comm

logger = logging.getLogger(__name__)


class FiniteEvaluators(DatasetEvaluators):
    """Leaves out detections with a NaN or an infinite number, and logs how many there are.

    Sorting by a score of NaN would give a wrong AP without a word.
    """

    def __init__(self, dataset_name: str, evaluators: list[DatasetEvaluator]) -> None:
        """Set the name of the data set, for the log, and the evaluators."""
        super().__init__(evaluators)
        self._dataset_name = dataset_name

    def reset(self) -> None:
        super().reset()
        self._num_left_out: dict[str, int] = {}  # by the file of the image

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        kept = []
        for image, output in zip(inputs, outputs, strict=True):
            if "instances" in output:
                finite = _is_finite(output["instances"])
                if not finite.all():
                    self._num_left_out[image["file_name"]] = int((~finite).sum())
                    output = {**output, "instances": output["instances"][finite]}
            kept.append(output)
        super().process(inputs, kept)

    def evaluate(self) -> dict[str, Any]:
        shards = comm.gather(self._num_left_out, dst=0)
        left_out = {file: num for shard in shards for file, num in shard.items()}
        if left_out:
            logger.warning(
                f"{self._dataset_name}: {sum(left_out.values())} detections in {len(left_out)} "
                "images have a score or a box that is NaN or infinite and are left out, first in "
                f"{min(left_out)}; the weights of the model may be broken"
            )
        return super().evaluate()


def _is_finite(instances: Instances) -> torch.Tensor:
    """Whether each detection has a finite score and box: (D,) bool."""
    boxes, scores = instances.pred_boxes.tensor, instances.scores
    return torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores)
