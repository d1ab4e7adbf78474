"""The dry run: one training step, a sample of the images, and a summary of the training."""

import logging
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

from apdet.config.plan import TrainingPlan
from apdet.data.worker_errors import errors_of_workers
from apdet.engine.evaluation import load_to_evaluate
from apdet.engine.result_keys import evaluated_sets
from apdet.engine.sample import evaluate_first_images, read_test_images, read_training_images
from apdet.engine.trainer import Trainer
from apdet.modeling.cls_loss import cls_loss_name
from apdet.modeling.contract import match_anchors, num_classes_of

logger = logging.getLogger(__name__)


def dry_run(plan: TrainingPlan, *, resume: bool = False, eval_only: bool = False) -> dict[str, str]:
    """Check config, data, model and weights, and print a summary. Nothing is written.

    Args:
        plan: the training or evaluation.
        resume: whether to load the last checkpoint in the output folder, if there is one.
        eval_only: whether it is an evaluation, which needs no training set.

    Returns:
        {title: text} of each row of the summary.

    Raises:
        UserError: an error that would also stop the training or evaluation.
    """
    with plan.naming_keys(), errors_of_workers():
        summary = _evaluation(plan, resume=resume) if eval_only else _training(plan, resume=resume)
    print(tabulate(summary.items(), tablefmt="plain"))
    print("dry run: all is well, nothing was written")
    return summary


def _evaluation(plan: TrainingPlan, *, resume: bool) -> dict[str, str]:
    model = load_to_evaluate(plan, resume=resume)
    return {**_model_rows(plan, model), **_detection_rows(plan, model)}


def _training(plan: TrainingPlan, *, resume: bool) -> dict[str, str]:
    dicts = plan.load_train_dicts()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(replace(plan, output_dir=scratch))
        trainer.checkpointer.save_dir = plan.output_dir
        if trainer.checkpointer.has_checkpoint() and not resume:
            logger.warning(f"{plan.output_dir} holds a training already, which is not resumed here")
        trainer.resume_or_load(resume=resume)
        batches = iter(trainer.data_loader)
        batch = next(batches)
        losses = trainer.try_step(batch)
        num_read = len(batch) + read_training_images(batches)
    model = trainer.model
    sizes = ["x".join(map(str, image["image"].shape)) for image in batch]
    num_images = plan.schedule.max_iter * len(batch)
    return {
        **_model_rows(plan, model),
        "trained parameters": f"{_count(p for p in model.parameters() if p.requires_grad):,}",
        "training images": f"{len(dicts):,} of {', '.join(plan.train_sets)}",
        "boxes": _boxes_per_class(plan.classes, dicts),
        "iterations": f"{plan.schedule.max_iter:,} of {len(batch)} images "
        f"({num_images / len(dicts):.1f} epochs)",
        **({"finished iterations": f"{trainer.start_iter:,}"} if trainer.start_iter else {}),
        "learning rate": f"{plan.schedule.base_lr:g}",
        "training images read": f"{num_read:,}",
        "first training batch": ", ".join(sizes[:4]) + (", ..." if len(sizes) > 4 else ""),
        **_anchor_rows(model, batch),
        **{key: f"{value:.4f}" for key, value in losses.items()},
        **_detection_rows(plan, model),
        "peak memory": f"{_peak_memory(plan.device) / 2**30:.1f} GiB",
    }


def _model_rows(plan: TrainingPlan, model: nn.Module) -> dict[str, str]:
    return {
        "model": f"{plan.architecture} on {plan.device}",
        "classification loss": cls_loss_name(model),
        "parameters": f"{_count(model.parameters()):,}",
    }


def _detection_rows(plan: TrainingPlan, model: nn.Module) -> dict[str, str]:
    rows = {}
    for test_set in evaluated_sets(plan):
        loader = test_set.build_loader()
        num_detections = evaluate_first_images(plan, model, test_set, loader)
        rows[f"images of {test_set.name} read"] = f"{read_test_images(loader):,}"
        rows[f"first images of {test_set.name}"] = (
            f"{', '.join(map(str, num_detections))} detections"
        )
    return rows


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
