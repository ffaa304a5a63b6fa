"""Makes mutants of a module: one small change each, found in its syntax tree and made in its text.

Left out is what no test should look at: docstrings, annotations, the words of messages, assertions (`strict=True` is
one), and code for type checkers or
for another machine. A mutant is known by its id, `path:line:column:kind`, as long as the file stays as it
is.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

SYNC = "sync"
"""The kind of a mutant that leaves out a call which makes something durable."""
_COMPARES: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "//", ast.FloorDiv: "*", ast.Mod: "//", ast.LShift: ">>", ast.RShift: "<<",
    ast.BitAnd: "|", ast.BitOr: "&", ast.BitXor: "&",
}  # fmt: skip
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "bisect_left": "bisect_right"}
_NO_MEANING = {"__repr__", "__str__", "__all__", "__slots__"}
_MACHINES = ("sys.version_info", "sys.byteorder")
_TELLING = ("logger.", "self._logger.", "warnings.", "click.echo")


class Mutant(NamedTuple):
    """One change of one file: the text from `start` to `end` is replaced by `after`."""

    path: str
    line: int
    column: int
    kind: str
    start: int
    end: int
    before: str
    after: str

    @property
    def id(self) -> str:
        return f"{self.path}:{self.line}:{self.column}:{self.kind}"

    @property
    def change(self) -> str:
        """The change for people: what stood there, and what stands there now."""
        before, after = (" ".join(text.split()) or "(nothing)" for text in (self.before, self.after))
        return f"{before[:70]} -> {after[:70]}"

    def apply(self, text: str) -> str:
        data = text.encode()
        return (data[: self.start] + self.after.encode() + data[self.end :]).decode()


def find_mutants(path: Path, root: Path) -> list[Mutant]:
    """All mutants of a module, in the order of the file."""
    text = path.read_text()
    finder = _Finder(text, str(path.relative_to(root)))
    finder.visit(ast.parse(text))
    found = {mutant.id: mutant for mutant in finder.found}
    return sorted(found.values(), key=lambda one: one[1:4])


def is_python(mutant: Mutant, root: Path) -> bool:
    """Whether a mutant can be compiled. The few that cannot are nothing that somebody could have written."""
    try:
        compile(mutant.apply((root / mutant.path).read_text()), mutant.path, "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def _changes_nothing(option: ast.keyword) -> bool:
    """Whether an option only raises where the program is wrong, `zip(..., strict=True)`, or only spares the garbage
    collector objects that have no part in a cycle, `defstruct(..., gc=False)`."""
    return isinstance(option.value, ast.Constant) and (option.arg, option.value.value) in (
        ("strict", True),
        ("gc", False),
    )


class _Finder(ast.NodeVisitor):
    """Walks a module and gathers its mutants. Columns of `ast` count bytes, and so do offsets here."""

    def __init__(self, text: str, path: str) -> None:
        self.found: list[Mutant] = []
        self._data = text.encode()
        self._path = path
        self._lines = [0]
        for line in self._data.split(b"\n"):
            self._lines.append(self._lines[-1] + len(line) + 1)

    # What stays as it is.

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """The words of a message."""

    def visit_Raise(self, node: ast.Raise) -> None:
        self._add(node, "raise", "pass")

    def visit_Assert(self, node: ast.Assert) -> None:
        """A bug is an assertion: it holds in any program that is right."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name in _NO_MEANING or any("overload" in ast.unparse(one) for one in node.decorator_list):
            return
        for default in [*node.args.defaults, *(one for one in node.args.kw_defaults if one is not None)]:
            self.visit(default)
        for statement in node.body:
            self.visit(statement)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            self.visit(statement)

    # What is changed.

    def visit_If(self, node: ast.If) -> None:
        test = ast.unparse(node.test)
        if test in ("TYPE_CHECKING", "__name__ == '__main__'") or test.startswith(
            ("sys.version_info", "sys.byteorder")
        ):
            return
        self._negate(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        # Negated, a loop either never runs or never ends; both are seen by whoever runs it.
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for condition in node.ifs:
            self._add(condition, "condition", "True")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            self._add_between(left, right, "compare", _COMPARES[type(operator)])
            left = right
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        # One operand is left out: what people forget is a condition rather than which of "and" and "or" it takes.
        name = "and" if isinstance(node.op, ast.And) else "or"
        for index, value in enumerate(node.values):
            rest = f" {name} ".join(f"({self._text(one)})" for at, one in enumerate(node.values) if at != index)
            self._add(node, f"{name}{index}", f"({rest})" if len(node.values) > 2 else rest, at=value)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.USub | ast.Invert):
            self._add(node, "sign", f"({self._text(node.operand)})")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if isinstance(node.op, ast.LShift) and isinstance(node.left, ast.Constant) and node.left.value == 1:
            # `2 << n` is the same number as `1 << n + 1`, which is a mutant already.
            self._add_between(node.left, node.right, "arithmetic", ">>")
            self.visit(node.right)
            return
        if type(node.op) in _ARITHMETIC and not self._is_text(node):
            self._add_between(node.left, node.right, "arithmetic", _ARITHMETIC[type(node.op)])
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._add(node, "constant", str(not node.value))
        elif isinstance(node.value, int):
            self._add(node, "constant", str(node.value + 1))

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        if isinstance(node.func, ast.Name) and name in _CALLS:
            self._add(node.func, "call", _CALLS[name])
        self.visit(node.func)
        for one in (*node.args, *(option.value for option in node.keywords if not _changes_nothing(option))):
            self.visit(one)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant) or ast.unparse(node).startswith(_TELLING):
            return
        if isinstance(node.value, ast.Call):
            name = ast.unparse(node.value.func).rpartition(".")[2]
            self._add(node, SYNC if "sync" in name else "statement", "pass")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        # The number of a version is only compared: any other one says that another version wrote it.
        if any(name in _NO_MEANING or name.endswith(("FORMAT", "VERSION")) for name in names):
            return
        if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            self._add(node, "statement", "pass")
        self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._add(node, "statement", "pass")
        self.visit(node.value)

    def visit_Delete(self, node: ast.Delete) -> None:
        self._add(node, "statement", "pass")

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is None:
            return
        # Whoever asks whether something is so takes None for False.
        if not (isinstance(node.value, ast.Constant) and node.value.value in (None, False)):
            self._add(node, "return", "return None")
        self.visit(node.value)

    def visit_Continue(self, node: ast.Continue) -> None:
        self._add(node, "jump", "break")

    def visit_Break(self, node: ast.Break) -> None:
        self._add(node, "jump", "continue")

    def _negate(self, node: ast.expr) -> None:
        self._add(node, "negate", f"(not ({self._text(node)}))")

    def _is_text(self, node: ast.BinOp) -> bool:
        sides = (node.left, node.right)
        return any(isinstance(one, ast.JoinedStr) or (isinstance(one, ast.Constant) and isinstance(one.value, str))
                   for one in sides)  # fmt: skip

    def _text(self, node: ast.expr) -> str:
        start, end = self._range(node)
        return self._data[start:end].decode()

    def _range(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        start = self._lines[node.lineno - 1] + node.col_offset
        return start, self._lines[node.end_lineno - 1] + node.end_col_offset

    def _add(self, node: ast.expr | ast.stmt, kind: str, after: str, at: ast.expr | None = None) -> None:
        start, end = self._range(node)
        where = at or node
        before = self._data[start:end].decode()
        self.found.append(Mutant(self._path, where.lineno, where.col_offset, kind, start, end, before, after))

    def _add_between(self, left: ast.expr, right: ast.expr, kind: str, after: str) -> None:
        """Replace the operator between two operands, and nothing of the brackets and line ends around it."""
        start, end = self._range(left)[1], self._range(right)[0]
        gap = self._data[start:end].decode()
        operator = gap.strip(" ()\\\n\t")
        if not operator or "#" in gap:
            return
        at = start + gap.encode().index(operator.encode())
        data = operator.encode()
        self.found.append(Mutant(self._path, left.lineno, left.col_offset, kind, at, at + len(data), operator, after))
