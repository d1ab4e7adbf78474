"""Reads one YAML file, and refuses what YAML would guess or drop in silence."""

import os
import re
import reprlib
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from apdet.errors import UserError
from apdet.files import check_regular_file, unreadable_file

# Lists under these keys hold names: `no`, `010` and `1e3` in them are texts as they are written.
_LISTS_OF_NAMES = {"classes", "WEIGHTS_CLASSES"}
# More than any config has. By aliases, a file of a kilobyte could have billions.
_MAX_NODES = 1_000_000
_BOOL, _INT, _FLOAT, _MERGE, _NULL, _STR = (
    f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "merge", "null", "str")
)


def read_yaml_file(path: str | os.PathLike) -> Any:
    """Read a YAML file safely. It cannot run code.

    It is YAML 1.1, as PyYAML has it, with these differences: ``1e-3`` is a number; ``010``,
    ``1:30`` and ``2012-01-01`` are texts, not 8, 90 and a date. Class names are texts as they are
    written.

    Args:
        path: a file in UTF-8.

    Returns:
        The content.

    Raises:
        UserError: the file cannot be read, is not safe YAML, gives a key twice, or has a key
            that is not a text.
    """
    check_regular_file(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except OSError as error:
        raise unreadable_file(path, error) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not in UTF-8; save it in UTF-8: {error.reason}") from error
    return parse_yaml(text, path)


def parse_yaml(text: str, place: str | os.PathLike) -> Any:
    """Do the same as `read_yaml_file` for a text.

    Args:
        text: YAML.
        place: where it comes from, for errors.
    """
    try:
        return yaml.load(text, _Loader)
    except _Fault as error:
        raise UserError(f"{place}, {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{place}: not a safe YAML file: {_in_one_line(error)}") from error
    except RecursionError as error:
        raise UserError(f"{place}: lists or mappings are nested too deep") from error


def _in_one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}: {error.problem}"


class _Fault(yaml.YAMLError):
    """Something that `read_yaml_file` refuses. The message begins with the line."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with the differences that `read_yaml_file` documents."""

    # Only numbers that everybody reads in the same way are numbers.
    yaml_implicit_resolvers = {
        first: [(tag, regexp) for tag, regexp in resolvers if tag in (_BOOL, _MERGE, _NULL)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        alias = self.peek_event()
        node = super().compose_node(parent, index)
        if isinstance(alias, yaml.AliasEvent) and node is not None and node.end_mark is None:
            raise _Fault(f"line {alias.start_mark.line + 1}: *{alias.anchor} refers to itself")
        return node

    def compose_mapping_node(self, anchor: str | None) -> MappingNode:
        # Here the keys are as in the file. When mappings are merged by `<<`, a key may come again.
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag not in (_STR, _MERGE):
                text = key.value if isinstance(key, ScalarNode) else "[...]"
                raise _Fault(f"line {line}: the key {text} is not a text; put it in quotes")
            if key.value in lines:
                first = lines[key.value]
                where = f"lines {first} and {line}" if first < line else f"line {line}"
                raise _Fault(f"{where}: the key {key.value} is given twice; give it once")
            lines[key.value] = line
            if key.value in _LISTS_OF_NAMES and isinstance(value, SequenceNode):
                _as_texts(value)
        return node

    def get_single_node(self) -> Node | None:
        node = super().get_single_node()
        if node is not None:
            _check_size(node, {})
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:  # such as a number with thousands of digits
            line, kind = node.start_mark.line + 1, node.tag.rpartition(":")[2]
            raise _Fault(f"line {line}: {reprlib.repr(node.value)} is no {kind}") from error


def _check_size(node: Node, sizes: dict[int, int]) -> int:
    """The number of nodes in a node, in which each alias counts as what it stands for."""
    if id(node) not in sizes:
        children = node.value if isinstance(node, SequenceNode | MappingNode) else ()
        parts = [part for child in children for part in _parts(child)]
        sizes[id(node)] = size = 1 + sum(_check_size(part, sizes) for part in parts)
        if size > _MAX_NODES:
            raise _Fault(
                f"line {node.start_mark.line + 1}: aliases lead to more than {_MAX_NODES:,} entries"
            )
    return sizes[id(node)]


def _parts(child: Node | tuple[Node, Node]) -> tuple[Node, ...]:
    return child if isinstance(child, tuple) else (child,)


_Loader.add_implicit_resolver(
    _INT,
    re.compile(r"[-+]?(0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"""([-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?
        |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
        |[-+]?\.(inf|Inf|INF)
        |\.(nan|NaN|NAN))$""",
        re.VERBOSE,
    ),
    list("-+.0123456789"),
)


def _as_texts(names: SequenceNode) -> None:
    for name in names.value:
        if isinstance(name, ScalarNode):
            name.tag = _STR
