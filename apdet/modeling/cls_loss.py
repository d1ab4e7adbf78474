"""The classification loss of a detector, which also sets the number and meaning of its logits."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from detectron2.config import CfgNode, configurable
from detectron2.layers import cat
from detectron2.utils import comm
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from apdet import losses
from apdet.errors import ArgumentError
from apdet.losses.interface import interface_of, unwrap
from apdet.losses.sampling import background_loss, sample_negatives
from apdet.modeling.named_loss import bind_loss, find_loss
from apdet.modeling.ranking import check_classes, log_ranking, logs_now, ranking_targets

SAMPLERS = ("", "ohem", "random")
# These losses refuse targets that are out of range.
OURS = [getattr(losses, name) for name in losses.LOSSES]


class ClsLoss(nn.Module):
    """The bridge between a detector and a loss of :mod:`apdet.losses`.

    A loss knows only logits and targets. This module makes the targets from the labels of the
    anchors, gives the loss the keyword arguments that it needs, and tells the detector how many
    logits to predict. A detector uses it in three places:

        cls_loss = ClsLoss(loss="ap_loss", num_classes=80, kwargs={"delta": 0.5})
        head = Head(num_logits=cls_loss.num_logits)        # when it builds its head
        losses = cls_loss(pred_logits, gt_labels)          # in training: {"loss_cls": ()}
        scores = cls_loss.scores(pred_logits[0])           # at test: (N, R_0, 80) in [0, 1]

    See docs/plug_in.md for a whole detector.

    Attributes:
        num_classes: K.
        num_logits: number of logits of an anchor: K, or K + 1 if ``softmax``.
        softmax: whether the scores of an anchor are a softmax over K classes and the background,
            which comes last. If not, each class has its own sigmoid.
    """

    @configurable
    def __init__(
        self,
        *,
        loss: str | Callable[..., Tensor],
        num_classes: int,
        kwargs: Mapping[str, Any] | None = None,
        sampler: str = "",
        neg_pos_ratio: float = 3.0,
        global_ranking: bool = False,
    ):
        """Build the loss, and call it once on one entry to check its arguments.

        Args:
            loss: a name in ``apdet.losses.LOSSES``, or a function with the interface
                :mod:`apdet.losses.interface`.
            num_classes: K.
            kwargs: hyper-parameters of the loss.
            sampler: the negatives that the loss sees. "": all of them. "ohem": the hardest of each
                image. "random": random ones of each image.
            neg_pos_ratio: number of negatives that a sampler keeps for each positive. Must be > 0.
            global_ranking: whether all processes rank their images together, and divide by the
                number of positives in all of them. If not, each process ranks only its own images.

        Raises:
            ArgumentError: no loss has that name, the loss refuses a keyword or its value, or an
                argument is out of range.
        """
        super().__init__()
        if sampler not in SAMPLERS:
            raise ArgumentError(
                "ClsLoss",
                "{sampler} is {value!r}; choose one of {choices}",
                value=sampler,
                choices=SAMPLERS,
            )
        if not neg_pos_ratio > 0:
            raise ArgumentError(
                "ClsLoss", "{neg_pos_ratio} is {value}; it must be > 0", value=neg_pos_ratio
            )
        function = find_loss(loss)
        interface = interface_of(function)
        self.loss = bind_loss(function, kwargs or {})
        self.num_classes = num_classes
        self.softmax, self._needs = interface.softmax, interface.needs
        self.num_logits = num_classes + 1 if self.softmax else num_classes
        self.sampler, self.neg_pos_ratio = sampler, neg_pos_ratio
        self.global_ranking = global_ranking
        # If the loss checks targets, `forward` checks no labels, so that the host need not wait.
        self._loss_checks_targets = unwrap(function) in OURS
        self._description = _describe(partial(function, **(kwargs or {})))
        self.register_load_state_dict_pre_hook(_rename_state_of_0_1)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the arguments from ``cfg.MODEL.CLS_LOSS``. The caller must give ``num_classes``."""
        node = cfg.MODEL.CLS_LOSS
        return {
            "loss": node.NAME,
            "kwargs": dict(node.KWARGS),
            "sampler": node.SAMPLER,
            "neg_pos_ratio": node.NEG_POS_RATIO,
            "global_ranking": node.GLOBAL_RANKING,
        }

    def forward(
        self,
        pred_logits: Sequence[Tensor],
        gt_labels: Sequence[Tensor] | Tensor,
        *,
        normalizer: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the loss.

        Args:
            pred_logits: (N, R_l, num_logits) float for each level l with R_l anchors in each of N
                images. An anchor can also be a point or a region of interest.
            gt_labels: (R,) int64 for each image, or (N, R), with R the anchors of all levels. -1
                ignored, 0 to K-1 the class of a positive, K background.
            normalizer: () the divisor of a loss that sums over anchors; None: the number of
                positives, see :meth:`num_positives_per_process`.

        Returns:
            {"loss_cls": ()}. With our ranking losses and focal loss, the host waits for the device
            only once.

        Raises:
            ValueError: a label above K.
            FloatingPointError: logits that are NaN or infinite.
        """
        logits = cat(list(pred_logits), dim=1)
        gt_labels = gt_labels if isinstance(gt_labels, Tensor) else torch.stack(list(gt_labels))
        if not self._loss_checks_targets:
            check_classes(gt_labels, self.num_classes)
        try:
            if logs_now():
                ranked = self.scores(logits).logit(eps=1e-7) if self.softmax else logits
                log_ranking(ranked, ranking_targets(gt_labels, self.num_classes))
            labels = self._sample(logits, gt_labels) if self.sampler else gt_labels
            targets = labels if self.softmax else ranking_targets(labels, self.num_classes)
            given = {name: self._give(name, gt_labels, normalizer) for name in self._needs}
            return {"loss_cls": self.loss(logits, targets, **given)}
        except ValueError:
            check_classes(gt_labels, self.num_classes)  # its message is clearer than the loss's
            raise

    def scores(self, logits: Tensor) -> Tensor:
        """Convert ``logits`` (*, num_logits) to scores (*, K) in [0, 1]."""
        return logits.softmax(-1)[..., :-1] if self.softmax else logits.sigmoid()

    @property
    def group(self) -> ProcessGroup | None:
        """The processes that rank together: all of them; None if each ranks on its own."""
        several = self.global_ranking and comm.get_world_size() > 1
        return dist.group.WORLD if several else None

    def num_positives_per_process(self, num_positives: Tensor) -> Tensor:
        """Compute the normaliser of losses that sum over anchors: the number of positives.

        With a global ranking, it is the number of positives in all processes, divided by the number
        of processes. The average of the gradients over processes then equals the gradient of a
        single process with all images.

        Args:
            num_positives: () the number of positives in this process.

        Returns:
            () the number of positives, at least 1 over all processes that rank together.
        """
        group = self.group
        if group is None:
            return num_positives.clamp(min=1)
        total = num_positives.clone()
        dist.all_reduce(total, group=group)
        return total.clamp(min=1) / dist.get_world_size(group)

    def positives_a_process(self, num_positives: Tensor) -> Tensor:
        """Deprecated name of :meth:`num_positives_per_process`."""
        message = "positives_a_process is now called num_positives_per_process"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return self.num_positives_per_process(num_positives)

    def extra_repr(self) -> str:
        """The name of the loss and its hyper-parameters."""
        return self._description

    def _give(self, name: str, gt_labels: Tensor, normalizer: Tensor | None) -> Any:
        """The value of a keyword argument that the loss needs; see `named_loss.GIVEN`."""
        if name == "group":
            return self.group
        if normalizer is not None:
            return normalizer
        is_positive = (gt_labels >= 0) & (gt_labels != self.num_classes)
        return self.num_positives_per_process(is_positive.sum())

    @torch.no_grad()
    def _sample(self, logits: Tensor, gt_labels: Tensor) -> Tensor:
        if self.sampler == "random":
            hardness = torch.rand(gt_labels.shape, device=logits.device)
        elif self.softmax:
            hardness = background_loss(logits)
        else:
            hardness = logits.amax(-1)
        return sample_negatives(
            gt_labels, hardness, background=self.num_classes, neg_pos_ratio=self.neg_pos_ratio
        )


def cls_loss_name(model: nn.Module) -> str:
    """The names and hyper-parameters of all classification losses in ``model``, for people."""
    names = {m.extra_repr(): None for m in model.modules() if isinstance(m, ClsLoss)}
    return " and ".join(names) or "Detectron2's own loss"


def _describe(bound: partial[Tensor]) -> str:
    name = getattr(bound.func, "__name__", repr(bound.func))
    return name + "".join(f", {key}={value}" for key, value in bound.keywords.items())


def _rename_state_of_0_1(
    module: ClsLoss, state_dict: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """Rename GHM's moving average, which was a buffer of ClsLoss itself in apdet 0.1."""
    old, new = f"{prefix}moving_counts", f"{prefix}loss.moving_counts"
    ours = module.state_dict().get("loss.moving_counts")
    if old in state_dict and ours is not None and ours.shape == state_dict[old].shape:
        state_dict[new] = state_dict.pop(old)
