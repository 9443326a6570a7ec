"""Recipes with mistakes, drawn at random, and what ``rarkit validate`` and ``rarkit plan`` make of them."""

from __future__ import annotations

import copy
import faulthandler
import json
import os
import random
import re
import resource
import select
import signal
import socket
import sys
import time
import tomllib
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NoReturn

import tomli_w

import rarkit
from rarkit.engine.settings import TrainSettings
from rarkit.evaluation.settings import EvaluateSettings
from rarkit.registry.kinds import KINDS, TABLES
from rarkit.sampling.settings import SampleSettings
from tests.shipped_recipes import WITHOUT_PLUGINS

ROOT = Path(__file__).parents[1]
COMMANDS = ("validate", "plan")
MOST_SECONDS, MOST_MEMORY = 10.0, 1 << 30
"""What a command may take."""
HANGS_AFTER = 120.0
"""Seconds after which a process is killed."""
MOST_LINES, LONGEST_LINE = 3, 5000
SILENT = "http://silent/recipe.toml"
"""Stands for an address that takes calls and never answers."""
NUMBERS: tuple[Any, ...] = (
    *(-1, 0, 1, 2, 3, 7, 10**4, 10**6, 2**20, 2**20 + 1, 10**9, 10**12, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, -(10**30)),
    *(0.0, -0.5, 0.5, 1.0, 1e-320, 1e9, 1e308, -1e308, float("inf"), float("-inf"), float("nan")),
)
TEXTS: tuple[Any, ...] = (
    *(
        "",
        " ",
        "x",
        "x" * 5000,
        "10",
        "inf",
        "[/x]",
        "\x1b[31mred",
        "\u202egpj",
        "a\nb",
        "../..",
        "~",
        "label:0",
        "name:",
    ),
    *("{a,b}" * 30, "{0..999999999999}", "*", "?", "None", "true", "0x" + "f" * 20, "auto", "cpu", "bfloat16", "rar_b"),
)
CONTAINERS: tuple[Any, ...] = (
    *([], [[]], {}, {"name": "x"}, {"name": {"name": 1}}, {"name": ["raster"]}, {"a": {"b": {"c": 1}}}, [1] * 3, [10**12] * 2),
    *(
        [1, "a", 1.5],
        ["0", "0"],
        [f"class {number}" for number in range(2000)],
        list(range(5000)),
        [[1, 2], [3, 4]],
    ),
)
OTHERS: tuple[Any, ...] = (True, False, date(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC))
VALUES = (*NUMBERS, *TEXTS, *CONTAINERS, *OTHERS)
ADDRESSES = (
    *("reference://x", "dvc://x", "ftp://127.0.0.1:9/x", "nonsense://x", "github://a:b@c/d", "filecache::memory://x", "data:,x"),
    *(
        "zip://",
        "zip://x",
        "zip://x::",
        "zip://::nowhere.zip",
        "tar://a::zip://b",
        "simplecache::",
        "::",
        "a::b",
        "memory://nowhere",
    ),
    *(
        "http://127.0.0.1:9/x.toml",
        "https://127.0.0.1:9/",
        "http://",
        "http://[",
        "s3://bucket-of-nobody/x",
        "s3://",
        "hf://a/b/c.bin",
    ),
    *("gs://a/b", "file:///nowhere", "file:///dev/zero", "/dev/zero", "/dev/stdin", ".", "/", "x\x00y", "a" * 300, "~nobody/x"),
)
Tables = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """A recipe that works."""

    path: Path
    text: str
    tables: Tables


def recipes() -> list[Source]:
    """The recipes that are mutated. Their paths, and what they extend, are absolute."""
    paths = [*WITHOUT_PLUGINS, ROOT / "tests/data/small.toml"]
    sources = []
    for path in paths:
        text = re.sub(r'^extends = "(?!/)', f'extends = "{path.parent}/', path.read_text(), flags=re.MULTILINE)
        sources.append(Source(path, text, tomllib.loads(text)))
    return sources


def is_small_and_near(text: str) -> bool:
    """Whether a mutant names neither another machine nor the whole disk, so that a test may plan it."""
    return re.search(r'"/"|\b(http|https|s3|gs|hf)://(?!127)\w', text) is None


def kinds() -> list[str]:
    """The names of all mutations."""
    return [name for name, _, _ in (*_IN_TABLES, *_IN_TEXT)]


