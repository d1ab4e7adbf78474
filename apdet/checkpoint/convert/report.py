"""Formats the report of a conversion: the weights that were matched and left out."""

from collections.abc import Sequence

import yaml
from tabulate import tabulate

from apdet.checkpoint.convert.conversion import Conversion


def format_report(conversion: Conversion, out: str) -> str:
    """Format a text with the matched and left out weights, and the config keys that they need.

    Args:
        conversion: the converted weights.
        out: the path of the checkpoint, for MODEL.WEIGHTS.
    """
    architecture = conversion.architecture
    lines = [
        f"{architecture.name} with {architecture.author}'s names: matched "
        f"{len(conversion.weights)} of {len(architecture.shapes)} weights",
        "",
        _table_of_parts(conversion),
    ]
    for reason in dict.fromkeys(conversion.left_out.values()):
        keys = [key for key, why in conversion.left_out.items() if why == reason]
        lines += ["", f"left out, {reason}:", *_listing(keys)]
    if conversion.missing:
        lines += ["", "not in the source, so they start from random or default values:"]
        lines += _listing(conversion.missing)
    settings = {
        "INPUT": {"FORMAT": architecture.input_format},
        "MODEL": {"WEIGHTS": out, **architecture.settings},
    }
    config = yaml.safe_dump(settings, default_flow_style=None, sort_keys=False)
    return "\n".join([*lines, "", "put into the config:", "", config])


def _table_of_parts(conversion: Conversion) -> str:
    """Format a table of the number of matched weights in each stage of the backbone."""
    matched: dict[str, int] = {}
    expected: dict[str, int] = {}
    for name in conversion.architecture.shapes:
        part = name.split(".")[0]
        matched[part] = matched.get(part, 0) + (name in conversion.weights)
        expected[part] = expected.get(part, 0) + 1
    rows = [(part, matched[part], expected[part]) for part in expected]
    return tabulate(rows, ["part", "matched", "of"])


def _listing(keys: Sequence[str]) -> list[str]:
    rows = [f"  {key}" for key in keys if not key.endswith(".num_batches_tracked")]
    num_counters = len(keys) - len(rows)
    return rows + ([f"  {num_counters} keys *.num_batches_tracked"] if num_counters else [])
