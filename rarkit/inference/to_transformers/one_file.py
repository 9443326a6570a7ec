"""Makes one Python file of a module and the modules of its package that it imports, for folders that others load without rarkit."""

from __future__ import annotations

import ast
from importlib.resources import files

LICENSE = "# Written by rarkit (Apache License 2.0)."
FUTURE = "from __future__ import annotations"


def one_file(name: str) -> str:
    """The source text of a module, which imports nothing of its own package any more.

    Args:
        name: the module's dotted name. It and what it imports of its package import at the top, from that package by name.
    """
    statements: dict[str, None] = {}
    text = _body(name, statements, {})
    first = ast.get_docstring(ast.parse(_source(name)), clean=False)
    ordered = sorted(statements, key=lambda line: (line.startswith("from"), line))
    return "\n".join([LICENSE, f'"""{first}"""', "", FUTURE, "", *ordered, "", text.strip(), ""])


def _body(name: str, statements: dict[str, None], seen: dict[str, None]) -> str:
    """The text below the imports, after that of the modules that it imports; the other imports are added to ``statements``."""
    seen[name] = None
    source = _source(name)
    lines, parts, end = source.splitlines(), [], 0
    for node in ast.parse(source).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not isinstance(node, ast.Import | ast.ImportFrom) and not (docstring and end == 0):
            break
        end = node.end_lineno or node.lineno
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{name.split('.')[0]}."):
            assert node.module is not None
            if node.module not in seen:
                parts.append(_body(node.module, statements, seen))
        elif not docstring and ast.unparse(node) != FUTURE:
            statements[ast.unparse(node)] = None
    return "\n\n".join([*parts, "\n".join(lines[end:]).rstrip()])


def _source(name: str) -> str:
    package, _, module = name.rpartition(".")
    return files(package).joinpath(f"{module}.py").read_text(encoding="utf-8")
