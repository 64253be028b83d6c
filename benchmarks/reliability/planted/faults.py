"""Small faults in Python source, found by its syntax: each is one expression or statement that says something else.

What a reader would call a message is left alone (docstrings, f-strings, what is raised), and so are annotations and
decorators: a test that looks at those would hold no behaviour.
"""

from __future__ import annotations

import ast
import copy
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["sign", "factor", "comparison", "index", "keyword", "mean", "constant", "condition", "call"]
OPERATORS: dict[type[ast.operator], tuple[Kind, ast.operator]] = {
    ast.Add: ("sign", ast.Sub()), ast.Sub: ("sign", ast.Add()),
    ast.Mult: ("factor", ast.Div()), ast.Div: ("factor", ast.Mult()),
}  # fmt: skip
OPPOSITES: dict[type[ast.cmpop], ast.cmpop] = {
    ast.Lt: ast.GtE(), ast.GtE: ast.Lt(), ast.Gt: ast.LtE(), ast.LtE: ast.Gt(), ast.Eq: ast.NotEq(),
    ast.NotEq: ast.Eq(), ast.Is: ast.IsNot(), ast.IsNot: ast.Is(), ast.In: ast.NotIn(), ast.NotIn: ast.In(),
}  # fmt: skip
REDUCTIONS = {
    "mean": "sum", "sum": "mean", "amax": "amin", "amin": "amax", "max": "min", "min": "max", "argmax": "argmin",
    "argmin": "argmax",
}  # fmt: skip
"""Methods that make one of many; of Python's own functions only `min` and `max` have one that takes the same."""
LEFT_ALONE = {"description", "about", "help", "summary", "strict", "encoding"}
"""Keywords that are read by people, or that change nothing as long as nothing else is wrong."""
UNTOUCHED = (ast.JoinedStr, ast.Raise, ast.Assert, ast.Import, ast.ImportFrom)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One change of a file: the bytes from `start` to `end`, which are `old`, become `new`; `code` is their line."""

    file: str
    line: int
    code: str
    start: int
    end: int
    kind: Kind
    old: str
    new: str

    @property
    def key(self) -> str:
        """What the fault is known by in results, as long as its file stays as it is."""
        return f"{self.file}:{self.line}:{self.start}:{self.kind}"

    @property
    def place(self) -> str:
        """The fault in words that outlive a change elsewhere in the file."""
        old, new = (textwrap.shorten(text, 100, placeholder=" ...") for text in (self.old, self.new))
        return f"{self.file}: {self.code}: {old} -> {new}"

    def planted(self, source: str) -> str:
        """The source with the fault in it. Raises `ValueError` where the file is another."""
        data = source.encode()
        if data[self.start : self.end].decode() != self.old:
            raise ValueError(f"{self.file} has changed at line {self.line}")
        return (data[: self.start] + self.new.encode() + data[self.end :]).decode()


def faults(file: str, source: str) -> list[Fault]:
    """All faults of a file that still parse, in the order of its text."""
    data = source.encode()
    starts, lines = [0], data.splitlines(keepends=True)
    for line in lines:
        starts.append(starts[-1] + len(line))
    found = {}
    for node in _nodes(ast.parse(source)):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        for kind, changed in _changes(node):
            text = ast.unparse(changed)
            new = text if isinstance(changed, ast.stmt | ast.Constant) else f"({text})"
            old, code = data[start:end].decode(), lines[node.lineno - 1].decode().strip()
            fault = Fault(file=file, line=node.lineno, code=code, start=start, end=end, kind=kind, old=old, new=new)
            if _parses(fault.planted(source)):
                found[start, end, new] = fault
    return [found[key] for key in sorted(found)]


def _nodes(tree: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """The expressions and statements that do something, outside of what is left alone."""
    for child in _children(tree):
        if isinstance(child, UNTOUCHED):
            continue
        if isinstance(child, ast.expr | ast.stmt):
            yield child
        yield from _nodes(child)


def _children(node: ast.AST) -> list[ast.AST]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            defaults = [value for value in (*node.args.defaults, *node.args.kw_defaults) if value is not None]
            return [*defaults, *node.body]
        case ast.ClassDef():
            return list(node.body)
        case ast.AnnAssign():
            return [node.value] if node.value is not None else []
        case ast.Expr(value=ast.Constant()) | ast.Call(func=ast.Name(id="ConfigDict")):
            return []
        case ast.Subscript(slice=ast.Constant() | ast.UnaryOp(operand=ast.Constant())):
            return [node.value]
        case ast.Call():
            return [node.func, *node.args, *(word.value for word in node.keywords if word.arg not in LEFT_ALONE)]
        case _:
            return list(ast.iter_child_nodes(node))


def _changes(node: ast.expr | ast.stmt) -> Iterator[tuple[Kind, ast.AST]]:
    match node:
        case ast.BinOp(op=operator) if type(operator) in OPERATORS and not isinstance(node.left, ast.JoinedStr):
            kind, other = OPERATORS[type(operator)]
            yield kind, _with(node, op=other)
        case ast.UnaryOp(op=ast.USub()) if not isinstance(node.operand, ast.Constant):
            yield "sign", node.operand
        case ast.UnaryOp(op=ast.Not()):
            yield "condition", node.operand
        case ast.Compare(ops=[operator]):
            yield "comparison", _with(node, ops=[OPPOSITES[type(operator)]])
        case ast.BoolOp():
            yield "condition", _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        case ast.IfExp():
            yield "condition", _with(node, body=node.orelse, orelse=node.body)
        case ast.Subscript(slice=ast.Constant(value=int(place))):
            yield "index", _with(node, slice=ast.Constant(1 if place == 0 else 0))
        case ast.Subscript(slice=ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int()))):
            yield "index", _with(node, slice=ast.Constant(0))
        case ast.Call():
            yield from _of_call(node)
        case ast.Constant(value=bool(value)):
            yield "constant", ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield "constant", ast.Constant(value + 1)
        case ast.Constant(value=float(value)):
            yield "constant", ast.Constant(value * 2 if value else 1.0)
        case ast.Expr(value=ast.Call()):
            yield "call", ast.Pass()
        case _:
            return


def _of_call(node: ast.Call) -> Iterator[tuple[Kind, ast.AST]]:
    """A reduction that is another one, and each keyword left out."""
    if isinstance(node.func, ast.Name) and node.func.id == "ConfigDict":
        return
    for i, keyword in enumerate(node.keywords):
        if keyword.arg is not None and keyword.arg not in LEFT_ALONE:
            yield "keyword", _with(node, keywords=node.keywords[:i] + node.keywords[i + 1 :])
    match node.func:
        case ast.Attribute(attr=name) if name in REDUCTIONS:
            yield "mean", _with(node, func=_with(node.func, attr=REDUCTIONS[name]))
        case ast.Name(id="min" | "max" as name):
            yield "mean", _with(node, func=ast.Name(REDUCTIONS[name]))
        case _:
            return


def _with(node: ast.AST, **changes: object) -> ast.AST:
    made = copy.copy(node)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True
