"""The rule of docs/architecture.md that only rarkit.files.atomic opens local files for writing."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.rules import Module, modules, plugin_files

MODULE = "rarkit.files.atomic"
WRITERS = {
    *(
        "write_text",
        "write_bytes",
        "touch",
        "symlink_to",
        "hardlink_to",
        "extractall",
        "pipe_file",
        "put_file",
        "get_file",
        "cp_file",
    ),
    *("save", "savez", "savez_compressed", "savetxt", "savefig", "tofile", "save_file"),
}
"""Methods and functions that write to a path, whatever they belong to."""
WRITERS_OF = {
    "os": {"open", "replace", "rename", "renames", "link", "symlink", "truncate", "mknod", "mkfifo"},
    "shutil": {"copy", "copy2", "copyfile", "copyfileobj", "copytree", "move", "make_archive", "unpack_archive"},
    "tempfile": {"mkstemp", "mktemp", "NamedTemporaryFile"},
}
"""Functions of a module, by its name."""
STORE = "the file system of a store, which is own_folder.OwnFolder if it is local"
ALLOWED = {
    ("rarkit.files.regular", "os.open"): "opens for reading: without waiting for a pipe's writer",
    ("rarkit.files.own_folder", "os.open"): "opens folders",
    ("rarkit.files.npz", "archive.open"): "a member of an archive that atomic has opened",
    ("rarkit.files.npz", "zipfile.ZipFile"): "into a file that atomic has opened",
    ("rarkit.files.weights", "torch.save"): "into a file that atomic has opened",
    ("rarkit.files.weights", "save_file"): "safetensors takes paths alone: one in a folder of this process, or of atomic.replacing",
    ("rarkit.files.weights", "filesystem.put_file"): "to another machine",
    ("rarkit.files.weight_files", "filesystem.get_file"): "fsspec takes paths alone: one of atomic.replacing",
    ("rarkit.engine.course", "self.checkpoints.save"): "rarkit's own, which writes by StageOutput",
    ("rarkit.cache.lock_file", "self.filesystem.open"): "on another machine",
    ("rarkit.cache.lock_file", "self.filesystem.pipe_file"): STORE,
    ("rarkit.cache.receipts", "store.filesystem.pipe_file"): STORE,
    ("rarkit.cache.store", "self.filesystem.pipe_file"): STORE,
    ("rarkit.rendering.png", "image.save"): "into memory",
    ("rarkit.rendering.animation", "frames[0].save"): "into a file that atomic has opened",
    ("rarkit.cli.sample", "drawing.save"): "rarkit's own, which writes by atomic",
    ("rarkit.datasets.shared_memory", "open"): "shared memory of a process of this run, without a name in any folder",
    ("rarkit.runtime.output", "os.open"): "the null device, in the place of a stdout that cannot be written",
    ("rarkit.models.image_generation", "shutil.copyfile"): "runs where rarkit is not installed",
    ("plugins.rarkit_wandb.__init__", "new.open"): "a new file in a folder that trackers.tracking has made",
    ("plugins.rarkit_wandb.__init__", "os.replace"): "likewise",
    ("rarkit.testing.model_family_suite", "Path(path).write_bytes"): "a suite for tests, in a folder of its own",
}
"""Calls that may stay, by module, and why."""


def other_writers(module: Module) -> Iterator[str]:
    """Calls that write a local file past ``rarkit.files.atomic``, through links that others have planted there."""
    if module.name == MODULE:
        return
    for node in module.nodes:
        if isinstance(node, ast.Call) and _writes(node) and (module.name, ast.unparse(node.func)) not in ALLOWED:
            yield f"{module.at(node.lineno)}: {ast.unparse(node.func)} writes a file; only {MODULE} opens files for writing"


def _writes(call: ast.Call) -> bool:
    owner, _, name = ast.unparse(call.func).rpartition(".")
    if name in WRITERS_OF.get(owner, ()) or (name in WRITERS and (owner or name == "save_file")):
        return True
    return name in ("open", "fdopen", "ZipFile", "TarFile", "OpenFile") and any(map(_is_mode, _modes(call)))


def _modes(call: ast.Call) -> list[ast.expr]:
    """What may be the mode of a call that opens a file: its second argument, or its first if it is a method of a path."""
    named = [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    return named or call.args[:2]


def _is_mode(argument: ast.expr) -> bool:
    text = argument.value if isinstance(argument, ast.Constant) else None
    return isinstance(text, str) and set(text) <= set("rwaxbt+:|gz") and not {*text}.isdisjoint("wax+")


def unused() -> Iterator[str]:
    """Exceptions that no call needs."""
    shipped = {module.name: module for module in plugin_files(tests=False)}
    for name, function in ALLOWED:
        module = (modules() | shipped).get(name)
        calls = [node for node in module.nodes if isinstance(node, ast.Call)] if module is not None else []
        if not any(ast.unparse(call.func) == function and _writes(call) for call in calls):
            yield f"{name}: {function} is excepted, and not called there"
