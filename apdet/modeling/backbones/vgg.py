"""The backbone of SSD: a reduced VGG-16 with extra layers (arXiv:1512.02325)."""

from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F  # noqa: N812
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, FrozenBatchNorm2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from apdet.errors import ArgumentError

# For each stage of VGG-16: the channels and the names of its convolutions.
STAGES = tuple(
    (channels, [f"conv{stage}_{i}" for i in range(1, num_convs + 1)])
    for stage, (num_convs, channels) in enumerate(
        [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], 1
    )
)
# Settings of the extra layers: channels of convN_1 (1 x 1), channels of convN_2, and kernel,
# stride and padding of convN_2.
HALVING, VALID = (3, 2, 1), (3, 1, 0)
EXTRA = {
    300: (
        (256, 512, HALVING),
        (128, 256, HALVING),
        (128, 256, VALID),
        (128, 256, VALID),
    ),
    512: (
        (256, 512, HALVING),
        (128, 256, HALVING),
        (128, 256, HALVING),
        (128, 256, HALVING),
        (128, 256, (4, 1, 1)),
    ),
}
# The stride of each feature in pixels. The last two strides of SSD300 divide 300 evenly.
STRIDES = {300: (8, 16, 32, 64, 100, 300), 512: (8, 16, 32, 64, 128, 256, 512)}


class SSDVGG16(Backbone):
    """SSD's variant of VGG-16, with the features conv4_3, conv7, conv8_2, conv9_2 and so on.

    conv6 and conv7 replace VGG's fully connected layers; conv6 is dilated, and pool5 has stride 1.
    conv4_3 is normalised over its channels, and each channel is scaled by a learned factor
    (arXiv:1506.04579), which starts at 20.
    """

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        out_features: list[str],
        input_size: int = 512,
        width: float = 1.0,
        norm: str = "",
        freeze_at: int = 0,
    ):
        """Build the backbone up to the last of ``out_features``.

        Args:
            in_channels: number of channels of the image.
            out_features: names of features, from fine to coarse.
            input_size: 300 or 512, for the extra layers of SSD300 or of SSD512.
            width: factor of the number of channels of all layers.
            norm: normalisation of all convolutions, a name for :func:`get_norm`. Empty: no
                normalisation, and the convolutions have a bias.
            freeze_at: number of stages that are not trained, counted from the image.

        Raises:
            UserError: ``input_size`` or a feature does not exist.
        """
        super().__init__()
        if input_size not in EXTRA:
            raise ArgumentError(
                "SSDVGG16",
                "{input_size} is {value}; choose one of {choices}",
                value=input_size,
                choices=list(EXTRA),
            )
        extra = EXTRA[input_size]
        names = ["conv4_3", "conv7", *(f"conv{8 + i}_2" for i in range(len(extra)))]
        for name in out_features:
            if name not in names:
                raise ArgumentError(
                    "SSDVGG16",
                    "{out_features} has {name!r}; VGG-16 with {input_size} {value} has {names}",
                    name=name,
                    value=input_size,
                    names=names,
                )
        self._out_features = list(out_features)
        self._out_feature_strides = dict(zip(names, STRIDES[input_size], strict=True))
        self._out_feature_channels: dict[str, int] = {}
        self._norm, self._width, self._channels = norm, width, in_channels

        for channels, convs in STAGES:
            for conv in convs:
                self._add(conv, channels, kernel_size=3, padding=1)
        num_scales = self._out_feature_channels["conv4_3"]
        self.conv4_3_scale = nn.Parameter(torch.full((num_scales,), 20.0))
        self._add("conv6", 1024, kernel_size=3, padding=6, dilation=6)
        self._add("conv7", 1024, kernel_size=1)
        last = max((names.index(name) for name in out_features), default=0)
        self._extra = [f"conv{8 + i}" for i in range(last - 1)]
        for name, (reduced, channels, (kernel, stride, padding)) in zip(
            self._extra, extra, strict=False
        ):
            self._add(f"{name}_1", reduced, kernel_size=1)
            self._add(f"{name}_2", channels, kernel_size=kernel, stride=stride, padding=padding)
        self._freeze(freeze_at)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict:
        """Read the arguments from ``cfg.MODEL``."""
        return {
            "in_channels": input_shape.channels,
            "out_features": cfg.MODEL.RETINANET.IN_FEATURES,
            "input_size": cfg.MODEL.VGG.INPUT_SIZE,
            "width": cfg.MODEL.VGG.WIDTH,
            "norm": cfg.MODEL.VGG.NORM,
            "freeze_at": cfg.MODEL.BACKBONE.FREEZE_AT,
        }

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the features.

        Args:
            x: (N, C, H, W) float.

        Returns:
            (N, C', H', W') for each name of ``out_features``.

        Raises:
            UserError: an image is too small for the coarsest feature.
        """
        size, features = tuple(x.shape[-2:]), {}
        for stage, (_, convs) in enumerate(STAGES, 1):
            for conv in convs:
                x = getattr(self, conv)(x)
            if stage == 4:
                features["conv4_3"] = self.conv4_3_scale.view(-1, 1, 1) * F.normalize(x)
            if stage < 5:
                # Caffe rounds the size up, which matters only here, in SSD300: 75 / 2 is 38.
                x = F.max_pool2d(x, kernel_size=2, stride=2, ceil_mode=stage == 3)
        x = F.max_pool2d(x, kernel_size=3, stride=1, padding=1)
        x = features["conv7"] = self.conv7(self.conv6(x))
        for name in self._extra:
            conv = getattr(self, f"{name}_2")
            if min(x.shape[-2:]) + 2 * conv.padding[0] < conv.kernel_size[0]:
                raise ArgumentError(
                    "SSDVGG16",
                    "an image of {size} is too small for {name}; resize images to more pixels, or "
                    "take {name} out of {out_features}",
                    size=f"{size[0]} x {size[1]}",
                    name=f"{name}_2",
                )
            x = features[f"{name}_2"] = conv(getattr(self, f"{name}_1")(x))
        return {name: features[name] for name in self._out_features}

    def _add(self, name: str, channels: int, **kwargs: Any) -> None:
        channels = max(round(self._width * channels), 1)
        conv = Conv2d(
            self._channels,
            channels,
            bias=not self._norm,
            norm=get_norm(self._norm, channels),
            activation=F.relu_,
            **kwargs,
        )
        weight_init.c2_msra_fill(conv)
        self.add_module(name, conv)
        if name in self._out_feature_strides:
            self._out_feature_channels[name] = channels
        self._channels = channels

    def _freeze(self, num_stages: int) -> None:
        for _, convs in STAGES[:num_stages]:
            for conv in convs:
                getattr(self, conv).requires_grad_(False)
                FrozenBatchNorm2d.convert_frozen_batchnorm(getattr(self, conv))


@BACKBONE_REGISTRY.register()
def build_ssd_vgg16_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SSDVGG16:
    """Build an :class:`SSDVGG16` from a config."""
    return SSDVGG16(cfg, input_shape)
