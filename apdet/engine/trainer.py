"""Detectron2's training loop, with what a long training on one's own data asks of it."""

import logging
import weakref

from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import DefaultTrainer, TrainerBase, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.modeling import build_model
from detectron2.utils import comm

import apdet.modeling  # noqa: F401  registers the meta-architectures
from apdet.checkpoint.checkpointer import build_checkpointer
from apdet.config import scale_to_batch_size
from apdet.data.mapper import build_mapper
from apdet.data.training import check_batch_size, resumable_train_loader, training_dicts
from apdet.engine.hooks import BestCheckpointer, RankingPrinter
from apdet.engine.mixed_precision import build_stepper
from apdet.engine.seeding import StepSeeder
from apdet.errors import UserError
from apdet.evaluation import build_evaluator
from apdet.evaluation.build import inference_folder
from apdet.modeling.cls_loss import cls_loss_name
from apdet.modeling.tta import with_test_time_augmentation
from apdet.report import write_report

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Detectron2's default trainer with what a long training asks of it.

    * the same batches and draws after ``resume_or_load`` as without the interruption;
    * mixed precision and several processes on any device;
    * a schedule that follows the batch size (``SOLVER.REFERENCE_BATCH_SIZE``);
    * ``model_best.pth`` by ``TEST.BEST_CHECKPOINT_METRIC``, and a report at the end.
    """

    def __init__(self, cfg):
        # As DefaultTrainer.__init__, which leaves no seam for the parts that differ here.
        TrainerBase.__init__(self)
        self.cfg = cfg = scale_to_batch_size(cfg)
        self.seeder = StepSeeder(cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed())
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg, seed=self.seeder.seed)
        # DistributedDataParallel takes no device_ids for a model on the CPU.
        devices = {"device_ids": None} if cfg.MODEL.DEVICE == "cpu" else {}
        model = create_ddp_model(model, broadcast_buffers=False, **devices)
        self._trainer = build_stepper(cfg, model, data_loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = build_checkpointer(
            cfg, model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

    @classmethod
    def build_model(cls, cfg):
        """The model of the config, on its device; what it is is left to ``--dry-run`` to say."""
        model = build_model(cfg)
        num_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        logger.info(
            "%s with %s, %s trained parameters",
            cfg.MODEL.META_ARCHITECTURE,
            cls_loss_name(model),
            f"{num_trained:,}",
        )
        if cfg.TEST.AUG.ENABLED:
            with_test_time_augmentation(cfg, model)  # says now, not later, what is wrong
        return model

    @classmethod
    def build_train_loader(cls, cfg, *, seed: int = 0, start_iter: int = 0):
        """Training batches; those of an uninterrupted training from iteration ``start_iter`` on.

        With another ``DATALOADER.SAMPLER_TRAIN`` than Detectron2's default they start anew.

        Raises:
            UserError: a batch that the processes cannot share equally.
        """
        dataset, mapper = training_dicts(cfg), build_mapper(cfg, is_train=True)
        if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
            check_batch_size(cfg.SOLVER.IMS_PER_BATCH)
            return build_detection_train_loader(cfg, dataset=dataset, mapper=mapper)
        return resumable_train_loader(
            dataset,
            mapper=mapper,
            total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
            seed=seed,
            start_iter=start_iter,
            aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        mapper = build_mapper(cfg, is_train=False)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name, output_folder=None):
        return build_evaluator(cfg, dataset_name, output_folder)

    @classmethod
    def test_with_tta(cls, cfg, model) -> dict:
        """Evaluate on several copies of each image, by ``TEST.AUG``.

        Returns:
            As `test`, with the suffix "_TTA" to each name, so that both may stand side by side.
        """
        model = with_test_time_augmentation(cfg, model)
        cfg = cfg.clone()
        cfg.defrost()
        # The copies are made of the image as it is, not of one resized already.
        cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.FIXED_SIZE_TEST = 0, []
        evaluators = [
            cls.build_evaluator(cfg, name, inference_folder(cfg, name, tta=True))
            for name in cfg.DATASETS.TEST
        ]
        logger.info("Evaluating with TEST.AUG; names of results end in _TTA")
        results = cls.test(cfg, model, evaluators)
        return {f"{name}_TTA": result for name, result in results.items()}

    def build_hooks(self):
        built = super().build_hooks()
        built.insert(0, self.seeder)
        writer = [built.pop()] if comm.is_main_process() else []
        if self.cfg.TEST.AUG.ENABLED:

            def test_with_tta():
                results = self.test_with_tta(self.cfg, self.model)
                self._last_eval_results.update(results)
                return results

            # After the training alone, whatever TEST.EVAL_PERIOD: it takes many times as long.
            built.append(hooks.EvalHook(0, test_with_tta))
        if writer:
            metric = self.cfg.TEST.BEST_CHECKPOINT_METRIC
            built.append(BestCheckpointer(self.cfg.TEST.EVAL_PERIOD, self.checkpointer, metric))
        return [*built, *writer]

    def build_writers(self):
        return [*super().build_writers(), RankingPrinter()]

    def resume_or_load(self, resume: bool = True) -> None:
        """As in :class:`DefaultTrainer`; a resumed training also resumes its stream of images."""
        super().resume_or_load(resume)
        if self.start_iter > 0:
            self._trainer.reset_data_loader(
                lambda: self.build_train_loader(
                    self.cfg, seed=self.seeder.seed, start_iter=self.start_iter
                )
            )

    def train(self):
        """Train, evaluate, and write the report; returns the results of the last evaluation.

        Raises:
            UserError: the loss or the weights are not finite any more.
        """
        try:
            super().train()
        except FloatingPointError as error:
            last = self.checkpointer.get_checkpoint_file() or "none yet"
            raise UserError(
                f"iteration {self.iter}: {error}. Last good checkpoint: {last}. "
                "Try a lower SOLVER.BASE_LR, or SOLVER.CLIP_GRADIENTS.ENABLED True"
            ) from error
        if comm.is_main_process():
            paths = write_report(self.cfg, self._last_eval_results)
            logger.info("Training is done. See %s", ", ".join(str(path) for path in paths))
        return self._last_eval_results
