"""The config keys that apdet adds to those of Detectron2, with their defaults."""

from detectron2.config import CfgNode


def add_apdet_config(cfg: CfgNode) -> None:
    """Add every key that apdet reads, with its default, in place.

    The default loss is the AP-loss. All other defaults are Detectron2's. The settings of the
    AP-loss paper (arXiv:2008.07294) are in ``configs/Base-RetinaNet-AP.yaml``.
    """
    # --- Classification loss ---------------------------------------------------------------
    cfg.MODEL.CLS_LOSS = CfgNode()
    # A function of apdet.losses. With --allow-custom-code also your own: package.module:function.
    cfg.MODEL.CLS_LOSS.NAME = "ap_loss"
    # Keyword arguments of the loss, such as {delta: 1.0}. They are checked when the model is built.
    cfg.MODEL.CLS_LOSS.KWARGS = CfgNode(new_allowed=True)
    # The negatives that the loss sees. "": all of them. "ohem": the hardest of each image.
    # "random": random ones of each image. ohem_loss always selects its own negatives.
    cfg.MODEL.CLS_LOSS.SAMPLER = ""
    # Number of negatives that a sampler keeps for each positive.
    cfg.MODEL.CLS_LOSS.NEG_POS_RATIO = 3.0
    # True: all processes (GPUs) rank their images together, and count their positives together.
    # False: each process ranks only its own images, as the authors do.
    cfg.MODEL.CLS_LOSS.GLOBAL_RANKING = False

    # What happens to weights whose shape differs from the model's. True: they are left out, with a
    # warning. False: an error.
    cfg.MODEL.ALLOW_WEIGHT_MISMATCH = False
    # The classes that MODEL.WEIGHTS was trained on: the name of a data set with these classes, such
    # as coco_2017_train, or a list of names in the order of the weights. A training keeps the
    # weights of each class that it shares with them, matched by name. None: the classes that are
    # saved in the file, which only apdet's checkpoints have.
    cfg.MODEL.WEIGHTS_CLASSES = None

    # --- RankingRetinaNet, SSD and RankingFCOS ---------------------------------------------
    # Factor of the box loss. The authors use 0.25: they divide its gradient by 4 |P|.
    cfg.MODEL.RETINANET.BBOX_REG_LOSS_WEIGHT = 1.0
    # The normaliser of losses that sum over anchors. "batch": the number of positives in the batch.
    # "ema": Detectron2's moving average of that number.
    cfg.MODEL.RETINANET.LOSS_NORMALIZER = "batch"
    # Standard deviation of the box predictor's initial weights. The authors use 0.001. FCOS does
    # not read this key: it always uses 0.01.
    cfg.MODEL.RETINANET.BBOX_PRED_INIT_STD = 0.01
    # One score threshold for each feature level at test. Empty: all levels use SCORE_THRESH_TEST.
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST_PER_LEVEL = []
    # FCOS: a point is positive if it lies in a box, and within this many strides of its centre.
    cfg.MODEL.FCOS = CfgNode()
    cfg.MODEL.FCOS.CENTER_SAMPLING_RADIUS = 1.5

    # --- Two-stage detectors: RankingROIHeads and RankingCascadeROIHeads ----------------------
    # The probability of each class at the start of training, for losses over sigmoids.
    cfg.MODEL.ROI_BOX_HEAD.PRIOR_PROB = 0.01

    # --- SSD's VGG-16 ----------------------------------------------------------------------
    cfg.MODEL.VGG = CfgNode()
    # 300 or 512: the extra layers of SSD300 or of SSD512.
    cfg.MODEL.VGG.INPUT_SIZE = 512
    # Factor of the number of channels of all layers.
    cfg.MODEL.VGG.WIDTH = 1.0
    # Normalisation of all convolutions, such as "BN". ImageNet weights need "".
    cfg.MODEL.VGG.NORM = ""

    # --- Data ------------------------------------------------------------------------------
    # Data sets to register, as a list of mappings of these forms:
    #   {name: cells_train, format: voc, root: path, split: train}
    #   {name: cells_train, format: voc, images: path, annotations: path}
    #   {name: cells_train, format: coco, json: path, images: path}
    # Each may also have `classes: [a, b]`, `annotated: false`, `bits: 12` and
    # `split: {fraction: 0.2, seed: 0}`, which registers cells_train and cells_val; see
    # datasets/README.md. Relative paths start from the folder of the config file.
    cfg.DATASETS.REGISTER = []
    # Validation sets, which choose model_best.pth and score thresholds: periodic evaluations are on
    # them alone, and the evaluation after the training is on them and on DATASETS.TEST. Empty:
    # DATASETS.TEST serves.
    cfg.DATASETS.VAL = []
    # Whether to train on boxes that VOC marks as difficult. Detectron2 does.
    cfg.DATASETS.TRAIN_ON_DIFFICULT = False
    # [height, width] of training images after the resize. Empty: MIN_SIZE_TRAIN applies.
    cfg.INPUT.FIXED_SIZE_TRAIN = []
    # [height, width] of test images after the resize. Empty: MIN_SIZE_TEST applies.
    cfg.INPUT.FIXED_SIZE_TEST = []
    # Photometric distortion, expansion and IoU-constrained crops as in SSD (arXiv:1512.02325).
    cfg.INPUT.SSD_AUGMENTATION = False

    # --- Schedule --------------------------------------------------------------------------
    # The batch size for which BASE_LR, MAX_ITER, STEPS, WARMUP_ITERS and all periods are set. With
    # another IMS_PER_BATCH they are scaled linearly. 0: they are never scaled. (Detectron2's
    # REFERENCE_WORLD_SIZE scales IMS_PER_BATCH, too: to the number of processes.)
    cfg.SOLVER.REFERENCE_BATCH_SIZE = 0
    # Number of periodic checkpoints to keep: the newest ones. model_best.pth and model_final.pth
    # always stay. 0: all checkpoints are kept.
    cfg.SOLVER.CHECKPOINTS_TO_KEEP = 0
    # "float16" or "bfloat16". It is used if SOLVER.AMP.ENABLED is True.
    cfg.SOLVER.AMP.PRECISION = "float16"
    # The metric that chooses model_best.pth. With several data sets it is one of the first
    # validation set, or names its set: "cells_val/bbox/AP".
    cfg.TEST.BEST_CHECKPOINT_METRIC = "bbox/AP"
