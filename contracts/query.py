"""The one grammar of ``--where`` and of selections: text in, a pyarrow expression out, nothing executed.

Comparisons (``== != < <= > >=``, chained too), ``and``, ``or``, ``not``, ``in (…)``, ``not in (…)``,
``is null``, ``is not null``; numbers, quoted text and column names. A column of the manifest that is not
ours may be named without its ``extra.``. Null never matches: neither ``x > 3`` nor ``not x > 3`` holds
where ``x`` is null.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import Misuse
from contracts.index import EXTRA, SCHEMA

NUMBERS = frozenset(
    [field.name for field in SCHEMA if not pa.types.is_string(field.type)] + ["start_s", "end_s", "face_x", "face_y"]
)
LONGEST = 4_000  # characters; a longer text is not a question that a person asks
DEEPEST = 40  # nested brackets and operators: beyond it the parser itself would run out of stack
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def parse(text: str, names: Sequence[str]) -> pc.Expression:
    """The filter that ``text`` states over columns ``names``.

    Raises ``Misuse`` with a caret under the fault: bad grammar, an unknown column, text compared with a number.
    """
    if len(text) > LONGEST:
        raise Misuse(f"the query has {len(text)} characters, {LONGEST} are allowed")
    source = " ".join(text.splitlines()).strip()
    try:
        tree = ast.parse(source, mode="eval")
    except SyntaxError as error:
        hint = "; compare with ==" if "=" in (error.text or "") and "==" not in source else ""
        raise _fault(source, (error.offset or 1) - 1, f"{error.msg}{hint}") from None
    except (ValueError, RecursionError, MemoryError):
        raise Misuse("the query holds a NUL character or is nested too deeply") from None
    return _Compiler(source, frozenset(names)).condition(tree.body, 0)


def matching(table: pa.Table, text: str) -> pa.Table:
    """The lines of ``table`` for which ``text`` holds; all of them where it is empty. Raises ``Misuse``."""
    if not text.strip():
        return table
    try:
        return table.filter(parse(text, table.column_names))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise Misuse(f"{text}: {str(error).splitlines()[0]}") from None


class _Compiler:
    """Walks one parsed query. ``names`` are the columns there are."""

    def __init__(self, source: str, names: frozenset[str]) -> None:
        self.source = source
        self.names = names

    def condition(self, node: ast.expr, depth: int) -> pc.Expression:
        if depth > DEEPEST:
            self.fail(node, "nested too deeply")
        match node:
            case ast.BoolOp(op=op, values=values):
                join = operator.and_ if isinstance(op, ast.And) else operator.or_
                return reduce(join, [self.condition(value, depth + 1) for value in values])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self.condition(operand, depth + 1)
            case ast.Compare(left=left, ops=ops, comparators=rights):
                pairs = zip([left, *rights], ops, rights)
                return reduce(operator.and_, [self.comparison(*pair) for pair in pairs])
        self.fail(node, "expected a comparison, such as gender == 'f'")

    def comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> pc.Expression:
        if isinstance(op, ast.Is | ast.IsNot):
            if not self.is_null(right):
                self.fail(right, "'is' is for null alone; compare values with ==")
            empty = pc.field(self.column(left)).is_null()
            return ~empty if isinstance(op, ast.IsNot) else empty
        if isinstance(op, ast.In | ast.NotIn):
            if not isinstance(right, ast.Tuple | ast.List | ast.Set) or not right.elts:
                self.fail(right, "expected a list, such as ('a', 'b')")
            # a chain of equalities and not is_in, because is_in answers false where it should answer null
            found = reduce(operator.or_, [self.compare(left, operator.eq, item) for item in right.elts])
            return ~found if isinstance(op, ast.NotIn) else found
        return self.compare(left, _COMPARISONS[type(op)], right)

    def compare(self, left: ast.expr, compare: Callable[[Any, Any], Any], right: ast.expr) -> pc.Expression:
        (one, one_type), (two, two_type) = self.operand(left), self.operand(right)
        if one_type == "literal" and two_type == "literal":
            self.fail(left, "compares two values; name a column")
        kinds = [self.kind(left, one_type), self.kind(right, two_type)]
        if kinds[0] != kinds[1]:
            if one_type == "extra" and kinds[1] == "number":  # extra columns are text; numbers in them are meant
                one = one.cast(pa.float64())
            elif two_type == "extra" and kinds[0] == "number":
                two = two.cast(pa.float64())
            else:
                self.fail(right, f"compares {kinds[0]} with {kinds[1]}")
        expression: pc.Expression = compare(one, two)
        return expression

    def operand(self, node: ast.expr) -> tuple[pc.Expression, str]:
        """A column or a literal, and where its type comes from: column, extra or literal."""
        value = self.literal(node)
        if value is not None:
            return pc.scalar(value), "literal"
        name = self.column(node)
        return pc.field(name), "extra" if name.startswith(EXTRA) else "column"

    def kind(self, node: ast.expr, origin: str) -> str:
        if origin == "literal":
            return "text" if isinstance(self.literal(node), str) else "number"
        return "number" if self.column(node) in NUMBERS else "text"

    def literal(self, node: ast.expr) -> str | int | float | None:
        match node:
            case ast.Constant(value=str() as value):
                return value
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return self.finite(node, value)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return self.finite(node, -value)
        return None

    def finite(self, node: ast.expr, value: float) -> float:
        if abs(value) > 2**53:  # beyond it int64 and float64 no longer agree
            self.fail(node, "the number is too large")
        return value

    def column(self, node: ast.expr) -> str:
        match node:
            case ast.Name(id=name):
                pass
            case ast.Attribute(value=ast.Name(id="extra"), attr=attr):
                name = f"{EXTRA}{attr}"
            case _:
                self.fail(node, "expected a column, a number or quoted text")
        for candidate in (name, f"{EXTRA}{name}"):
            if candidate in self.names:
                return candidate
        shown = ", ".join(sorted(each.removeprefix(EXTRA) for each in self.names))
        self.fail(node, f"there is no column {name!r}; there are {shown}")

    @staticmethod
    def is_null(node: ast.expr) -> bool:
        match node:
            case ast.Name(id="null") | ast.Constant(value=None):
                return True
        return False

    def fail(self, node: ast.expr, problem: str) -> NoReturn:
        offset = len(self.source.encode()[: node.col_offset].decode())  # ast counts bytes
        raise _fault(self.source, offset, problem)


def _fault(source: str, offset: int, problem: str) -> Misuse:
    return Misuse(f"{problem}\n  {source}\n  {' ' * max(offset, 0)}^")
