"""The rules of docs/architecture.md, each a function from a source file to the sentences that say what breaks it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TypeGuard

import rarkit

ROOT = Path(__file__).parents[1]
BASE = {"printable", "errors", "randomness", "images", "lazy", "files", "runtime"}
FAMILIES = ("scan_orders", "permutation_schedules", "attention", "tokenizers", "datasets", "features")
PARTS = {*FAMILIES, "models", "trackers"}
SETTINGS = {"sampling", "engine", "training", "evaluation"}
"""Rooms whose settings are tables of a recipe."""
GROUND = BASE | {"registry"}
BELOW_STAGES = GROUND | PARTS | SETTINGS | {"cache", "recipe"}
MAY_IMPORT: dict[str, set[str]] = {
    "printable": set(),
    "errors": {"printable"},
    "randomness": {"errors"},
    "images": {"errors"},
    "lazy": set(),
    "files": {"printable", "errors"},
    "runtime": {"printable", "errors"},
    "rendering": {"printable", "errors", "files"},
    "registry": BASE,
    "cache": BASE,
    "trackers": GROUND,
    "engine": GROUND | {"cache", "trackers"},
    "sampling": GROUND,
    **dict.fromkeys(FAMILIES, GROUND),
    **dict.fromkeys(("tokenizers", "features"), GROUND | {"engine"}),
    **dict.fromkeys(("scan_orders", "permutation_schedules"), GROUND | {"rendering"}),
    "models": GROUND | {"cache", "sampling", "attention", "permutation_schedules"},
    "builtin": GROUND | PARTS,
    "evaluation": GROUND | {"features"},
    "training": GROUND | {"engine", "models", "permutation_schedules"},
    "recipe": GROUND | PARTS | SETTINGS,
    "stages": BELOW_STAGES,
    "report": BELOW_STAGES | {"rendering", "stages"},
    "pipeline": BELOW_STAGES | {"rendering", "stages", "report"},
    "estimate": BELOW_STAGES | {"stages", "pipeline"},
    "proposal": BELOW_STAGES | {"rendering", "stages", "pipeline", "estimate"},
    "inference": BELOW_STAGES | {"rendering", "stages", "pipeline"},
    "testing": GROUND | PARTS | {"sampling"},
    "scaffold": {"errors", "files", "registry"},
    "cli": BELOW_STAGES | {"rendering", "stages", "report", "pipeline", "estimate", "proposal", "inference", "testing", "scaffold"},
    "rarkit": {"lazy", "registry"},
    "__main__": {"cli"},
}
"""Which rooms a room may import besides itself, from the ground up: each names rooms above it only. ``rarkit`` is the package's own
``__init__``."""
PUBLIC_MODULES = {f"rarkit.{name}" for name in ("datasets", "errors", "models", "sampling", "testing", "tokenizers", "training")}
"""What plugins may import from, besides the names of ``rarkit`` itself; docs/plugins.md names them."""
SLOW = {"torch", "zarr", "numcodecs", "sklearn", "scipy", "PIL", "s3fs", "webdataset", "huggingface_hub", "xformers", "tensorboard"}
QUICK_ENTRANCES = ("rarkit", "rarkit.builtin", "rarkit.cli.app", "rarkit.recipe.load", "rarkit.recipe.schema")
LONGEST_FILE, LONGEST_FUNCTION = 300, 60


@dataclass(frozen=True)
class Import:
    """``import module`` or, where ``name`` is not empty, ``from module import name``."""

    module: str
    name: str
    line: int
    at_import: bool
    """Whether it runs when its module is imported, rather than when a function is called."""


def imports(tree: ast.AST) -> Iterator[Import]:
    """All imports that can run: those under ``if TYPE_CHECKING`` cannot."""

    def visit(node: ast.AST, at_import: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, "", node.lineno, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (Import(module, alias.name, node.lineno, at_import) for alias in node.names)
        elif _called(node, "import_module") and isinstance(node.args[0], ast.Constant):
            yield Import(str(node.args[0].value), "", node.lineno, at_import)
        deeper = at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        children: list[ast.AST] = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            children = list(node.orelse)
        for child in children:
            yield from visit(child, deeper)

    return visit(tree, True)


def _called(node: ast.AST, name: str) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name


@dataclass(frozen=True)
class Module:
    """A source file under its dotted name."""

    name: str
    path: Path
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """All nodes of the tree."""
        return tuple(ast.walk(self.tree))

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """All imports that can run."""
        return tuple(imports(self.tree))

    @property
    def room(self) -> str:
        return ([*self.name.split("."), "rarkit"])[1] if "." in self.name else "rarkit"

    def at(self, line: int) -> str:
        return f"{self.path.relative_to(ROOT)}:{line}"


@cache
def modules() -> dict[str, Module]:
    """Every module of rarkit, by dotted name."""
    found = {}
    for path in sorted((ROOT / "rarkit").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = Module(name, path, path.read_text())
    return found


def plugin_files(tests: bool) -> list[Module]:
    """The files of plugins/: their tests, or what they ship."""
    paths = sorted(path for path in (ROOT / "plugins").rglob("*.py") if ("tests" in path.parts) == tests)
    # The first folder is that of the distribution.
    names = (".".join(("plugins", *path.relative_to(ROOT / "plugins").with_suffix("").parts[1:])) for path in paths)
    return [Module(name, path, path.read_text()) for name, path in zip(names, paths, strict=True)]


def target(found: Import) -> str:
    """The module an import of rarkit reaches: ``from rarkit.registry import hookspecs`` reaches rarkit.registry.hookspecs."""
    full = f"{found.module}.{found.name}"
    return full if full in modules() else found.module


def upward(module: Module) -> Iterator[str]:
    """Imports that the rooms' order forbids."""
    for found in module.imports:
        if found.module.startswith("."):
            yield f"{module.at(found.line)}: write the import out: from rarkit.x import y, not from {found.module} import"
        if found.module.split(".")[0] != "rarkit" or (found.module, found.name) == ("rarkit", "__version__"):
            continue
        room = Module(target(found), module.path, "").room
        if room != module.room and room not in MAY_IMPORT.get(module.room, set()):
            allowed = ", ".join(sorted(MAY_IMPORT.get(module.room, set()))) or "nothing"
            yield f"{module.at(found.line)}: {module.room} must not import {room} (it may import: {allowed})"


