"""``rarkit plugins new``: a distribution with one part that works, to be changed into one's own."""

from __future__ import annotations

import ast
import keyword
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import final

from rarkit.errors import UserError
from rarkit.files.atomic import write_text
from rarkit.registry.kind import Kind
from rarkit.registry.kinds import kind_named
from rarkit.registry.loader import installed, parts

PREFIX = "rarkit-"
LONGEST = 100
"""Characters of a name, which is also that of files."""
OTHER_FOLDERS = {"tests", "dist"}
"""Folders of a distribution that hold something else than its module."""


@final
@dataclass(frozen=True)
class NewPlugin:
    """The names in a new plugin."""

    distribution: str
    """As pip knows it: ``"rarkit-columns"``."""
    module: str
    """As Python imports it: ``"rarkit_columns"``."""
    part: str
    """As recipes name it, and the name of the entry point: ``"columns"``."""
    kind: Kind

    def texts(self) -> dict[str, str]:
        """The files of the distribution, by path."""
        name = "".join(word[:1].upper() + word[1:] for word in self.part.split("_"))
        filled = self._filled(name)
        # A part called tokenizer or field would define what its module imports, and one called none has no class.
        clashes = keyword.iskeyword(name) or any(map(_shadows, (text for path, text in filled.items() if path.endswith(".py"))))
        return self._filled(f"{name}Part") if clashes else filled

    def _filled(self, class_name: str) -> dict[str, str]:
        values = {
            "distribution": self.distribution,
            "module": self.module,
            "part": self.part,
            "Class": class_name,
            "kind": self.kind.singular,
            "header": self.kind.header,
            "suite": f"{self.kind.public[0]}Suite",
            "versions": compatible_versions(),
        }
        own = {"__init__.py": f"{self.kind.name}.py", "model.py": f"{self.kind.name}_model.py"}
        sources = {f"{self.module}/{target}": name for target, name in own.items() if _template(name).is_file()}
        shared = {"pyproject.toml": "pyproject.toml", "README.md": "README.md", f"tests/test_{self.part}.py": "test_part.py"}
        filled = {
            path: Template(_template(name).read_text(encoding="utf-8")).substitute(values)
            for path, name in (shared | sources).items()
        }
        return filled | {f"{self.module}/py.typed": "", ".gitignore": "__pycache__/\n*.egg-info/\ndist/\n"}


def named(distribution: str, kind: str, part: str | None = None) -> NewPlugin:
    """The names of a new plugin, checked.

    Args:
        distribution: the name of the distribution.
        kind: as for ``kind_named``.
        part: the part's name in recipes; by default the distribution's, without ``rarkit-``.

    Raises:
        UserError: a name is no name, or is taken.
    """
    chosen = kind_named(kind)
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", distribution) or len(distribution) > LONGEST:
        raise UserError(
            f"{distribution!r} cannot be the name of a distribution. Use letters, digits and single dashes, as in rarkit-columns."
        )
    module = re.sub(r"[-._]+", "_", distribution).lower()
    name = part or module.removeprefix("rarkit_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or len(name) > LONGEST:
        option = "Give the part another one with --name" if part is None else "Use lower-case letters, digits and underscores"
        raise UserError(f"{name!r} cannot be the name of a part. {option}, as in columns.")
    if not module.isidentifier() or keyword.iskeyword(module) or module in OTHER_FOLDERS:
        raise UserError(f"{module!r} cannot be the module of {distribution!r}. Use a name such as {PREFIX}{name}.")
    if _is_installed(distribution) or find_spec(module) is not None:
        raise UserError(f"{distribution!r} is installed already, or its module {module!r} is. Choose another name.")
    registry = parts().of_kind(chosen.name)
    if name in registry:
        source = registry.source(name)
        raise UserError(f"there is a {chosen.singular} {name!r} already, of {source}. Give the new one another name with --name.")
    # The entry point has the part's name, and plugins are chosen, left out and checked by the name of their entry point.
    for record in installed().records:
        if record.source.plugin == name:
            taken = f"there is a plugin {name!r} already, of {record.source.distribution}"
            raise UserError(f"{taken}. Give the new one another name with --name.")
    return NewPlugin(distribution, module, name, chosen)


def write(plugin: NewPlugin, folder: Path) -> list[Path]:
    """Writes the distribution into a new folder, and returns its files.

    Raises:
        UserError: there is something at this place already, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True)
        for path in plugin.texts():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UserError(f"{folder} is there already, and is left as it is. Remove it, or name another folder.") from error
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be made ({error.strerror}). Name another one.") from error
    for path, text in plugin.texts().items():
        write_text(folder / path, text)
    return [folder / path for path in plugin.texts()]


def compatible_versions() -> str:
    """The versions of rarkit whose stable API is that of the one installed: ``">=0.1,<0.2"``."""
    from rarkit import __version__

    major, minor = map(int, __version__.split(".")[:2])
    return f">={major}.{minor},<{f'{major}.{minor + 1}' if major == 0 else major + 1}"


def _shadows(code: str) -> bool:
    """Whether a module defines a class under a name that it imports."""
    tree = ast.parse(code)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported = {alias.name for node in imports for alias in node.names}
    return any(isinstance(node, ast.ClassDef) and node.name in imported for node in tree.body)


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _template(name: str) -> Traversable:
    return files("rarkit.scaffold") / "templates" / f"{name}.txt"