def mutant(chance: random.Random, source: Source) -> tuple[str, list[str]]:
    """A recipe's text with one to three mutations, and the names of these."""
    how: list[str] = []
    if chance.random() < 0.75:
        tables = copy.deepcopy(source.tables)
        names, weights, changes = zip(*_IN_TABLES, strict=True)
        for index in chance.choices(range(len(names)), weights, k=chance.choice((1, 1, 1, 2, 3))):
            changes[index](chance, tables)
            how.append(names[index])
        return tomli_w.dumps(tables), how
    text = source.text
    names, weights, changers = zip(*_IN_TEXT, strict=True)
    for index in chance.choices(range(len(names)), weights, k=chance.choice((1, 1, 2))):
        text = changers[index](chance, text)
        how.append(names[index])
    return text, how


def _drawn(chance: random.Random, values: Sequence[Any]) -> Any:
    # A copy: a further mutation may change it.
    return copy.deepcopy(chance.choice(values))


def _places(tables: Tables) -> list[tuple[Tables, str]]:
    """Each key of each table, with the table that it is in."""
    places = []
    for key, value in tables.items():
        places.append((tables, key))
        if isinstance(value, dict):
            places += _places(value)
    return places


def _all_tables(tables: Tables) -> list[Tables]:
    return [tables, *(table[key] for table, key in _places(tables) if isinstance(table[key], dict))]


def _replace(chance: random.Random, tables: Tables) -> None:
    table, key = chance.choice(_places(tables) or [({"title": ""}, "title")])
    table[key] = _drawn(chance, VALUES)


def _number(chance: random.Random, tables: Tables) -> None:
    numbers = [(table, key) for table, key in _places(tables) if type(table[key]) in (int, float)]
    if numbers:
        table, key = chance.choice(numbers)
        table[key] = chance.choice(NUMBERS)


def _settings() -> dict[str, list[type[Any]]]:
    """The classes whose fields are the keys of a table, by its dotted path."""
    tables = {kind.table: list(rarkit.parts().of_kind(name).values()) for name, kind in KINDS.items()}
    return {**tables, "train": [TrainSettings], "sample": [SampleSettings], "evaluate": [EvaluateSettings]}


def _setting(chance: random.Random, tables: Tables) -> None:
    """A setting that the recipe may not have, of one of the parts."""
    path, owners = chance.choice(list(_settings().items()))
    owner = chance.choice(owners)
    keys = [key for key in owner.model_fields if key != "name"]
    table = _table_at(tables, path)
    if "name" in owner.model_fields and table.get("name") != owner.model_fields["name"].default and chance.random() < 0.5:
        table.clear()
        table["name"] = owner.model_fields["name"].default
    if keys:
        table[chance.choice(keys)] = _drawn(chance, chance.choice((VALUES, NUMBERS)))


def _table_at(tables: Tables, path: str) -> Tables:
    if path in TABLES and TABLES[path].many:
        items = tables.get(path)
        tables[path] = items if isinstance(items, list) and items and isinstance(items[0], dict) else [{}]
        return tables[path][0]
    for key in path.split("."):
        if not isinstance(tables.get(key), dict):
            tables[key] = {}
        tables = tables[key]
    return tables


def _part(chance: random.Random, tables: Tables) -> None:
    kind, about = chance.choice(list(KINDS.items()))
    names = [*rarkit.parts().of_kind(kind), "", "nothing", 7, ["raster"], {"name": "raster"}]
    _table_at(tables, about.table)["name"] = _drawn(chance, names)


def _delete(chance: random.Random, tables: Tables) -> None:
    table, key = chance.choice(_places(tables) or [({"title": ""}, "title")])
    del table[key]


def _move(chance: random.Random, tables: Tables) -> None:
    table, key = chance.choice(_places(tables) or [({"title": ""}, "title")])
    value = table.pop(key)
    chance.choice(_all_tables(tables))[key] = value


def _unknown(chance: random.Random, tables: Tables) -> None:
    for _ in range(chance.choice((1, 1, 3, 300))):
        key = "".join(chance.choices("abcdeéx_.- \"'\\[", k=chance.randint(1, 8)))
        chance.choice(_all_tables(tables))[key] = _drawn(chance, VALUES)


def _address(chance: random.Random, tables: Tables) -> None:
    path, key = chance.choice(
        [
            *(("", "extends"), ("train", "tokens"), ("model", "weights"), ("tokenizer", "weights"), ("dataset", "path")),
            *(("dataset", "urls"), ("dataset", "test_path"), ("dataset", "sizes")),
            *(("evaluate.features", "weights"), ("evaluate.features", "reference")),
        ]
    )
    table = _table_at(tables, path) if path else tables
    if path == "dataset" and chance.random() < 0.7:
        name = {"path": chance.choice(("image_folder", "npz")), "test_path": "npz"}.get(key, "webdataset")
        table.clear()
        table.update({"name": name, **({"num_classes": 3, "urls": "a.tar"} if name == "webdataset" else {"path": "x"})})
    if path == "model" and chance.random() < 0.7:
        tables.pop("train", None)
    if path == "evaluate.features":
        table["name"] = "inception"
    table[key] = chance.choice(ADDRESSES)


