"""Fine-tuning on other classes: weights of the classes that two data sets share are taken over."""

import difflib
import logging
import re
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import Tensor, nn

from apdet.errors import UserError

logger = logging.getLogger(__name__)

# What the names of classification layers begin with, in RankingRetinaNet, RankingFCOS and SSD.
LAYER = "head.cls_score."
# Names of PASCAL VOC that are others in COCO, but for case and spaces.
SYNONYMS = {"aeroplane": "airplane", "motorbike": "motorcycle", "sofa": "couch", "tvmonitor": "tv"}


def training_classes(cfg: CfgNode) -> list[str]:
    """The classes of ``DATASETS.TRAIN``, which are those of the model; empty if not known."""
    names = cfg.DATASETS.TRAIN
    return list(MetadataCatalog.get(names[0]).get("thing_classes", [])) if names else []


def weights_classes(cfg: CfgNode) -> list[str]:
    """The classes that ``MODEL.WEIGHTS_CLASSES`` stands for; empty if it is not set.

    Raises:
        UserError: it is neither a data set with classes nor a list of names, or repeats one.
    """
    value = cfg.MODEL.WEIGHTS_CLASSES
    if not value:
        return []
    if isinstance(value, str):
        return _classes_of(value)
    if not isinstance(value, list | tuple):
        raise UserError(
            f"MODEL.WEIGHTS_CLASSES is {value!r}; give the name of a data set, or a list of classes"
        )
    names = [str(name) for name in value]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"MODEL.WEIGHTS_CLASSES repeats {repeated}; name each class once")
    return names


