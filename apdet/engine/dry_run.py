"""The dry run: one training step, one image of each test set, and a summary of the training."""

import resource
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from tabulate import tabulate
from torch import Tensor, nn

from apdet.checkpoint import Checkpointer, resolve_weights_classes
from apdet.config.plan import TestSet, TrainingPlan
from apdet.engine.evaluation_check import check_evaluation, log_validation
from apdet.engine.model import build_model
from apdet.engine.result_keys import evaluated_sets
from apdet.modeling.cls_loss import cls_loss_name
from apdet.modeling.contract import match_anchors, num_classes_of


def dry_run(plan: TrainingPlan) -> dict[str, str]:
    """Check config, data, model and weights, and print a summary. Nothing is written.

    Returns:
        {title: text} of each row of the summary.

    Raises:
        UserError: an error that would also stop a training.
    """
    with plan.naming_keys():
        summary = _try_out(plan)
    print(tabulate(summary.items(), tablefmt="plain"))
    print("dry run: all is well, nothing was written")
    return summary


def _try_out(plan: TrainingPlan) -> dict[str, str]:
    dicts = plan.load_train_dicts()
    check_evaluation(plan)
    log_validation(plan)
    model = build_model(plan)
    Checkpointer(
        model,
        allow_mismatch=plan.weights.allow_mismatch,
        classes=plan.classes,
        weights_classes=resolve_weights_classes(plan.weights.classes),
    ).load(plan.weights.path)
    batch = next(iter(plan.build_train_loader(seed=max(plan.seed, 0))))
    losses = _train_step(plan, model, batch)
    sizes = ["x".join(map(str, image["image"].shape)) for image in batch]
    num_images = plan.schedule.max_iter * len(batch)
    return {
        "model": f"{plan.architecture} on {plan.device}",
        "classification loss": cls_loss_name(model),
        "parameters": f"{_count(model.parameters()):,}",
        "trained parameters": f"{_count(p for p in model.parameters() if p.requires_grad):,}",
        "training images": f"{len(dicts):,} of {', '.join(plan.train_sets)}",
        "boxes": _boxes_per_class(plan.classes, dicts),
        "iterations": f"{plan.schedule.max_iter:,} of {len(batch)} images "
        f"({num_images / len(dicts):.1f} epochs)",
        "learning rate": f"{plan.schedule.base_lr:g}",
        "first training batch": ", ".join(sizes[:4]) + (", ..." if len(sizes) > 4 else ""),
        **_anchor_rows(model, batch),
        **{key: f"{value.item():.4f}" for key, value in losses.items()},
        **{
            f"first image of {test_set.name}": f"{_num_detections(model, test_set)} detections"
            for test_set in evaluated_sets(plan)
        },
        "peak memory": f"{_peak_memory(plan.device) / 2**30:.1f} GiB",
    }


def _train_step(plan: TrainingPlan, model: nn.Module, batch: Sequence) -> dict[str, Tensor]:
    optimizer = plan.build_optimizer(model)
    model.train()
    with EventStorage():  # two-stage detectors need it in training
        losses = model(batch)
    sum(losses.values()).backward()
    optimizer.step()
    return losses


def _anchor_rows(model: nn.Module, batch: Sequence) -> dict[str, str]:
    """Anchors per level and positives per image, if the model has ``match_anchors``."""
    matches, num_classes = match_anchors(model, batch), num_classes_of(model)
    if matches is None or num_classes is None:
        return {}
    positives = ((matches.labels >= 0) & (matches.labels < num_classes)).sum(dim=1).tolist()
    levels = [f"{name} {count:,}" for name, count in matches.num_anchors.items()]
    return {
        "anchors": f"{matches.labels.shape[1]:,} ({', '.join(levels)})",
        "positives an image": f"{sum(positives) / len(positives):.1f} "
        f"({min(positives)} to {max(positives)} in the batch)",
    }


@torch.no_grad()
def _num_detections(model: nn.Module, test_set: TestSet) -> int:
    model.eval()
    batch = next(iter(test_set.build_loader()))
    return len(model(batch)[0]["instances"])


def _boxes_per_class(classes: Sequence[str], dicts: Iterable[dict[str, Any]]) -> str:
    count = Counter(box["category_id"] for image in dicts for box in image["annotations"])
    rows = [f"{name} {count[i]:,}" for i, name in enumerate(classes)]
    return f"{sum(count.values()):,} ({', '.join(rows)})"


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(p.numel() for p in parameters)


def _peak_memory(device: str) -> int:
    """Peak memory in bytes, of the GPU if the device is one, else of this process."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes
