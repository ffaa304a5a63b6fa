"""Convert values of a settings file, the environment or the command line to the constrained fields of a struct.

The constraints stand in the struct's annotations as `msgspec.Meta`. Its `description` is what an error message says was
expected, and `extra={"parse": function}` prepares a value that has another form, such as text of the environment.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta


def convert_field(struct: type[msgspec.Struct], name: str, found: object) -> Any:
    """Convert a value to the type of a field. Raises ValueError, whose text says what was expected."""
    annotation = _read_annotations(struct)[name]
    meta = _find_meta(annotation)
    parse = (meta.extra or {}).get("parse")
    try:
        return msgspec.convert(parse(found) if parse is not None else found, annotation)
    except ValueError:
        raise ValueError(meta.description) from None


def describe_unknown(name: str, key: str, known: Iterable[str]) -> str:
    """The message for a setting that does not exist, with the nearest name or all names."""
    names = list(known)
    near = difflib.get_close_matches(key, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(names)}"
    return f"unknown setting {name}; {hint}"


@cache
def _read_annotations(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(struct, include_extras=True)


def _find_meta(annotation: Any) -> Meta:
    """The Meta with the description: of the annotation itself, or of the first member of a union that has one."""
    if get_origin(annotation) is Annotated:
        for one in annotation.__metadata__:
            if isinstance(one, Meta) and one.description:
                return one
    for member in get_args(annotation):
        if get_origin(member) is Annotated:
            return _find_meta(member)
    raise AssertionError(f"{annotation} has no Meta with a description")