def _classes_of(dataset_name: str) -> list[str]:
    names = None
    if dataset_name in DatasetCatalog:
        names = MetadataCatalog.get(dataset_name).get("thing_classes")
    if not names:
        close = difflib.get_close_matches(dataset_name, DatasetCatalog.keys(), n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        raise UserError(
            f"MODEL.WEIGHTS_CLASSES is {dataset_name!r}, which is no data set with classes{hint} "
            "Or list the classes, in the order of the weights: ['cat', 'dog']"
        )
    return list(names)


def same_classes(theirs: Sequence[str], ours: Sequence[str]) -> dict[int, int]:
    """Find our classes among theirs: by their very name, else whatever its case and spaces.

    Returns:
        The index among theirs of each of ours that is there.

    Raises:
        UserError: one of ours may be any of several of theirs.
    """
    forms = [_form(name) for name in theirs]
    found = {}
    for k, (name, form) in enumerate(zip(ours, map(_form, ours), strict=True)):
        same = [i for i, other in enumerate(theirs) if other == name]
        same = same or [i for i, other in enumerate(forms) if other == form]
        if len(same) > 1:
            raise UserError(
                f"the class {name!r} may be any of {[theirs[i] for i in same]}, which the weights "
                "were trained on; list these under other names, MODEL.WEIGHTS_CLASSES [...]"
            )
        if same:
            found[k] = same[0]
    return found


def _form(name: str) -> str:
    form = re.sub(r"[\s_-]", "", name.casefold())
    return SYNONYMS.get(form, form)


def take_over_classes(
    weights: dict[str, Tensor],
    model: nn.Module,
    theirs: Sequence[str],
    ours: Sequence[str],
    *,
    by_key: bool,
    allow_mismatch: bool,
) -> None:
    """Make the classification layers among ``weights`` those of the model, in place.

    Rows of a class that both have are taken over for every anchor, and so are the background's;
    the other rows are the model's own.

    Args:
        weights: of a checkpoint, by name.
        model: one of those with such layers and a ``cls_loss``; nothing is done for another one.
        theirs: the classes of the weights, in order.
        ours: those of the model.
        by_key: whether theirs are of MODEL.WEIGHTS_CLASSES. Then they must fit the layers; else
            layers of other numbers are left as they are, for their shapes to be complained about.
        allow_mismatch: whether layers that have no class in common, or a background in one of
            them alone, are taken out of ``weights`` with a warning, unless ``by_key``.

    Raises:
        UserError: layers that cannot be taken over; a class that may be any of several.
    """
    if not hasattr(model, "cls_loss") and not by_key:
        if list(theirs) != list(ours):
            logger.warning(
                "The weights were trained on the classes %s, this is to be trained on %s: in a %s "
                "they are told apart by their order, not by their names",
                list(theirs), list(ours), type(model).__name__,
            )  # fmt: skip
        return
    initial = _layers(weights, model)
    softmax = _has_background(weights, initial, model, len(theirs), by_key=by_key)
    if softmax is None:
        return
    same = same_classes(theirs, ours)
    problem = ""
    if not same:
        problem = f"its classes are {list(theirs)}, those of the training set {list(ours)}"
    elif softmax != model.cls_loss.softmax:
        kinds = {True: "with a background (softmax)", False: "without a background (sigmoid)"}
        problem = (
            f"its logits, {len(theirs) + softmax} for {len(theirs)} classes, are {kinds[softmax]}, "
            f"those of the loss {kinds[not softmax]}"
        )
    if problem:
        _check_may_start_anew(problem, allowed=allow_mismatch, by_key=by_key)
        for key in initial:
            del weights[key]
        return
    rows = {**same, len(ours): len(theirs)} if softmax else same
    for key, weight in initial.items():
        weights[key] = _with_rows(weight, weights[key], rows, model.cls_loss.num_logits)
    taken = [name for k, name in enumerate(ours) if k in same]
    new = [name for k, name in enumerate(ours) if k not in same]
    logger.info(
        "The classification layer takes over %d of %d classes: %s%s",
        len(taken),
        len(ours),
        ", ".join(taken),
        f"; it learns anew: {', '.join(new)}" if new else "",
    )


def _layers(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The model's own layers that differ from those of ``weights`` in nothing but their rows."""
    if not hasattr(model, "cls_loss"):
        return {}
    return {
        key: weight
        for key, weight in model.state_dict().items()
        if key.startswith(LAYER) and key in weights and weights[key].shape[1:] == weight.shape[1:]
    }


def _has_background(
    weights: dict[str, Tensor],
    initial: dict[str, Tensor],
    model: nn.Module,
    num_classes: int,
    *,
    by_key: bool,
) -> bool | None:
    """Whether ``weights`` have a background beside so many classes; None if they have neither."""
    anchors = {key: len(weight) // model.cls_loss.num_logits for key, weight in initial.items()}
    num_logits = {len(weights[key]) / anchors[key] for key in initial}  # of an anchor
    if num_logits in ({num_classes}, {num_classes + 1}):
        return num_logits == {num_classes + 1}
    if by_key:
        rows = [f"{key}: {len(weights[key])} for {anchors[key]} anchors" for key in initial]
        raise UserError(
            f"MODEL.WEIGHTS_CLASSES has {num_classes} classes, which do not fit the weights' rows "
            f"({', '.join(rows) or f'no {LAYER}* of this shape'}): correct it, or unset it: "
            "MODEL.WEIGHTS_CLASSES None"
        )
    return None


def _check_may_start_anew(problem: str, *, allowed: bool, by_key: bool) -> None:
    if allowed and not by_key:
        logger.warning("The classification layer starts anew: %s", problem)
        return
    advice = (
        "Correct MODEL.WEIGHTS_CLASSES, or unset it: MODEL.WEIGHTS_CLASSES None"
        if by_key
        else "To start it anew, set MODEL.ALLOW_WEIGHT_MISMATCH True; where only the names of "
        "classes are others, list its classes by the new ones in MODEL.WEIGHTS_CLASSES"
    )
    raise UserError(f"the classification layer cannot be taken over: {problem}. {advice}")


def _with_rows(mine: Tensor, theirs: Tensor, same: dict[int, int], num_logits: int) -> Tensor:
    """``mine``, (A num_logits, ...), with the rows of each anchor that ``same`` maps to theirs."""
    num_anchors = len(mine) // num_logits
    merged = mine.detach().cpu().clone().unflatten(0, (num_anchors, -1))
    theirs = theirs.unflatten(0, (num_anchors, -1)).to(merged)
    merged[:, list(same)] = theirs[:, list(same.values())]
    return merged.flatten(0, 1)
