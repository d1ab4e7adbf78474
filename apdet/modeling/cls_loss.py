"""The classification loss of a dense detector: the logits it wants, and what they mean."""

import inspect
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from detectron2.config import CfgNode, configurable
from detectron2.utils import comm
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from apdet import losses
from apdet.errors import UserError
from apdet.losses.sampling import background_loss, sample_negatives
from apdet.modeling.ranking import check_classes, log_ranking, logs_now, ranking_targets

# Keyword arguments of a loss that are the detector's to give, not the config's.
GIVEN = ("normalizer", "group", "moving_counts")
SAMPLERS = ("", "ohem", "random")


class ClsLoss(nn.Module):
    """Calls a loss of :mod:`apdet.losses` on the anchors of a batch.

    Attributes:
        num_classes: K.
        num_logits: of an anchor: K, or K + 1 where the loss is over classes and background.
    """

    @configurable
    def __init__(
        self,
        *,
        loss: Callable[..., Tensor],
        num_classes: int,
        softmax: bool = False,
        sampler: str = "",
        neg_pos_ratio: float = 3.0,
        global_ranking: bool = False,
    ):
        """Set it up.

        Args:
            loss: a loss of :mod:`apdet.losses`, its hyper-parameters bound.
            num_classes: K.
            softmax: whether the logits are those of K classes and, last, the background, and
                exclude each other; else each of K classes has a sigmoid of its own.
            sampler: which negatives the loss sees: "", all; "ohem", the hardest of each image;
                "random", any of each image.
            neg_pos_ratio: how many of them for each positive.
            global_ranking: whether several processes rank the images of all of them as one, and
                count their positives together to normalise; else each is on its own.
        """
        super().__init__()
        if sampler not in SAMPLERS:
            raise UserError(f"MODEL.CLS_LOSS.SAMPLER is {sampler!r}; choose one of {SAMPLERS}")
        if not neg_pos_ratio > 0:
            raise UserError(f"MODEL.CLS_LOSS.NEG_POS_RATIO is {neg_pos_ratio}; it must be > 0")
        self.loss = loss
        self.num_classes = num_classes
        self.num_logits = num_classes + 1 if softmax else num_classes
        self.softmax = softmax
        self.sampler, self.neg_pos_ratio = sampler, neg_pos_ratio
        self.global_ranking = global_ranking
        taken = inspect.signature(loss).parameters
        self._given = [key for key in GIVEN if key in taken]
        # A buffer, so that a resumed training goes on with it.
        bins = taken["bins"].default if "moving_counts" in taken else None
        self.register_buffer("moving_counts", None if bins is None else torch.zeros(bins))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """What ``cfg.MODEL.CLS_LOSS`` says; ``num_classes`` is the caller's to give.

        Raises:
            UserError: a name that is no loss, or a keyword or value that the loss does not take.
        """
        node = cfg.MODEL.CLS_LOSS
        return {
            "loss": _bind(node.NAME, dict(node.KWARGS)),
            "softmax": node.NAME in losses.SOFTMAX,
            "sampler": node.SAMPLER,
            "neg_pos_ratio": node.NEG_POS_RATIO,
            "global_ranking": node.GLOBAL_RANKING,
        }

    def forward(self, logits: Tensor, gt_labels: Tensor, *, normalizer: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            logits: (N, R, num_logits) float, of R anchors in each of N images.
            gt_labels: (N, R) int64. -1 ignored, 0 to K-1 the class of a positive, K background.
            normalizer: (), what losses that are sums over anchors are divided by.

        Returns:
            ().

        Raises:
            ValueError: a label above K.
            FloatingPointError: logits that are NaN or infinite.
        """
        check_classes(gt_labels, self.num_classes)
        if logs_now():
            ranked = self.scores(logits).logit(eps=1e-7) if self.softmax else logits
            log_ranking(ranked, ranking_targets(gt_labels, self.num_classes))
        labels = self._sample(logits, gt_labels) if self.sampler else gt_labels
        targets = labels if self.softmax else ranking_targets(labels, self.num_classes)
        given = {
            "normalizer": normalizer,
            "group": self.group,
            "moving_counts": self.moving_counts,
        }
        return self.loss(logits, targets, **{key: given[key] for key in self._given})

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
        if not isinstance(self.loss, partial):
            return self.loss.__name__
        keywords = "".join(f", {key}={value}" for key, value in self.loss.keywords.items())
        return f"{self.loss.func.__name__}{keywords}"

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


def _bind(name: str, kwargs: dict) -> Callable[..., Tensor]:
    if name not in losses.__all__:
        raise UserError(f"MODEL.CLS_LOSS.NAME is {name!r}; choose one of {losses.__all__}")
    loss = getattr(losses, name)
    # The first two are the tensors.
    accepted = [key for key in list(inspect.signature(loss).parameters)[2:] if key not in GIVEN]
    for key in kwargs:
        if key not in accepted:
            raise UserError(f"MODEL.CLS_LOSS.KWARGS has {key!r}; {name} takes {accepted}")
    loss = partial(loss, **kwargs)
    shape = (1, 1) if name in losses.SOFTMAX else (1,)
    try:
        loss(torch.zeros(shape), torch.zeros(1, dtype=torch.int64))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"MODEL.CLS_LOSS.KWARGS {kwargs} of {name}: {error}") from error
    return loss