def circles() -> Iterator[str]:
    """Files that import each other in a circle, imports inside functions and for type checkers included."""
    known = {name: module for name, module in modules().items() if module.path.name != "__init__.py"}
    reached: dict[str, set[str]] = {}
    for name, module in known.items():
        statements = [node for node in module.nodes if isinstance(node, ast.ImportFrom | ast.Import)]
        named = {alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names}
        for node in statements:
            if isinstance(node, ast.ImportFrom) and node.module:
                named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        reached[name] = {other for other in named if other in known and other != name}
    for name in known:
        waiting, seen = list(reached[name]), set[str]()
        while waiting:
            other = waiting.pop()
            if other not in seen:
                seen.add(other)
                waiting += reached[other]
        if name in seen:
            yield f"{name} imports itself, by way of {', '.join(sorted(other for other in seen if name in reached[other]))}"


def private(module: Module) -> Iterator[str]:
    """A plugin's uses of what rarkit does not promise to keep."""
    public = set(rarkit.__all__) | {name.removeprefix("rarkit.") for name in PUBLIC_MODULES}
    for found in module.imports:
        if found.module == "rarkit" and found.name and found.name not in public:
            yield f"{module.at(found.line)}: rarkit.{found.name} is not public (see rarkit.__all__)"
        elif found.module.startswith("rarkit.") and found.module not in PUBLIC_MODULES:
            yield f"{module.at(found.line)}: {found.module} is not public; plugins use rarkit and {sorted(PUBLIC_MODULES)}"
        if target(found).startswith("rarkit.testing") and "tests" not in module.path.parts:
            yield f"{module.at(found.line)}: rarkit.testing is for tests; what a plugin ships must not import it"
    for node in module.nodes:
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "rarkit" and node.attr not in public:
            yield f"{module.at(node.lineno)}: rarkit.{node.attr} is not public (see rarkit.__all__)"