def _silent(chance: random.Random, tables: Tables) -> None:
    path, key = chance.choice([("", "extends"), ("dataset", "path"), ("model", "weights")])
    (_table_at(tables, path) if path else tables)[key] = SILENT


_IN_TABLES: tuple[tuple[str, float, Callable[[random.Random, Tables], None]], ...] = (
    ("value", 6, _replace),
    ("number", 6, _number),
    ("setting", 8, _setting),
    ("part", 3, _part),
    ("deleted key", 2, _delete),
    ("moved key", 2, _move),
    ("unknown key", 2, _unknown),
    ("address", 5, _address),
    ("silent address", 0.1, _silent),
)


def _cut(chance: random.Random, text: str) -> str:
    first, last = sorted(chance.choices(range(len(text) + 1), k=2))
    return text[:first] + text[last:] if chance.random() < 0.5 else text[:first]


def _disturb(chance: random.Random, text: str) -> str:
    letters = list(text)
    for _ in range(chance.choice((1, 1, 5, 50))):
        letters[chance.randrange(len(letters))] = chance.choice("=[]{}\"'.,#\n 019-+_eE\x00\x1b\u202eé\ufeff")
    return "".join(letters)


def _lines(chance: random.Random, text: str) -> str:
    lines = text.splitlines()
    first, second = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[first], lines[second] = lines[second], chance.choice((lines[first], lines[second]))
    return "\n".join(lines)


def _with_value(chance: random.Random, text: str, value: str) -> str:
    """The text in which one value is another, written in TOML."""
    assignments = list(re.finditer(r"(?<== ).+$", text, re.MULTILINE))
    if not assignments:
        return f"{text}\nx = {value}"
    chosen = chance.choice(assignments)
    return text[: chosen.start()] + value + text[chosen.end() :]


def _huge(chance: random.Random, text: str) -> str:
    digits = chance.choice((20, 400, 4300, 4301, 50_000))
    numbers = ("9" * digits, f"-{'9' * digits}", f"0x{'f' * digits}", f"0.{'1' * digits}", f"1e{'9' * min(digits, 400)}")
    return _with_value(chance, text, chance.choice((*numbers, f'"{"x" * digits}"')))


def _deep(chance: random.Random, text: str) -> str:
    depth = chance.choice((5, 9, 100, 1000, 10_000))
    values = ("[" * depth + "]" * depth, "[" * depth, "{ a = " * depth + "1" + " }" * depth)
    keys = (f"{'a.' * depth}a = 1", f"[{'a.' * depth}a]")
    return chance.choice((_with_value(chance, text, chance.choice(values)), f"{text}\n{chance.choice(keys)}\n"))


def _many(chance: random.Random, text: str) -> str:
    count = chance.choice((100, 10_000))
    line = chance.choice(("k{} = 1", "[t{}]", "[[t]]", "# {}", "[train.k{}]", 't{} = "x"', "[dataset.a{}.b.c]"))
    lines = "\n".join(line.format(number) for number in range(count))
    return f"{lines}\n{text}" if chance.random() < 0.5 else f"{text}\n{lines}\n"


_IN_TEXT: tuple[tuple[str, float, Callable[[random.Random, str], str]], ...] = (
    ("cut", 3, _cut),
    ("disturbed", 3, _disturb),
    ("lines", 2, _lines),
    ("huge value", 2, _huge),
    ("deep", 2, _deep),
    ("many lines", 1, _many),
)


@dataclass(frozen=True)
class Outcome:
    """What a command made of a mutant."""

    case: str
    code: int
    """The exit code; -N if signal N ended the process, and -1 for a traceback."""
    stderr: str
    seconds: float
    """Not counting those in which other processes had the processor."""
    memory: int
    """Bytes that the process held at most."""
    command: str = ""


def outcomes(cases: Sequence[tuple[str, str]], folder: Path) -> Iterator[Outcome]:
    """Runs all commands on all cases (name, text) in forked processes with limits. A process that dies is followed by another."""
    work = [(name, text, command) for name, text in cases for command in COMMANDS]
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/recipe.toml"
        while work:
            done = 0
            for outcome in _batch([(name, text.replace(SILENT, address), command) for name, text, command in work], folder):
                done += 1
                yield outcome
            work = work[done:]


