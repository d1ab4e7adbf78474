"""Weight files of which nothing fits, and broken ones."""

from collections.abc import Callable

import torch
from faults.checkpoint_edits import (
    Edit,
    empty,
    keep_weights,
    poison,
    rename_weights,
    rot,
    start_from,
    truncate,
)
from faults.fault import both
from faults.row import Row, rarely, refused, works
from faults.setup import Setup

NOTHING_FITS = refused(r"weights\.pth")
DAMAGED = refused(r"weights\.pth")
POISONED = refused(r"weights\.pth[\s\S]*(nan|infinit|finite)")
EVALUATE = ("--eval-only",)


def use_frozen_bn(setup: Setup) -> None:
    setup.set("MODEL.RESNETS.NORM", "FrozenBN")
    setup.set("MODEL.FPN.NORM", "")
    setup.set("MODEL.RETINANET.NORM", "")


def use_no_norm(setup: Setup) -> None:
    use_frozen_bn(setup)
    setup.set("MODEL.RESNETS.NORM", "")


def foreign(content: dict) -> None:
    content["model"] = {"foo.weight": torch.ones(3)}


def rename_all_but_one(key: str) -> str:
    return key if key == "head.cls_score.bias" else f"detector.{key}"


FITTING = (
    *[
        Row(
            name=f"no weight fits, {norm}",
            fault=both(change, start_from(foreign)),
            expect=(NOTHING_FITS,),
        )
        for norm, change in [
            ("with BN", lambda setup: None),
            ("with FrozenBN", use_frozen_bn),
            ("without norm", use_no_norm),
        ]
    ],
    Row(
        name="no weight fits, in a dry run",
        fault=start_from(foreign),
        command=("--dry-run",),
        expect=(NOTHING_FITS,),
    ),
    Row(
        name="a weight file without weights",
        fault=start_from(keep_weights(lambda key: False)),
        expect=(NOTHING_FITS,),
    ),
    Row(
        name="one of all weights fits",
        fault=start_from(rename_weights(rename_all_but_one)),
        expect=(NOTHING_FITS,),
    ),
    Row(
        name="all weights have a foreign prefix",
        fault=start_from(rename_weights("detector.{}".format)),
        expect=(NOTHING_FITS,),
    ),
    Row(
        name="only the backbone fits, as with ImageNet weights",
        fault=start_from(keep_weights(lambda key: "bottom_up" in key)),
        expect=(works(says="head.cls_score"),),
    ),
)

BROKEN = (
    Row(
        name="100 bytes of the weights are rotten",
        fault=start_from(damage=rot),
        expect=(DAMAGED,),
    ),
    Row(
        name="100 bytes of the weights are rotten, --eval-only",
        fault=start_from(damage=rot),
        command=EVALUATE,
        expect=(DAMAGED,),
    ),
    Row(
        name="weights are truncated",
        fault=start_from(damage=truncate),
        expect=(DAMAGED,),
    ),
    Row(
        name="weights are an empty file",
        fault=start_from(damage=empty),
        expect=(DAMAGED,),
    ),
    Row(
        name="nan in a weight",
        fault=start_from(poison("cls_score.weight")),
        expect=(POISONED,),
    ),
    Row(
        name="infinity in a weight",
        fault=start_from(poison("cls_score.bias", float("inf"))),
        expect=(POISONED,),
    ),
    Row(
        name="nan in a weight, --dry-run",
        fault=start_from(poison("cls_score.weight")),
        command=("--dry-run",),
        expect=(POISONED,),
    ),
    Row(
        name="nan in a buffer, --eval-only",
        fault=start_from(poison("running_var")),
        command=EVALUATE,
        expect=(POISONED,),
    ),
)


def change_bias(change: Callable[[torch.Tensor], torch.Tensor]) -> Edit:
    """Replace the bias of the classification layer."""

    def edit(content: dict) -> None:
        key = "head.cls_score.bias"
        content["model"][key] = change(content["model"][key])

    return edit


ODD_TENSORS = rarely(
    *[
        Row(
            name=f"a weight is {name}{', --eval-only' * bool(command)}",
            fault=start_from(change_bias(change)),
            command=command,
            expect=(refused(r"weights\.pth.*head\.cls_score\.bias"),),
        )
        for command in ((), EVALUATE)
        for name, change in [
            ("of integers", lambda bias: bias.to(torch.int8)),
            ("of complex numbers", lambda bias: bias.to(torch.complex64)),
            ("sparse", lambda bias: bias.to_sparse()),
            ("a mere number", lambda bias: bias[0].clone()),
        ]
    ]
)

ROWS = (*FITTING, *BROKEN, *ODD_TENSORS)
