"""A detector that detects every object of the first test set. Importing registers it."""

from typing import Any

import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Boxes, Instances
from torch import nn


@META_ARCH_REGISTRY.register()
class PerfectDetector(nn.Module):
    """Detects the objects in the order of the annotations, at most DETECTIONS_PER_IMAGE."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.limit = cfg.TEST.DETECTIONS_PER_IMAGE
        self.objects = {
            image["image_id"]: image.get("annotations", [])[: self.limit]
            for image in DatasetCatalog.get(cfg.DATASETS.TEST[0])
        }

    def forward(self, batch: list[dict[str, Any]]) -> Any:
        """The loss is 0."""
        if self.training:
            return {"loss": 0 * self.weight.sum()}
        return [{"instances": self._detect(image)} for image in batch]

    def _detect(self, image: dict[str, Any]) -> Instances:
        objects = self.objects[image["image_id"]]
        return Instances(
            (image["height"], image["width"]),
            pred_boxes=Boxes(torch.tensor([o["bbox"] for o in objects]).reshape(-1, 4).float()),
            scores=torch.linspace(1, 0.5, len(objects)),
            pred_classes=torch.tensor([o["category_id"] for o in objects]).long(),
        )
