"""What was read from disk, held against what it should be: fields of records, columns of tables."""

import functools
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pyarrow as pa

from spine_ray.study.paths import DamagedError


def check_fields(record: Any) -> None:
    """Refuse a dataclass, built from a file, whose fields hold other kinds of values than it says.

    Raises:
        ValueError: Naming the first such field.
    """
    kind: Any = type(record)
    for name, kinds, hint in _hints(kind):
        value = getattr(record, name)
        if type(value) not in kinds and not _matches(value, hint):
            raise ValueError(f"{name} cannot be {str(value)[:60]!r}")


def checked_table(table: pa.Table, kinds: Mapping[str, pa.DataType], nullable: tuple[str, ...], path: Path) -> pa.Table:
    """Return the columns of a table in the kinds they should have.

    Args:
        table: As it was read from a file.
        kinds: Of the columns by name.
        nullable: Those in which values may be missing.
        path: The file, for messages.

    Raises:
        ValueError: If a column cannot be of its kind, or lacks values.
    """
    try:
        found = table.select(list(kinds)).cast(pa.schema(list(kinds.items())))
    except pa.ArrowException as error:
        raise DamagedError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    lacking = next((name for name in kinds if name not in nullable and found.column(name).null_count), None)
    if lacking is not None:
        raise DamagedError(f"{path} is damaged: values of its column {lacking!r} are missing")
    return found


def checked_logits(table: pa.Table, path: Path) -> pa.Table:
    """Return a table whose column `logits` surely holds lists of one length and of numbers only.

    Raises:
        ValueError: If it does not.
    """
    kind = table.schema.field("logits").type
    if not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
        raise DamagedError(f"{path} is damaged: its logits are {kind}, not lists of numbers of one length")
    column = table.column("logits").combine_chunks()
    if column.null_count or column.flatten().null_count:
        raise DamagedError(f"{path} is damaged: values of its column 'logits' are missing")
    return table


@functools.cache
def _hints(kind: type) -> tuple[tuple[str, frozenset[type], Any], ...]:
    """Return name, simple kinds (the quick way) and hint of each field."""
    hints = get_type_hints(kind)
    return tuple((field.name, _simple(hints[field.name]), hints[field.name]) for field in fields(kind))


def _simple(hint: Any) -> frozenset[type]:
    """Return the kinds of values that surely match a hint."""
    if get_origin(hint) in (Union, UnionType):
        return frozenset().union(*map(_simple, get_args(hint)))
    if hint is float:
        return frozenset({float, int})
    return frozenset({hint}) if hint in (int, str, bool, NoneType) else frozenset()


def _matches(value: Any, hint: Any) -> bool:
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_matches(value, each) for each in inside)
    if origin is Literal:
        return isinstance(value, str) and value in inside
    if origin is dict:
        return isinstance(value, dict) and all(
            _matches(key, inside[0]) and _matches(each, inside[1]) for key, each in value.items()
        )
    if origin is tuple:
        return isinstance(value, tuple) and all(_matches(each, inside[0]) for each in value)
    return type(value) in _simple(hint) or (isinstance(hint, type) and not _simple(hint) and isinstance(value, hint))