def open_classes(module: Module) -> Iterator[str]:
    """Classes that are neither abstract nor final. Exceptions form a tree by design, and TypedDict cannot be final."""
    for node in module.nodes:
        if not isinstance(node, ast.ClassDef):
            continue
        bases = {ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases}
        decorators = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
        methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
        abstract = any(ast.unparse(mark).endswith("abstractmethod") for item in methods for mark in item.decorator_list)
        exempt = any(base == "TypedDict" or base.endswith(("Error", "Warning", "Exception")) for base in bases)
        if not (abstract or exempt or "final" in decorators or bases & {"ABC", "Protocol"}):
            yield f"{module.at(node.lineno)}: class {node.name} is neither abstract (ABC, Protocol, @abstractmethod) nor @final"


def long_things(module: Module) -> Iterator[str]:
    """Files and functions that ought to be two."""
    lines = len(module.source.splitlines())
    if lines > LONGEST_FILE:
        yield f"{module.at(1)}: {lines} lines; a file has at most {LONGEST_FILE}"
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield f"{module.at(node.lineno)}: {node.name} has {length} lines; a function has at most {LONGEST_FUNCTION}"


def swallowed(module: Module) -> Iterator[str]:
    """Handlers that catch everything and say nothing."""
    broad = {"Exception", "BaseException"}
    for node in module.nodes:
        if isinstance(node, ast.ExceptHandler):
            silent = all(isinstance(item, ast.Pass | ast.Continue | ast.Break) or _nothing(item) for item in node.body)
            if node.type is None:
                yield f"{module.at(node.lineno)}: bare except; name what is expected to go wrong"
            elif silent and broad & {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)}:
                yield f"{module.at(node.lineno)}: swallows every error; name what is expected and say what became of it"
        elif _called(node, "suppress") and broad & {ast.unparse(argument) for argument in node.args}:
            yield f"{module.at(node.lineno)}: suppresses every error; name what is expected to go wrong"


def _nothing(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr | ast.Return) else statement
    return value is None or isinstance(value, ast.Constant)


COPIED = {
    "rarkit.models.image_generation",
    "rarkit.models.rar.modeling_rar",
    "rarkit.models.llama_ar.modeling_llama_ar",
    "rarkit.tokenizers._patch_decoder",
    "rarkit.tokenizers._maskgit_decoder",
}
"""Modules that rarkit copies into exports and never imports."""
COPIED_TOO = {"rarkit.tokenizers._maskgit_network"}
"""What those may import of rarkit besides each other; it is copied with them."""
BESIDE_EXPORTS = {"torch", "transformers", "safetensors"}
"""What is installed where an export is used."""


def no_longer_copied(module: Module) -> Iterator[str]:
    """Imports of what is copied by rarkit itself, and imports in it of what is not there where an export is used."""
    is_copied = module.name in COPIED | COPIED_TOO
    for found in module.imports:
        reached = target(found)
        there = reached in COPIED | COPIED_TOO or found.module.split(".")[0] in BESIDE_EXPORTS | sys.stdlib_module_names
        if reached in COPIED and not is_copied:
            yield f"{module.at(found.line)}: imports {reached}, which is for exports alone"
        if is_copied and not there:
            yield f"{module.at(found.line)}: imports {found.module}, which is not there where an export is used"


