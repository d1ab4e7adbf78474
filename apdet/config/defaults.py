"""Every config key that apdet adds to Detectron2's."""

from detectron2.config import CfgNode


def add_apdet_config(cfg: CfgNode) -> None:
    """Add every key apdet reads to Detectron2's defaults; the loss is the AP-loss.

    The other defaults leave a detector as Detectron2 builds it; ``configs/Base-RetinaNet-AP.yaml``
    holds the settings of the AP-loss paper (arXiv:2008.07294).
    """
    # --- Classification loss ---------------------------------------------------------------
    cfg.MODEL.CLS_LOSS = CfgNode()
    # A function of apdet.losses; or, with --allow-custom-code, one's own: package.module:function.
    cfg.MODEL.CLS_LOSS.NAME = "ap_loss"
    # Its keyword arguments, e.g. {delta: 1.0}; checked against its signature at model building.
    cfg.MODEL.CLS_LOSS.KWARGS = CfgNode(new_allowed=True)
    # Which negatives the loss sees: "", all; "ohem", the hardest of each image; "random", any of
    # each image; and how many of them for each positive. ohem_loss mines its own in any case.
    cfg.MODEL.CLS_LOSS.SAMPLER = ""
    cfg.MODEL.CLS_LOSS.NEG_POS_RATIO = 3.0
    # Whether several processes (GPUs) rank the images of all of them as one, exactly, and count
    # their positives together to normalise. Off, each ranks its own images, as the authors do.
    cfg.MODEL.CLS_LOSS.GLOBAL_RANKING = False

    # Whether weights of another shape than the model's are left out with a warning; else they are
    # an error.
    cfg.MODEL.ALLOW_WEIGHT_MISMATCH = False
    # The classes that MODEL.WEIGHTS was trained on: a data set whose classes they are, such as
    # coco_2017_train, or a list of names in the order of the weights. A training that starts from
    # the weights takes over what the classification layer has learned of the classes that it has
    # too, by name. None: those that our checkpoints name themselves; of others nothing is known.
    cfg.MODEL.WEIGHTS_CLASSES = None

    # --- RankingRetinaNet, SSD and RankingFCOS ---------------------------------------------
    # Factor of the box loss. The authors divide its gradient by 4 |P|, so theirs is 0.25.
    cfg.MODEL.RETINANET.BBOX_REG_LOSS_WEIGHT = 1.0
    # What losses that are sums over anchors are divided by: "batch", the positives of this batch,
    # or "ema", Detectron2's moving average of them.
    cfg.MODEL.RETINANET.LOSS_NORMALIZER = "batch"
    # Standard deviation of the box predictor's initial weights (authors: 0.001; FCOS: always 0.01).
    cfg.MODEL.RETINANET.BBOX_PRED_INIT_STD = 0.01
    # Score thresholds at test, one a feature level; empty: SCORE_THRESH_TEST at all levels.
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST_PER_LEVEL = []
    # FCOS: a point is positive if it is inside of a box and within so many strides of its centre.
    cfg.MODEL.FCOS = CfgNode()
    cfg.MODEL.FCOS.CENTER_SAMPLING_RADIUS = 1.5

    # --- Two-stage detectors: RankingROIHeads and RankingCascadeROIHeads ----------------------
    # The probability that each sigmoid of a class starts from.
    cfg.MODEL.ROI_BOX_HEAD.PRIOR_PROB = 0.01

    # --- SSD's VGG-16 ----------------------------------------------------------------------
    cfg.MODEL.VGG = CfgNode()
    # Whose extra layers it has: those of SSD300 or of SSD512.
    cfg.MODEL.VGG.INPUT_SIZE = 512
    # Factor of all channels.
    cfg.MODEL.VGG.WIDTH = 1.0
    # Normalisation of all convolutions, "BN" for one; ImageNet weights are without it.
    cfg.MODEL.VGG.NORM = ""

    # --- Data ------------------------------------------------------------------------------
    # Data sets to register, a list of mappings; the keys are those of apdet.data.register:
    #   {name: cells_train, format: voc, root: path, split: train}
    #   {name: cells_train, format: voc, images: path, annotations: path}
    #   {name: cells_train, format: coco, json: path, images: path}
    # Each may also have `classes: [a, b]`. Relative paths start from the config file's folder.
    cfg.DATASETS.REGISTER = []
    # Whether boxes that VOC marks as difficult are positives in training (Detectron2: yes).
    cfg.DATASETS.TRAIN_ON_DIFFICULT = False
    # (height, width) that training images are resized to; empty: MIN_SIZE_TRAIN.
    cfg.INPUT.FIXED_SIZE_TRAIN = []
    # (height, width) that images are resized to at test, as for SSD; empty: MIN_SIZE_TEST.
    cfg.INPUT.FIXED_SIZE_TEST = []
    # Photometric distortion, expansion and IoU-constrained crops as in SSD (arXiv:1512.02325).
    cfg.INPUT.SSD_AUGMENTATION = False

    # --- Schedule --------------------------------------------------------------------------
    # The batch size that BASE_LR, MAX_ITER, STEPS, WARMUP_ITERS and all periods are meant for;
    # with another IMS_PER_BATCH they are scaled linearly. 0: they are taken as they are.
    cfg.SOLVER.REFERENCE_BATCH_SIZE = 0
    # "float16" or "bfloat16", when SOLVER.AMP.ENABLED.
    cfg.SOLVER.AMP.PRECISION = "float16"
    # The metric by which model_best.pth is chosen.
    cfg.TEST.BEST_CHECKPOINT_METRIC = "bbox/AP"
