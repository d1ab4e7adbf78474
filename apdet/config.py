"""Every config key that apdet adds to Detectron2's, and how a config file is read."""

import difflib
import os
from pathlib import Path

import yaml
from detectron2.config import CfgNode, get_cfg

from apdet.errors import UserError


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


class _ConfigFile(CfgNode):
    """Reads a YAML file and its ``_BASE_`` files, safely; errors name the file."""

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict:
        if not os.path.isfile(filename):
            raise UserError(f"{filename}: no such config file")
        try:
            # A file that asks for `!!python/...` is refused, whatever the caller allows.
            loaded = super().load_yaml_with_base(filename, allow_unsafe=False)
        except yaml.YAMLError as error:
            raise UserError(f"{filename}: not a safe YAML file: {error}") from error
        except TypeError:  # an empty file
            loaded = None
        if not isinstance(loaded, dict):
            raise UserError(f"{filename}: a config file must hold a mapping of keys")
        datasets = loaded.get("DATASETS")
        entries = datasets.get("REGISTER") if isinstance(datasets, dict) else None
        folder = Path(filename).resolve().parent
        for entry in entries if isinstance(entries, list) else []:
            # What is no mapping of strings is left to register_datasets to complain about.
            for key in {"root", "images", "annotations", "json"}:
                if isinstance(entry, dict) and isinstance(entry.get(key), str):
                    entry[key] = str(folder / entry[key])
        return loaded


def load_config(config_file: str | os.PathLike, overrides: list[str] | None = None) -> CfgNode:
    """Read a config file, its bases, and ``KEY VALUE`` pairs that override them.

    Args:
        config_file: YAML. Relative paths under ``DATASETS.REGISTER`` start from its folder.
        overrides: keys and values in turn, as on the command line.

    Raises:
        UserError: a missing, unsafe or malformed file; a key that does not exist; a value of the
            wrong type.
    """
    cfg = get_cfg()
    add_apdet_config(cfg)
    loaded = CfgNode(_ConfigFile.load_yaml_with_base(str(config_file)))
    _merge(cfg, cfg.merge_from_other_cfg, loaded, str(config_file))
    overrides = overrides or []
    if len(overrides) % 2:
        raise UserError(f"overrides come in pairs of KEY VALUE, got {' '.join(overrides)!r}")
    for key in overrides[0::2]:
        # The keywords of a loss are not known here, so yacs would not let them be set.
        if key.startswith("MODEL.CLS_LOSS.KWARGS."):
            cfg.MODEL.CLS_LOSS.KWARGS.setdefault(key.split(".", 3)[3], None)
    _merge(cfg, cfg.merge_from_list, overrides, "command line")
    return cfg


def _merge(cfg: CfgNode, merge, what, where: str) -> None:
    known = _keys(cfg)
    try:
        merge(what)
    except (KeyError, AssertionError) as error:
        key = (
            str(error.args[0])
            .removeprefix("Non-existent config key: ")
            .removeprefix("Non-existent key: ")
        )
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"{where}: unknown config key {key}{hint}") from error
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _keys(node: CfgNode, prefix: str = "") -> list[str]:
    keys = []
    for key, value in node.items():
        keys.append(prefix + key)
        if isinstance(value, CfgNode):
            keys += _keys(value, f"{prefix}{key}.")
    return keys


def scale_to_batch_size(cfg: CfgNode) -> CfgNode:
    """A copy of ``cfg`` with the schedule scaled from its reference batch size to its batch size.

    The linear rule of arXiv:1706.02677: k times the images, k times the learning rate, and the
    same number of epochs. Nothing changes when ``SOLVER.REFERENCE_BATCH_SIZE`` is 0.
    """
    cfg = cfg.clone()
    reference = cfg.SOLVER.REFERENCE_BATCH_SIZE
    if reference in (0, cfg.SOLVER.IMS_PER_BATCH):
        return cfg
    frozen = cfg.is_frozen()
    cfg.defrost()
    scale = cfg.SOLVER.IMS_PER_BATCH / reference
    cfg.SOLVER.BASE_LR *= scale
    cfg.SOLVER.STEPS = tuple(round(step / scale) for step in cfg.SOLVER.STEPS)
    for node, key in [
        (cfg.SOLVER, "MAX_ITER"),
        (cfg.SOLVER, "WARMUP_ITERS"),
        (cfg.SOLVER, "CHECKPOINT_PERIOD"),
        (cfg.TEST, "EVAL_PERIOD"),
    ]:
        node[key] = round(node[key] / scale)
    cfg.SOLVER.REFERENCE_BATCH_SIZE = cfg.SOLVER.IMS_PER_BATCH
    if frozen:
        cfg.freeze()
    return cfg
