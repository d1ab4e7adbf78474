"""The training plan: the values and builders that the engine takes, whatever the kind of config.

`apdet.config.yaml_plan` makes the plan of a YAML config, and `apdet.config.lazy_plan` makes the
plan of a Python config.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator
from fvcore.common.param_scheduler import ParamScheduler
from omegaconf import DictConfig
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from apdet.config.names import naming
from apdet.config.schedule import Schedule

Loader = Iterable[list[dict[str, Any]]]  # batches, in the form that a detector takes


class TestLoaderBuilder(Protocol):
    """Builds the loader of a test set."""

    def __call__(self, *, resize: bool = True) -> Loader:
        """Without ``resize``, images keep their original size. Multi-scale testing needs that."""


class TrainLoaderBuilder(Protocol):
    """Builds the loader of training batches."""

    def __call__(self, *, seed: int, start_iter: int = 0) -> Loader:
        """Build the batches of the training with this seed, from iteration ``start_iter`` on."""


@dataclass(frozen=True)
class TestSet:
    """A data set to evaluate on.

    Attributes:
        name: the name of a registered data set.
        build_loader: builds its loader.
        build_evaluator: (folder of the predictions) -> evaluator. None: the engine calls
            `apdet.evaluation.build_evaluator`.
    """

    name: str
    build_loader: TestLoaderBuilder
    build_evaluator: Callable[[str], DatasetEvaluator] | None = None


@dataclass(frozen=True)
class Weights:
    """The weights from which a training starts, or which are evaluated.

    Attributes:
        path: a checkpoint; empty: the model's initial weights.
        classes: the classes that the weights were trained on: the name of a data set, or class
            names. None: the classes that are saved in the checkpoint, if any.
        allow_mismatch: whether weights whose shape differs from the model's are left out.
    """

    path: str = ""
    classes: str | Sequence[str] | None = None
    allow_mismatch: bool = False


@dataclass(frozen=True)
class MultiScaleTesting:
    """Testing on several scales and on mirror images, merged by NMS.

    Attributes:
        sizes: the short sides of the copies, in pixels.
        max_size: limit of the long sides, in pixels.
        flip: whether to add the mirror image of each copy.
        square: whether the copies are squares with sides ``sizes``, for a detector such as SSD.
    """

    sizes: Sequence[int]
    max_size: int
    flip: bool = True
    square: bool = False


@dataclass(frozen=True)
class EvaluationTasks:
    """What is measured, and on how many detections; see `apdet.evaluation.build_evaluator`."""

    masks: bool = False
    keypoints: bool = False
    keypoint_oks_sigmas: Sequence[float] = ()
    detections_per_image: int = 100


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A training and its evaluation.

    Attributes:
        config: the config of this plan, with the scaled schedule. It is written to
            ``config.yaml``.
        key_of: (owner, argument) -> the config key that an argument was read from, or None.
        output_dir: the folder for all output files.
        device: the device of the model, such as "cuda".
        seed: the seed of all random numbers; below 0: a random seed.
        architecture: the name of the meta-architecture.
        classes: the classes of the data sets, in order; empty if they are not known.
        train_sets: names of the data sets to train on.
        test_sets: the data sets to evaluate on.
        val_sets: the data sets that choose the best checkpoint and score thresholds; empty:
            ``test_sets`` serve.
        load_train_dicts: loads the dataset dicts of the training sets.
        build_model: builds the model, on its device.
        build_optimizer: (model) -> optimizer, gradient clipping included.
        build_lr_scheduler: (optimizer) -> the schedule of the learning rate.
        build_train_loader: builds the training batches.
        schedule: iterations, periods and the base learning rate.
        log_period: iterations between two lines of the log.
        checkpoints_to_keep: number of periodic checkpoints to keep; 0 or None: all.
        best_metric: the metric that chooses ``model_best.pth``.
        precision: "float16" or "bfloat16" for mixed precision; empty: float32.
        ddp: keyword arguments of DistributedDataParallel.
        cudnn_benchmark: whether cuDNN times its algorithms, for a training on CUDA.
        weights: the weights that the training starts from.
        tasks: what an evaluation measures.
        multi_scale: settings for testing on several scales after the training; None: it is off.
        precise_bn_iters: number of batches that recompute the statistics of batch normalisation
            before an evaluation; 0: they are not recomputed.
        model_text: writes the config of the model for the model file; empty: there is none.
        expected_results: Detectron2's ``TEST.EXPECTED_RESULTS``, which are verified after a
            training and after ``--eval-only``.
    """

    config: CfgNode | DictConfig
    key_of: Callable[[str, str], str | None]
    output_dir: str
    device: str
    seed: int
    architecture: str
    classes: Sequence[str]
    train_sets: Sequence[str]
    test_sets: Sequence[TestSet]
    load_train_dicts: Callable[[], list[dict[str, Any]]]
    build_model: Callable[[], nn.Module]
    build_optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    build_lr_scheduler: Callable[[torch.optim.Optimizer], LRScheduler | ParamScheduler]
    build_train_loader: TrainLoaderBuilder
    schedule: Schedule
    log_period: int = 20
    checkpoints_to_keep: int | None = None
    best_metric: str = "bbox/AP"
    precision: str = ""
    ddp: Mapping[str, Any] = field(default_factory=lambda: {"broadcast_buffers": False})
    cudnn_benchmark: bool = False
    weights: Weights = Weights()
    tasks: EvaluationTasks = EvaluationTasks()
    val_sets: Sequence[TestSet] = ()
    multi_scale: MultiScaleTesting | None = None
    precise_bn_iters: int = 0
    expected_results: Sequence[Any] = ()
    model_text: Callable[[], str] = str

    def naming_keys(self) -> AbstractContextManager[None]:
        """In this context, errors name config keys in place of arguments."""
        return naming(self.key_of)
