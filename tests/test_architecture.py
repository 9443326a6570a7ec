"""rarkit keeps the rules of docs/architecture.md: who imports whom, what is light, how classes and files are made."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module

import pytest

from tests.rules import (
    LONGEST_FILE,
    LONGEST_FUNCTION,
    MAY_IMPORT,
    PUBLIC_MODULES,
    QUICK_ENTRANCES,
    ROOT,
    SLOW,
    Module,
    circles,
    long_things,
    modules,
    no_longer_copied,
    none,
    open_classes,
    other_loaders,
    other_parsers,
    other_ways_out,
    plugin_files,
    private,
    swallowed,
    target,
    undeclared,
    upward,
)
from tests.rules_of_printing import lines_within_arguments, other_ways_to_print
from tests.rules_of_writing import other_writers, unused

Rule = Callable[[Module], Iterator[str]]
RULES: list[Rule] = [
    upward,
    open_classes,
    long_things,
    swallowed,
    undeclared,
    no_longer_copied,
    other_ways_out,
    other_loaders,
    other_ways_to_print,
    lines_within_arguments,
    other_writers,
    other_parsers,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rarkit_keeps_the_rule(rule: Rule) -> None:
    none([sentence for module in modules().values() for sentence in rule(module)])


@pytest.mark.parametrize("rule", [private, open_classes, long_things, swallowed, other_writers], ids=lambda rule: rule.__name__)
def test_plugins_keep_the_rule(rule: Rule) -> None:
    none([sentence for module in plugin_files(tests=False) for sentence in rule(module)])


def test_tests_of_plugins_use_public_names() -> None:
    none([sentence for module in plugin_files(tests=True) for sentence in private(module)])


def test_every_exception_to_writing_in_one_place_is_needed() -> None:
    none(list(unused()))


def test_every_room_has_its_place() -> None:
    rooms = {module.room for module in modules().values()}
    assert rooms == set(MAY_IMPORT), f"places without a room, or rooms without a place: {rooms ^ set(MAY_IMPORT)}"


def test_rooms_stand_on_those_before_them() -> None:
    order = list(MAY_IMPORT)
    none([f"{room}: {one}" for room, below in MAY_IMPORT.items() for one in below if order.index(one) >= order.index(room)])


def test_no_file_imports_itself_in_a_circle() -> None:
    none(list(circles()))


@pytest.mark.parametrize("package", ["rarkit", "rarkit.datasets", "rarkit.models", "rarkit.sampling", "rarkit.tokenizers"])
def test_lazy_names_are_those_that_type_checkers_see(package: str) -> None:
    tree = modules()[package].tree
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {alias.asname: node.module for block in blocks for node in block.body for alias in node.names}
    public = import_module(package)
    beside = {name for name, module in seen.items() if module == package}  # from rarkit import sampling as sampling
    assert {f"{package}.{name}" for name in beside} == (PUBLIC_MODULES if package == "rarkit" else set())
    assert set(seen) - beside == set(public.__all__) - {"__version__"}
    assert set(public.__all__) <= set(dir(public))
    for name, module in seen.items():
        assert getattr(public, name) is getattr(import_module(module), name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing_like_it'"):
        getattr(public, "nothing_like_it")  # noqa: B009


def test_room_names_say_what_may_be_in_them() -> None:
    vague = [name for name in modules() if {"utils", "util", "helpers", "misc", "common"} & set(name.split("."))]
    assert not vague, f"names that could hold anything: {vague}"


def test_quick_modules_import_nothing_slow() -> None:
    """--help, plan and the registry stay fast: follow what importing them imports, and find no heavy library."""
    known = modules()
    came_from = dict.fromkeys(QUICK_ENTRANCES, "")
    waiting = list(QUICK_ENTRANCES)
    wrong = []
    while waiting:
        name = waiting.pop()
        assert name in known, f"there is no module {name}, which {came_from[name] or 'QUICK_ENTRANCES'} names"
        for found in known[name].imports:
            if not found.at_import:
                continue
            if found.module.split(".")[0] in SLOW:
                trail = f" (imported by {came_from[name]})" if came_from[name] else ""
                wrong.append(f"{known[name].at(found.line)}{trail}: imports {found.module} at the top; import it on use")
            reached = target(found)
            steps = reached.split(".")
            for package in (".".join(steps[: count + 1]) for count in range(len(steps))):
                if package in known and package not in came_from:
                    came_from[package] = name
                    waiting.append(package)
    none(wrong)


def test_importing_the_command_line_loads_nothing_slow() -> None:
    code = "import sys, rarkit.cli.app; rarkit.parts(); print(*{name.split('.')[0] for name in sys.modules})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not SLOW & set(said.stdout.split())


def test_nothing_is_left_for_later() -> None:
    words = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b")
    folders = ["rarkit", "plugins", "recipes", "tests", "benchmarks", "docs"]
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".md", ".toml"}]
    lines = ((path, number, line) for path in paths for number, line in enumerate(path.read_text().splitlines(), 1))
    none([f"{path.relative_to(ROOT)}:{number}: {line.strip()}" for path, number, line in lines if words.search(line)])


FAULTS: list[tuple[Rule, str, str]] = [
    (upward, "rarkit.cache.store", "from rarkit.registry import component"),
    (upward, "rarkit.scan_orders.spiral", "def f():\n    from rarkit.tokenizers.base import Tokenizer"),
    (upward, "rarkit.stages.run", "import rarkit.cli"),
    (upward, "rarkit.models.rar.rar", "importlib.import_module('rarkit.training.likelihood')"),
    (upward, "rarkit.report.page", "from rarkit.testing import grids"),
    (upward, "rarkit.models.rar.rar", "from .layers import Block"),
    (open_classes, "rarkit.models.rar.rar", "class RAR(nn.Module): ..."),
    (open_classes, "rarkit.models.rar.rar", "def f():\n    class Inner: ..."),
    (long_things, "rarkit.models.rar.rar", "\n" * (LONGEST_FILE + 1)),
    (long_things, "rarkit.models.rar.rar", "def f():" + "\n    x = 1" * LONGEST_FUNCTION),
    (swallowed, "rarkit.models.rar.rar", "try: f()\nexcept: raise"),
    (swallowed, "rarkit.models.rar.rar", "try: f()\nexcept (OSError, Exception): pass"),
    (swallowed, "rarkit.models.rar.rar", "try: f()\nexcept Exception: return None"),
    (swallowed, "rarkit.models.rar.rar", "with contextlib.suppress(Exception): f()"),
    (undeclared, "rarkit.models.rar.rar", "import einops"),
    (undeclared, "rarkit.datasets.webdataset", "import webdataset"),
    (no_longer_copied, "rarkit.inference.export", "from rarkit.models.rar import modeling_rar"),
    (no_longer_copied, "rarkit.models.rar.modeling_rar", "from rarkit.errors import UserError"),
    (no_longer_copied, "rarkit.models.rar.modeling_rar", "import numpy"),
    (private, "plugins.hilbert", "from rarkit.registry.loader import load"),
    (private, "plugins.hilbert", "from rarkit import builtin"),
    (private, "plugins.hilbert", "import rarkit\nrarkit.builtin.Raster"),
    (private, "plugins.hilbert", "from rarkit.testing import grids"),
    (other_writers, "rarkit.report.page", "open(path, 'w')"),
    (other_writers, "rarkit.report.page", "open(path, mode='r+b')"),
    (other_writers, "rarkit.report.page", "path.open('xb')"),
    (other_writers, "rarkit.report.page", "os.fdopen(descriptor, 'a')"),
    (other_writers, "rarkit.report.page", "zipfile.ZipFile(path, 'w')"),
    (other_writers, "rarkit.report.page", "(folder / 'a').write_text(text)"),
    (other_writers, "rarkit.report.page", "path.touch()"),
    (other_writers, "rarkit.report.page", "os.open(path, os.O_WRONLY)"),
    (other_writers, "rarkit.report.page", "os.replace(temporary, path)"),
    (other_writers, "rarkit.report.page", "tempfile.mkstemp(dir=folder)"),
    (other_writers, "rarkit.report.page", "shutil.copyfile(one, other)"),
    (other_writers, "rarkit.report.page", "np.savez(path, a=a)"),
    (other_writers, "rarkit.report.page", "Image.fromarray(a).save(path)"),
    (other_writers, "plugins.hilbert", "torch.save(state, path)"),
]
INNOCENT: list[tuple[Rule, str, str]] = [
    (upward, "rarkit.cache.store", "if TYPE_CHECKING:\n    from rarkit.cli import app"),
    (upward, "rarkit.cache.store", "from rarkit import __version__"),
    (open_classes, "rarkit.models.rar.rar", "@final\n@dataclass\nclass A: ..."),
    (open_classes, "rarkit.models.rar.rar", "class A(abc.ABC): ...\nclass B(Protocol[T]): ...\nclass C(ValueError): ..."),
    (swallowed, "rarkit.models.rar.rar", "try: f()\nexcept FileNotFoundError: pass"),
    (swallowed, "rarkit.models.rar.rar", "try: f()\nexcept Exception as error: causes.append(error)"),
    (undeclared, "rarkit.datasets.webdataset", "def f():\n    import webdataset"),
    (private, "plugins.hilbert", "import rarkit\nfrom rarkit import ScanOrder\nrarkit.hookimpl"),
    (other_writers, "rarkit.report.page", "write_text(path, text)\nopen(path)\nopen(path, 'rb')\ndataset.open('train')"),
    (other_writers, "rarkit.files.atomic", "open(path, 'xb')"),
]


@pytest.mark.parametrize(("rule", "name", "source"), FAULTS)
def test_a_fault_is_found(rule: Rule, name: str, source: str) -> None:
    assert len(list(rule(Module(name, ROOT / "example.py", source)))) == 1


@pytest.mark.parametrize(("rule", "name", "source"), INNOCENT)
def test_the_innocent_are_left_alone(rule: Rule, name: str, source: str) -> None:
    assert list(rule(Module(name, ROOT / "example.py", source))) == []


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (other_ways_to_print, 'print("a")'),
        (other_ways_to_print, "import sys\nsys.stderr.write(name)"),
        (other_ways_to_print, "from rich.console import Console"),
        (other_ways_to_print, "import rich.console"),
        (other_ways_to_print, 'console.print(f"[bold]{title}[/bold]", markup=True)'),
        (other_ways_to_print, "import typer\ntyper.confirm(question)"),
        (lines_within_arguments, 'raise UserError(f"there is no {name}.\\nMake it.")'),
        (lines_within_arguments, 'notify("skipped:\\n" + name)'),
    ],
)
def test_the_rules_of_printing_see(rule: Rule, code: str) -> None:
    path = ROOT / "rarkit/something.py"
    assert list(rule(Module("rarkit.something", path, code)))
    assert not list(rule(Module("rarkit.something", path, 'console.print(title, style="bold")\nraise UserError("a", "b")')))
