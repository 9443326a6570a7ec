"""What a source text mentions: names of variables outside it, attributes of those, and modules that it imports."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator
from functools import lru_cache


@lru_cache(maxsize=256)
def names_of(text: str) -> frozenset[str]:
    """The names in a text that stand for something outside it."""
    names = set()
    tables = [symtable.symtable(_parsable(text), "source", "exec")]
    for table in tables:
        tables += table.get_children()
        is_module = table.get_type() == "module"
        names |= {
            symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced() and (is_module or symbol.is_global())
        }
    return frozenset(names)


@lru_cache(maxsize=256)
def attributes_of(text: str) -> tuple[tuple[str, ...], ...]:
    """The attributes that a text takes of names, as ``("helper", "tables", "SIZE")`` of ``helper.tables.SIZE``; sorted."""
    chains = (_chain(node) for node in ast.walk(ast.parse(_parsable(text))) if isinstance(node, ast.Attribute))
    return tuple(sorted({chain for chain in chains if chain}))


@lru_cache(maxsize=256)
def imports_of(text: str) -> tuple[str, ...]:
    """The modules that a text may import, sorted: relative ones with dots in front, and of ``from a import b`` also ``a.b``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(_parsable(text))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            dots, module = "." * node.level, node.module or ""
            names.add(dots + module)
            # What is taken out of a module may be a module too.
            names.update(f"{dots}{module}.{alias.name}" if module else dots + alias.name for alias in node.names)
    return tuple(sorted(name for name in names if not name.endswith("*")))


def lambdas_at(lines: list[str], line: int) -> str:
    """The lambda expressions that begin in a line, whose statement may begin and end elsewhere; empty if there are none."""
    text = "".join(lines)
    nodes = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Lambda) and node.lineno == line)
    return "\n".join(f"({ast.get_source_segment(text, node)})" for node in nodes)


def classes_in(lines: list[str], name: str) -> Iterator[tuple[str, ast.ClassDef]]:
    """The classes of a name, each with its text; decorators are part of it. The innermost come first."""
    tree = ast.parse("".join(lines))
    for node in reversed(list(ast.walk(tree))):
        if isinstance(node, ast.ClassDef) and node.name == name:
            start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            yield "".join(lines[start - 1 : node.end_lineno]), node


def _chain(node: ast.expr) -> tuple[str, ...]:
    """The names of ``a.b.c``; empty if something else than a name is in front."""
    if isinstance(node, ast.Name):
        return (node.id,)
    before = _chain(node.value) if isinstance(node, ast.Attribute) else ()
    return (*before, node.attr) if before and isinstance(node, ast.Attribute) else ()


def _parsable(text: str) -> str:
    try:
        ast.parse(text)
    except IndentationError:
        # A line inside a string starts further left than the code.
        return f"if True:\n{text}"
    return text
