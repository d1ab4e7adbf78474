"""The classification loss of a detector: the logits it wants, and what they mean."""

import inspect
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.distributed as dist
from detectron2.config import CfgNode, configurable
from detectron2.layers import cat
from detectron2.utils import comm
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from apdet.errors import UserError
from apdet.losses.sampling import background_loss, sample_negatives
from apdet.modeling.named_loss import GIVEN, bind_loss, is_softmax
from apdet.modeling.ranking import check_classes, log_ranking, logs_now, ranking_targets

SAMPLERS = ("", "ohem", "random")


class ClsLoss(nn.Module):
    """Calls a loss of :mod:`apdet.losses` on the anchors of a batch.

    This is all that a detector needs of the loss: ``num_logits`` to build its head, a call in
    training, and ``scores`` at test; see docs/plug_in.md.

    Attributes:
        num_classes: K.
        num_logits: of an anchor: K, or K + 1 where the loss is over classes and background.
        softmax: whether the logits are those of K classes and, last, the background, and exclude
            each other; else each of K classes has a sigmoid of its own.
    """

    @configurable
    def __init__(
        self,
        *,
        loss: str | Callable[..., Tensor],
        num_classes: int,
        kwargs: Mapping | None = None,
        sampler: str = "",
        neg_pos_ratio: float = 3.0,
        global_ranking: bool = False,
    ):
        """Set it up.

        Args:
            loss: a function as in :mod:`apdet.losses`, or its name.
            num_classes: K.
            kwargs: hyper-parameters of the loss.
            sampler: which negatives the loss sees: "", all; "ohem", the hardest of each image;
                "random", any of each image.
            neg_pos_ratio: how many of them for each positive.
            global_ranking: whether several processes rank the images of all of them as one, and
                count their positives together to normalise; else each is on its own.

        Raises:
            UserError: a name that is no loss, or a keyword or value that the loss does not take.
        """
        super().__init__()
        if sampler not in SAMPLERS:
            raise UserError(f"MODEL.CLS_LOSS.SAMPLER is {sampler!r}; choose one of {SAMPLERS}")
        if not neg_pos_ratio > 0:
            raise UserError(f"MODEL.CLS_LOSS.NEG_POS_RATIO is {neg_pos_ratio}; it must be > 0")
        self.loss = bind_loss(loss, kwargs or {})
        self.num_classes = num_classes
        self.softmax = is_softmax(self.loss)
        self.num_logits = num_classes + 1 if self.softmax else num_classes
        self.sampler, self.neg_pos_ratio = sampler, neg_pos_ratio
        self.global_ranking = global_ranking
        taken = inspect.signature(self.loss).parameters
        self._given = [key for key in GIVEN if key in taken]
        # A buffer, so that a resumed training goes on with it.
        bins = taken["bins"].default if "moving_counts" in taken else None
        self.register_buffer("moving_counts", None if bins is None else torch.zeros(bins))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """What ``cfg.MODEL.CLS_LOSS`` says; ``num_classes`` is the caller's to give."""
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
            pred_logits: (N, R_l, num_logits) float, of R_l anchors of each level l, in each of N
                images. Anchors may be whatever is classified: points, regions of interest.
            gt_labels: (R,) int64 of each image, or (N, R), R the anchors of all levels. -1
                ignored, 0 to K-1 the class of a positive, K background.
            normalizer: (), what losses that are sums over anchors are divided by; None: the
                positives, as :meth:`positives_a_process` counts them.

        Returns:
            {"loss_cls": ()}.

        Raises:
            ValueError: a label above K.
            FloatingPointError: logits that are NaN or infinite.
        """
        logits = cat(list(pred_logits), dim=1)
        gt_labels = gt_labels if isinstance(gt_labels, Tensor) else torch.stack(list(gt_labels))
        if self.softmax:  # else ranking_targets looks
            check_classes(gt_labels, self.num_classes)
        if logs_now():
            ranked = self.scores(logits).logit(eps=1e-7) if self.softmax else logits
            log_ranking(ranked, ranking_targets(gt_labels, self.num_classes))
        if normalizer is None:
            positives = (gt_labels >= 0) & (gt_labels != self.num_classes)
            normalizer = self.positives_a_process(positives.sum())
        labels = self._sample(logits, gt_labels) if self.sampler else gt_labels
        targets = labels if self.softmax else ranking_targets(labels, self.num_classes)
        given = {
            "normalizer": normalizer,
            "group": self.group,
            "moving_counts": self.moving_counts,
        }
        loss = self.loss(logits, targets, **{key: given[key] for key in self._given})
        return {"loss_cls": loss}

    def scores(self, logits: Tensor) -> Tensor:
        """The scores, (*, K) in [0, 1], that (*, num_logits) stand for."""
        return logits.softmax(-1)[..., :-1] if self.softmax else logits.sigmoid()

    @property
    def group(self) -> ProcessGroup | None:
        """All processes, if there are several and they are to rank as one."""
        several = self.global_ranking and comm.get_world_size() > 1
        return dist.group.WORLD if several else None

    def positives_a_process(self, num_positives: Tensor) -> Tensor:
        """What a sum over anchors is divided by, (): the positives, at least one.

        With a global ranking, those of all processes over their number, so that the average of
        gradients over processes is that of one process with all images.
        """
        group = self.group
        if group is None:
            return num_positives.clamp(min=1)
        total = num_positives.clone()
        dist.all_reduce(total, group=group)
        return total.clamp(min=1) / dist.get_world_size(group)

    def extra_repr(self) -> str:
        """The name of the loss and its hyper-parameters."""
        function, keywords = self.loss.func, self.loss.keywords
        name = getattr(function, "__name__", repr(function))
        return name + "".join(f", {key}={value}" for key, value in keywords.items())

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
    """What the classification of ``model`` is trained with, as :meth:`ClsLoss.extra_repr` says."""
    names = {m.extra_repr(): None for m in model.modules() if isinstance(m, ClsLoss)}
    return " and ".join(names) or "Detectron2's own loss"
