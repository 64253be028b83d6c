"""The fields of settings with their values, defaults and meanings: of a recipe, a method, a reward. No torch."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from vpo_kit.catalogue import Setting

SIGNS = {annotated_types.Ge: ">=", annotated_types.Gt: ">", annotated_types.Le: "<=", annotated_types.Lt: "<"}


def of(kind: type[BaseModel], prefix: str = "") -> Iterator[Setting]:
    """All fields of a section in their order, those of the sections in it under their own names."""
    for name, field in kind.model_fields.items():
        inner = [part for part in _parts(field.annotation) if isinstance(part, type) and issubclass(part, BaseModel)]
        if not inner or (not field.is_required() and field.default is None):
            meaning = field.description or _inherited(kind, name)
            yield Setting(prefix + name, _values(field), _default(field), " ".join(meaning.replace("``", "`").split()))
        for section in inner:
            yield from of(section, f"{prefix}{name}.")


def find(settings: Sequence[Setting], text: str) -> list[Setting]:
    """The settings that `text` names, by the last part of their name; else all that have it in their name; else all
    that speak of it.
    """
    wanted = text.lower()
    named = [one for one in settings if wanted in (one.name, one.name.rpartition(".")[2])]
    near = [one for one in settings if wanted in one.name]
    return named or near or [one for one in settings if wanted in f"{one.meaning} {one.values}".lower()]


def _inherited(kind: type[BaseModel], name: str) -> str:
    """What a base class says of a field that `kind` only gives another default."""
    said = (
        base.model_fields[name].description
        for base in kind.__mro__[1:]
        if issubclass(base, BaseModel) and name in base.model_fields
    )
    return next((text for text in said if text), "")


def _parts(annotation: Any) -> list[Any]:
    """The members of a union without None, of anything else that alone."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for part in get_args(annotation) if part is not type(None)]
    return [annotation]


def _values(field: FieldInfo) -> str:
    found = " | ".join(_said(part) for part in _parts(field.annotation))
    return " ".join([found, *_limits(field.metadata)])


def _said(annotation: Any) -> str:
    """A type in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return " ".join([_said(arguments[0]), *_limits(arguments[1:])])
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (list, tuple) and arguments:
        inner = [_said(part) for part in arguments if part is not ...]
        return f"[{', '.join(inner)}{', ...' if origin is list else ''}]"
    if origin is dict:
        return f"{{{_said(arguments[0])}: {_said(arguments[1])}}}"
    if len(parts := _parts(annotation)) > 1:
        return " | ".join(map(_said, parts))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    names = {Path: "path", str: "text", Any: "anything", int: "int", float: "float", bool: "true | false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _limits(metadata: Sequence[Any]) -> list[str]:
    flat = [inner for one in metadata for inner in (getattr(one, "metadata", None) or [one])]
    return [
        f"{sign} {getattr(one, kind.__name__.lower()):g}"
        for one in flat
        for kind, sign in SIGNS.items()
        if isinstance(one, kind)
    ]


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    return "required" if value is PydanticUndefined else said(value)


def said(value: Any) -> str:
    """A value as ``--set`` takes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(said, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {said(one)}' for key, one in value.items())}}}"
    return str(value) or '""'