def undeclared(module: Module) -> Iterator[str]:
    """Third-party imports that pyproject.toml does not ask for; optional ones may only be imported on use."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {_distribution(line) for line in project["dependencies"]}
    optional = {_distribution(line) for lines in project["optional-dependencies"].values() for line in lines}
    installed = _installed()
    for found in module.imports:
        top = found.module.split(".")[0]
        if not top or top == "rarkit" or top in sys.stdlib_module_names:
            continue
        owners = {_distribution(name) for name in installed.get(top, [top])}
        on_use = not found.at_import or module.room == "testing" or module.name in COPIED
        if not owners & (needed | optional if on_use else needed):
            yield f"{module.at(found.line)}: {top} ({', '.join(sorted(owners))}) is not a dependency in pyproject.toml"


_installed = cache(packages_distributions)
ADDRESSES = {"rarkit.files.locations", "rarkit.files.protocols"}
"""The modules that hand addresses to fsspec."""
FSSPEC_ELSEWHERE = {
    ("fsspec", "AbstractFileSystem"),
    ("fsspec.implementations.local", "LocalFileSystem"),
    ("fsspec.asyn", "sync"),
}
"""Types, and a helper that takes a file system."""
NETWORKS = {"urllib.request", "http.client", "ftplib", "requests", "httpx", "aiohttp", "s3fs", "gcsfs", "huggingface_hub", "boto3"}


def other_ways_out(module: Module) -> Iterator[str]:
    """Ways to a file system or network that pass by the list of protocols."""
    if module.name in ADDRESSES:
        return
    for found in module.imports:
        by_fsspec = found.module.split(".")[0] == "fsspec" and (found.module, found.name) not in FSSPEC_ELSEWHERE
        if by_fsspec or any(f"{found.module}.{found.name}".startswith(f"{network}.") for network in NETWORKS):
            yield f"{module.at(found.line)}: imports {found.module}; only rarkit.files.locations goes to addresses"


CODE = {
    "rarkit.files.code_folders": {"torch.compile"},
    "rarkit.models.rar.decoding.native_kernels": {"ctypes.CDLL"},
    # glibc itself, which the process has loaded.
    "rarkit.runtime.kept_memory": {"ctypes.CDLL"},
    "rarkit.runtime.machine": {"ctypes.CDLL"},
}
"""What turns files into code that runs, by the modules that see to it that nobody else put it there. The last one loads CUDA's
driver by its name, from where the system keeps its libraries."""
LOADERS = (
    "torch.compile",
    "CDLL",
    "PyDLL",
    "load_library",
    "load_inline",
    "cpp_extension.load",
    "exec_module",
    "aoti_load_package",
)


def other_loaders(module: Module) -> Iterator[str]:
    """Calls that load compiled code, or make torch do so, past the check of who may write to its folder."""
    for node in module.nodes:
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if called.endswith(LOADERS) and called not in CODE.get(module.name, set()):
            yield f"{module.at(node.lineno)}: calls {called}; compiled code is loaded by {', '.join(sorted(CODE))} only"


JSON = {
    "rarkit.files.stored_json": "all that was stored",
    "rarkit.cache.record": "what it has just written itself",
    "rarkit.cache.token_records": "JSON arrays, piece by piece",
    "rarkit.datasets.shard_labels": "labels of datasets, in the encodings and with the oddities that others write",
    "rarkit.runtime.ranks": "what the ranks of a run tell each other",
    "rarkit.testing.part_suite": "parts that it has just written itself",
}
"""The modules that parse JSON, and what."""
PARSERS = {"load", "loads", "JSONDecoder", "model_validate_json", "validate_json", "parse_raw", "from_json"}


def other_parsers(module: Module) -> Iterator[str]:
    """Ways to parse JSON that pass by its bounds and models."""
    if module.name in JSON:
        return
    for node in module.nodes:
        by_json = isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"json", "pydantic_core"} and node.attr in PARSERS
        by_model = isinstance(node, ast.Attribute) and node.attr in {"model_validate_json", "validate_json", "parse_raw"}
        imported = isinstance(node, ast.ImportFrom) and node.module in {"json", "pydantic_core"}
        by_name = imported and any(alias.name in PARSERS for alias in node.names)
        if by_json or by_model or by_name:
            yield f"{module.at(node.lineno)}: parses JSON; only rarkit.files.stored_json reads what was stored"


def _distribution(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def none(faults: list[str], cure: str = "") -> None:
    """Fails, and lists them all, where there are faults."""
    assert not faults, "\n".join(["", *dict.fromkeys(faults), cure])
