"""Checks that the weights of a file fit the model that has loaded them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from apdet.checkpoint.finite import find_not_finite
from apdet.errors import ArgumentError

_REMEDY = (
    "Give {weights} a checkpoint of this model, or, to start from what fits, set {allow_mismatch} "
    "to True"
)
_STRICT_REMEDY = (
    "Use the config that it was trained with. Or, to start a new training from what fits, give it "
    "in {weights} without --eval-only and --resume, and set {allow_mismatch} to True"
)


def check_numbers(weights: Mapping[str, Tensor], model: nn.Module) -> None:
    """Check that the weights of a file are numbers of the kind that the model has.

    Quantised weights would be loaded without their scale, complex ones without their imaginary
    part, and the root of a negative variance is NaN.

    Raises:
        ArgumentError: a weight is of integers, truth values or complex numbers, or a running
            variance is negative.
    """
    for key, own in model.state_dict().items():
        if not own.is_floating_point() or key not in weights:
            continue
        if not weights[key].is_floating_point():
            raise ArgumentError(
                "Checkpointer",
                "{key} is of type {theirs} there, and of {ours} here; give {weights} a checkpoint "
                "that is not quantised",
                key=key,
                theirs=_type_of(weights[key]),
                ours=_type_of(own),
            )
        # Minus infinity is said with the other numbers that are not finite.
        if key.endswith("running_var") and -torch.inf < weights[key].min() < 0:
            raise ArgumentError(
                "Checkpointer",
                "{key} is negative, but it is a variance; give {weights} a checkpoint that is not "
                "damaged",
                key=key,
            )


def _type_of(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def check_fit(
    weights: Sequence[str],
    incompatible: Any,
    model: nn.Module,
    *,
    strict: bool,
    allow_mismatch: bool,
) -> None:
    """Check that a model has loaded what a file holds, and that all its weights are finite.

    Args:
        weights: the names of all weights of the file.
        incompatible: the result of fvcore's ``Checkpointer._load_model``, with ``missing_keys``,
            ``unexpected_keys`` and ``incorrect_shapes``.
        model: the model after loading.
        strict: whether missing and unexpected weights are errors.
        allow_mismatch: whether weights of another shape are allowed. They are not if ``strict``.

    Raises:
        ArgumentError: the file does not fit, or has NaN or infinity.
    """
    if problems := _list_problems(incompatible, strict, allow_mismatch and not strict):
        raise ArgumentError(
            "Checkpointer",
            "a checkpoint of another model than this one: {problems}. "
            + (_STRICT_REMEDY if strict else _REMEDY),
            problems=problems,
        )
    if misfit := _find_misfit(weights, incompatible, list(model.state_dict())):
        raise ArgumentError(
            "Checkpointer",
            "{misfit}. Give {weights} a checkpoint of this model or of its backbone (`apdet "
            "convert` renames ImageNet weights of other libraries), or nothing",
            misfit=misfit,
        )
    if bad := list(find_not_finite(model.state_dict())):
        raise ArgumentError(
            "Checkpointer",
            "{number} weights are NaN or infinite, {first} the first; take another checkpoint",
            number=len(bad),
            first=bad[0],
        )


def _list_problems(incompatible: Any, strict: bool, allow_mismatch: bool) -> str:
    shapes = incompatible.incorrect_shapes
    problems = []
    if shapes and not allow_mismatch:
        rows = [f"{key}: {theirs} there, {ours} here" for key, theirs, ours in shapes]
        problems.append(_listing("weights of another shape (another class count?)", rows))
    if strict:
        # load_state_dict also reports a weight of another shape as missing.
        wrong_shape = {shape[0] for shape in shapes}
        lacking = [key for key in incompatible.missing_keys if key not in wrong_shape]
        unexpected = incompatible.unexpected_keys
        problems += [_listing("weights that the checkpoint lacks", lacking)] if lacking else []
        problems += [_listing("weights that the model lacks", unexpected)] if unexpected else []
    return "; ".join(problems)


def _find_misfit(weights: Sequence[str], incompatible: Any, model_weights: Sequence[str]) -> str:
    """Say that next to nothing of a file fits.

    This is so if most weights of the file do not fit, and the others are less than a tenth of the
    model. A backbone passes, also without its last stage or with layers that the model lacks, and
    so does a checkpoint of another detector with the same backbone. Missing weights are not
    counted: layers of batch normalisation do not report them.
    """
    theirs, ours = _without_counters(weights), _without_counters(model_weights)
    unexpected = _without_counters(incompatible.unexpected_keys)
    num_fitting = len(theirs) - len(unexpected) - len(incompatible.incorrect_shapes)
    if num_fitting > 0 and (2 * num_fitting > len(theirs) or 10 * num_fitting >= len(ours)):
        return ""
    return (
        f"{num_fitting} of the {len(theirs)} weights of the file fit the {len(ours)} weights of "
        f"this model. The file has {_first(unexpected or theirs)}; the model has {_first(ours)}"
    )


def _without_counters(keys: Iterable[str]) -> list[str]:
    """Leave out what models of any kind share, and the anchors that Detectron2 ignores."""
    # Detectron2 writes dots for the underscores in the names of Caffe2.
    ignored = ("num.batches.tracked", "anchor.generator.cell.anchors")
    return [key for key in keys if not any(part in key.replace("_", ".") for part in ignored)]


def _first(names: Sequence[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "no weight") + more


def _listing(title: str, rows: Sequence[str]) -> str:
    return f"{len(rows)} {title}: {_first(rows, limit=6)}"
