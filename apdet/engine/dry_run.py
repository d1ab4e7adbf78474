"""One training step and one evaluation batch, and a summary of what a training would be."""

import resource
from collections import Counter

import torch
from detectron2.data import MetadataCatalog
from detectron2.utils.events import EventStorage
from tabulate import tabulate
from torch import nn

from apdet.checkpoint.checkpointer import build_checkpointer
from apdet.config import scale_to_batch_size
from apdet.data.training import training_dicts
from apdet.engine.trainer import Trainer
from apdet.modeling.cls_loss import cls_loss_name


def dry_run(cfg) -> dict[str, object]:
    """Try out config, data, model and weights; print a summary and write nothing.

    Returns:
        The rows of the summary.

    Raises:
        UserError: as a training would.
    """
    cfg = scale_to_batch_size(cfg)
    dicts = training_dicts(cfg)
    model = Trainer.build_model(cfg)
    build_checkpointer(cfg, model).load(cfg.MODEL.WEIGHTS)
    batch = next(iter(Trainer.build_train_loader(cfg)))
    losses = _train_step(cfg, model, batch)

    summary = {
        "model": f"{cfg.MODEL.META_ARCHITECTURE} on {cfg.MODEL.DEVICE}",
        "classification loss": cls_loss_name(model),
        "parameters": f"{_count(model.parameters()):,}",
        "trained parameters": f"{_count(p for p in model.parameters() if p.requires_grad):,}",
        "training images": f"{len(dicts):,} of {', '.join(cfg.DATASETS.TRAIN)}",
        "boxes": _boxes_per_class(cfg.DATASETS.TRAIN[0], dicts),
        "iterations": f"{cfg.SOLVER.MAX_ITER:,} of {cfg.SOLVER.IMS_PER_BATCH} images "
        f"({cfg.SOLVER.MAX_ITER * cfg.SOLVER.IMS_PER_BATCH / len(dicts):.1f} epochs)",
        "first training batch": ", ".join("x".join(map(str, x["image"].shape)) for x in batch[:4])
        + (", ..." if len(batch) > 4 else ""),
        **_anchor_rows(model, batch),
        **{key: f"{value.item():.4f}" for key, value in losses.items()},
    }
    for name in cfg.DATASETS.TEST:
        summary[f"first image of {name}"] = f"{_num_detections(cfg, model, name)} detections"
    summary["peak memory"] = f"{_peak_memory(cfg) / 2**30:.1f} GiB"
    print(tabulate(summary.items(), tablefmt="plain"))
    print("dry run: all is well, nothing was written")
    return summary


def _train_step(cfg, model: nn.Module, batch) -> dict[str, torch.Tensor]:
    optimizer = Trainer.build_optimizer(cfg, model)
    model.train()
    with EventStorage():  # two-stage detectors do not train without
        losses = model(batch)
    sum(losses.values()).backward()
    optimizer.step()
    return losses


@torch.no_grad()
def _anchor_rows(model: nn.Module, batch) -> dict[str, str]:
    """Anchors a level and positives an image, for models that have anchors as RetinaNet does."""
    if not hasattr(model, "label_anchors"):
        return {}
    features = model.backbone(model.preprocess_image(batch).tensor)
    anchors = model.anchor_generator([features[name] for name in model.head_in_features])
    instances = [x["instances"].to(model.device) for x in batch]
    labels = torch.stack(model.label_anchors(anchors, instances)[0])
    positives = ((labels >= 0) & (labels < model.num_classes)).sum(dim=1).tolist()
    levels = [
        f"{name} {len(level):,}"
        for name, level in zip(model.head_in_features, anchors, strict=True)
    ]
    return {
        "anchors": f"{labels.shape[1]:,} ({', '.join(levels)})",
        "positives an image": f"{sum(positives) / len(positives):.1f} "
        f"({min(positives)} to {max(positives)} in the batch)",
    }


@torch.no_grad()
def _num_detections(cfg, model: nn.Module, dataset_name: str) -> int:
    model.eval()
    batch = next(iter(Trainer.build_test_loader(cfg, dataset_name)))
    return len(model(batch)[0]["instances"])


def _boxes_per_class(dataset_name: str, dicts) -> str:
    classes = MetadataCatalog.get(dataset_name).thing_classes
    count = Counter(box["category_id"] for image in dicts for box in image["annotations"])
    rows = [f"{name} {count[i]:,}" for i, name in enumerate(classes)]
    return f"{sum(count.values()):,} ({', '.join(rows)})"


def _count(parameters) -> int:
    return sum(p.numel() for p in parameters)


def _peak_memory(cfg) -> int:
    """In bytes: of the accelerator where there is one, else of this process."""
    if torch.device(cfg.MODEL.DEVICE).type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
