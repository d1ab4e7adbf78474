"""Finds the layers of a detector whose weights have rows for each class."""

from typing import cast

from detectron2.modeling import StandardROIHeads
from detectron2.modeling.meta_arch import FCOS, RetinaNet
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNOutputLayers
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from torch import nn

from apdet.modeling.cls_loss import ClsLoss
from apdet.modeling.contract import ClassLayer, class_layer_of


def class_layers_of(model: nn.Module) -> list[ClassLayer] | None:
    """List the layers of a detector with rows for each class.

    A detector or its RoI heads list the layers themselves, see :mod:`apdet.modeling.contract`. The
    layers of Detectron2's RetinaNet, FCOS, Faster, Mask, Keypoint and Cascade R-CNN are known.

    Returns:
        The layers, by their names in ``model``; None if they are not known.
    """
    if layer := class_layer_of(model):
        return [ClassLayer(layer, has_background=cast(ClsLoss, model.cls_loss).softmax)]
    if hasattr(model, "class_layers"):
        return cast(list[ClassLayer] | None, model.class_layers)
    # A subclass may have more layers than its base class.
    if type(model) in (RetinaNet, FCOS) and isinstance(model.head, RetinaNetHead):
        return [ClassLayer("head.cls_score")]
    heads = getattr(model, "roi_heads", None)
    layers = getattr(heads, "class_layers", None)
    if type(heads) in (StandardROIHeads, CascadeROIHeads):
        layers = roi_class_layers(cast(StandardROIHeads, heads))
    if layers is None:
        return None
    return [layer._replace(name=f"roi_heads.{layer.name}") for layer in layers]


def roi_class_layers(heads: StandardROIHeads) -> list[ClassLayer] | None:
    """List the layers of Faster, Mask, Keypoint or Cascade R-CNN's heads with rows for each class.

    Returns:
        The layers of all stages, by their names in ``heads``; None if a predictor or the mask head
        is not one whose layers are known.
    """
    predictors = {"box_predictor": heads.box_predictor}
    if isinstance(heads.box_predictor, nn.ModuleList):
        predictors = {f"box_predictor.{i}": stage for i, stage in enumerate(heads.box_predictor)}
    layers: list[ClassLayer] = []
    for name, predictor in predictors.items():
        # Federated loss keeps a number for each class.
        if not isinstance(predictor, FastRCNNOutputLayers) or predictor.use_fed_loss:
            return None
        layers += [layer._replace(name=f"{name}.{layer.name}") for layer in _box_layers(predictor)]
    if not heads.mask_on:
        return layers
    if not isinstance(heads.mask_head, MaskRCNNConvUpsampleHead):
        return None
    if heads.mask_head.predictor.out_channels == heads.num_classes:
        layers.append(ClassLayer("mask_head.predictor"))
    return layers


def _box_layers(predictor: FastRCNNOutputLayers) -> list[ClassLayer]:
    num_classes, box_size = predictor.num_classes, len(predictor.box2box_transform.weights)
    has_background = predictor.cls_score.out_features > num_classes
    layers = [ClassLayer("cls_score", has_background=has_background)]
    if predictor.bbox_pred.out_features == num_classes * box_size:  # else boxes have no class
        layers.append(ClassLayer("bbox_pred", rows_per_class=box_size))
    return layers