def _batch(work: Sequence[tuple[str, str, str]], folder: Path) -> Iterator[Outcome]:
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(work, folder, writing)
    os.close(writing)
    with open(reading, "rb") as pipe:
        for name, _, command in work:
            began = time.monotonic()
            ready, _, _ = select.select([pipe], [], [], HANGS_AFTER)
            line = pipe.readline() if ready else b""
            if line:
                yield Outcome(**json.loads(line))
                continue
            if not ready:
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            where = (folder / "where").read_text() or "the process died"
            yield Outcome(name, os.waitstatus_to_exitcode(status), where, time.monotonic() - began, 0, command)
            return
    os.waitpid(child, 0)


def _child(work: Sequence[tuple[str, str, str]], folder: Path, writing: int) -> NoReturn:
    """Runs the cases and tells of each in a line of JSON. Unbuffered, because the process may die at any moment."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "RARKIT_"))]:
        del os.environ[name]
    os.environ |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere", "XDG_CACHE_HOME": str(folder)}
    resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
    os.chdir(folder)
    where = (folder / "where").open("w")
    for name, text, command in work:
        faulthandler.dump_traceback_later(HANGS_AFTER - 10, file=where)
        (folder / "recipe.toml").write_text(text, encoding="utf-8")
        _forget_peak()
        began, queued = time.monotonic(), _queued()
        code, stderr = _run(["rarkit", command, "recipe.toml"], folder)
        outcome = Outcome(name, code, stderr, time.monotonic() - began - (_queued() - queued), _peak(), command)
        os.write(writing, f"{json.dumps(asdict(outcome))}\n".encode())
    os._exit(0)


def _run(argv: list[str], folder: Path) -> tuple[int, str]:
    from rarkit.cli import main

    with (folder / "stdout").open("w+") as stdout, (folder / "stderr").open("w+", encoding="utf-8") as stderr:
        before = sys.argv, sys.stdout, sys.stderr
        sys.argv, sys.stdout, sys.stderr = argv, stdout, stderr
        code = 0
        try:
            with warnings.catch_warnings():
                main()
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            code = -1
            stderr.write(traceback.format_exc())
        finally:
            sys.argv, sys.stdout, sys.stderr = before
        stderr.seek(0)
        return code, stderr.read(200_000)


def _queued() -> float:
    """Seconds that this process has waited for a processor, while others had it."""
    return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    [peak] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) * 1024


def faults_of(outcome: Outcome) -> list[str]:
    """What should not be, a sentence each."""
    faults = []
    if outcome.code not in (0, 2) or "Traceback" in outcome.stderr:
        faults.append(f"ended with {outcome.code}: {outcome.stderr[-1500:]}")
    if outcome.seconds > MOST_SECONDS:
        faults.append(f"took {outcome.seconds:.1f} s")
    if outcome.memory > MOST_MEMORY:
        faults.append(f"took {outcome.memory / 2**20:,.0f} MiB")
    if outcome.code == 2:
        faults += faults_of_message(outcome.stderr)
    return [f"{outcome.command} of {outcome.case}: {fault}" for fault in faults]


def faults_of_message(stderr: str) -> Iterator[str]:
    """What should not be of a message, a sentence each."""
    told = [line for line in stderr.split("\n") if not line.startswith(("fetching ", "warning: "))]
    lines = "\n".join(told).rstrip("\n").split("\n")
    if not lines[0].startswith("error: ") or lines[0] == "error: ":
        yield f"does not begin with what is wrong: {stderr[:500]!r}"
    elif len(lines) > MOST_LINES:
        yield f"has {len(lines)} lines: {stderr[:500]!r}"
    elif not all(line.endswith((".", "?", "!", "…")) for line in lines):
        yield f"does not end in a sentence: {stderr[:500]!r}"
    elif not any(
        re.search(r"\.toml|:/|data:|::|\[\w+\]|\w+\.\w+|/|--\w+|tokenizer '|dataset '|scan order '", line) for line in lines
    ):
        yield f"names neither file nor setting: {stderr[:500]!r}"
    elif max(map(len, lines)) > LONGEST_LINE:
        yield f"has a line of {max(map(len, lines)):,} characters: {stderr[:500]!r}"


def plain(message: str) -> str:
    """A message without what differs from case to case: numbers and quoted values."""
    without = re.sub(r"'[^'\n]*'|\"[^\"\n]*\"", "'…'", message.removeprefix("error: ").strip())
    return re.sub(r"\d[\d,.]*", "0", re.sub(r"/\S+", "/…", without))
