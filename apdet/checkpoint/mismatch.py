"""Describes how a checkpoint does not fit a model."""

from collections.abc import Iterable, Sequence
from typing import Any


def describe_mismatch(
    incompatible: Any, model_keys: Iterable[str], *, strict: bool, allow_mismatch: bool
) -> str:
    """List the weights that do not fit the model, for an error message.

    Args:
        incompatible: the result of fvcore's ``Checkpointer._load_model``, with ``missing_keys``,
            ``unexpected_keys`` and ``incorrect_shapes``.
        model_keys: the names of all weights of the model.
        strict: whether missing and unexpected weights are errors. If no weight fits at all, they
            always are.
        allow_mismatch: whether weights of another shape are allowed.

    Returns:
        The text; empty if there is no error.
    """
    missing, shapes = set(incompatible.missing_keys), incompatible.incorrect_shapes
    problems = []
    if shapes and not allow_mismatch:
        rows = [f"{key}: {theirs} there, {ours} here" for key, theirs, ours in shapes]
        problems.append(_listing("weights of another shape (another class count?)", rows))
    if strict or missing.issuperset(model_keys):
        # load_state_dict also reports a weight of another shape as missing.
        wrong_shape = {shape[0] for shape in shapes}
        lacking = [key for key in incompatible.missing_keys if key not in wrong_shape]
        unexpected = incompatible.unexpected_keys
        problems += [_listing("weights that the checkpoint lacks", lacking)] if lacking else []
        problems += [_listing("weights that the model lacks", unexpected)] if unexpected else []
    return "\n".join(problems)


def _listing(title: str, rows: Sequence[str], limit: int = 12) -> str:
    shown = [f"    {row}" for row in rows[:limit]]
    if len(rows) > limit:
        shown.append(f"    and {len(rows) - limit} more")
    return "\n".join([f"  {len(rows)} {title}:", *shown])
