"""The documentation is complete, and what it shows runs."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from difflib import unified_diff
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

import rarkit
import rarkit.testing
from rarkit.cli.app import app
from rarkit.files.protocols import ALLOW
from rarkit.recipe.schema import Recipe
from rarkit.registry.component import Component, Settings
from rarkit.registry.kinds import KINDS
from tests import processes
from tests.pages import blocks, commands, inline, missing, prose, script, shown_outputs, slug
from tests.rules import PUBLIC_MODULES, ROOT, none

COMMAND = get_command(app)
[UsageError] = typer.BadParameter.__bases__
DOCS = ROOT / "docs"
PAGES = [*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY", "CHANGELOG")), *sorted(DOCS.glob("*.md"))]
SHORTER = {"train": {"steps": 2, "warmup_steps": 0, "batch_size": 8, "checkpoint_every": 2}, "sample": {"per_class": 2}}
SHORTER["evaluate"] = {"bootstrap": 2, "features": '{ name = "classifier", steps = 5 }'}
"""What examples override in the recipes they name, so that a page takes seconds."""


def tree(command: Any, name: str = "rarkit") -> dict[str, Any]:
    """The commands below one, by what is typed: ``rarkit plugins list``."""
    below = getattr(command, "commands", {})
    return {name: command} | {path: leaf for word in below for path, leaf in tree(below[word], f"{name} {word}").items()}


def misuse(arguments: list[str]) -> str | None:
    """What the command line would say against these arguments; they are parsed, and nothing is run."""
    command, start, place = COMMAND, 0, 0
    try:
        while below := getattr(command, "commands", None):
            while place < len(arguments) and arguments[place].startswith("-"):
                place += 1
            parse(command, arguments[start:place])
            if place == len(arguments):
                return None
            if arguments[place] not in below:
                return f"there is no command {arguments[place]!r}, only {', '.join(below)}"
            command = below[arguments[place]]
            start = place = place + 1
        parse(command, arguments[start:])
    except UsageError as error:
        return error.format_message()
    return None


def parse(command: Any, arguments: list[str]) -> None:
    """Raises UsageError for options that a command does not have, or that lack their value."""
    command.make_parser(typer.Context(command, **command.context_settings)).parse_args(list(arguments))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("run recipe.toml --store s3://bucket/x --set a=b", ""),
        ("--version", ""),
        ("cache rm train --yes", ""),
        ("run recipe.toml --stor x", "--stor"),
        ("run recipe.toml --store", "--store"),
        ("--verson", "--verson"),
        ("cache --all ls", "--all"),
        ("cache remove", "no command 'remove'"),
        ("runn", "no command 'runn'"),
    ],
)
def test_misuse_is_seen(arguments: str, complaint: str) -> None:
    said = misuse(arguments.split()) or ""
    assert complaint in said
    assert bool(said) == bool(complaint)


def generator(name: str) -> ModuleType:
    """A module of docs/, imported."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settings_tables(model: type[Settings], prefix: str = "") -> dict[str, list[str]]:
    """The tables of a recipe that are settings, not parts, and their keys."""
    found: dict[str, list[str]] = {prefix: list(model.model_fields)}
    for key, field in model.model_fields.items():
        for inner in _classes(field.annotation):
            if issubclass(inner, Settings) and not issubclass(inner, Component):
                found |= settings_tables(inner, f"{prefix}.{key}".strip("."))
    return found


def _classes(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for argument in get_args(annotation):
        yield from _classes(argument)


@pytest.mark.parametrize("page", [page for page in PAGES if script(page).strip()], ids=lambda page: page.name)
def test_examples_run(page: Path, tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    for recipe in (ROOT / "recipes").glob("*.toml"):
        shortened = [f'extends = "{recipe}"']
        for table, settings in SHORTER.items():
            shortened += [f"[{table}]", *(f"{key} = {value}" for key, value in settings.items())]
        (tmp_path / "recipes" / recipe.name).write_text("\n".join(shortened))
    (tmp_path / page.name).write_text(script(page))
    printed = tmp_path / "printed"
    printed.mkdir()
    ended = processes.call(printed, processes.script, str(tmp_path / page.name))
    assert ended.returncode == 0, ended.stderr
    promised = re.findall(r"^print\(.*\)  # (.*)$", script(page), re.MULTILINE)
    lines = ended.stdout.splitlines()
    none([line for line in promised if line not in lines], f"was promised, but this was printed:\n{ended.stdout}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page: Path) -> None:
    wrong = [
        f"{page.name}:{line}: {said}"
        for block in blocks(page)
        if block.language in {"bash", "console", "sh"}
        for line, arguments in commands(block)
        if (said := misuse(arguments))
    ]
    wrong += [f"{page.name}:{line}: {said}" for line, arguments in inline(page) if (said := misuse(arguments))]
    none(wrong)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shown_output_is_what_is_printed(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    for line, arguments, shown in shown_outputs(page):
        printed = CliRunner().invoke(app, arguments).output
        lines = [text.rstrip() for text in printed.splitlines() if text.strip()]
        assert [text.rstrip() for text in shown if text.strip()] == lines, f"{page.name}:{line} shows other than:\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for aim in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", aim):
            continue
        path, _, anchor = aim.partition("#")
        reached = (page.parent / path).resolve() if path else page
        if not reached.exists():
            wrong.append(f"{page.name}: {aim}: there is no such file")
        elif anchor and anchor not in {slug(line) for line in re.findall(r"^#+ (.*)$", prose(reached), re.MULTILINE)}:
            wrong.append(f"{page.name}: {aim}: {reached.name} has no such heading")
    none(wrong)


def test_every_page_can_be_found_from_the_readme() -> None:
    linked = re.findall(r"\]\(([^)#\s]+)", prose(ROOT / "README.md"))
    none([f"docs/{page.name}" for page in DOCS.glob("*.md") if f"docs/{page.name}" not in linked], "link them in README.md")


def test_every_command_and_option_is_documented() -> None:
    wanted = dict.fromkeys(tree(COMMAND))
    for command in tree(COMMAND).values():
        wanted |= {option: None for parameter in command.params for option in parameter.opts if option.startswith("--")}
    hidden = {"rarkit", "--install-completion", "--show-completion"}
    none(missing(DOCS / "commands.md", [name for name in wanted if name not in hidden]))


def test_every_hook_is_documented() -> None:
    hooks = [kind.hook for kind in KINDS.values()]
    assert len(hooks) >= 7
    headings = re.findall(r"^### (.*)$", (DOCS / "plugins.md").read_text(), re.MULTILINE)
    none([hook for hook in hooks if hook not in headings], "give each a heading of the third level")


def test_what_plugins_may_use_is_documented() -> None:
    classes = [name for name in rarkit.__all__ if isinstance(value := getattr(rarkit, name), type) and _of_parts(value)]
    suites = list(rarkit.testing.__all__)
    variables = ["RARKIT_PLUGINS", "RARKIT_BLOCK_PLUGINS", "--strict-plugins", "rarkit plugins list"]
    distributions = [path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml")]
    none(missing(DOCS / "plugins.md", [*classes, *suites, *variables, *sorted(PUBLIC_MODULES), *distributions]))


def _of_parts(value: type) -> bool:
    return issubclass(value, Settings) or value.__module__.endswith((".base", ".images"))


def test_generated_pages_are_up_to_date() -> None:
    pages = generator("generate")
    assert (DOCS / "parts.md").read_text() == pages.parts_page(rarkit.parts()), "run python docs/generate.py"
    recipes = (DOCS / "recipes.md").read_text()
    assert recipes == pages.recipes_page(recipes), "run python docs/generate.py"
    training = (DOCS / "training.md").read_text()
    assert training == pages.training_page(training), "run python docs/generate.py"
    assert training.count("| `rar_") == len(pages.TRAINED) * len(pages.PROCESSES)
    assert [match[1] for match in pages.TABLE.finditer(recipes)] == list(pages.TABLES)


def test_the_stable_api_changes_on_purpose_alone() -> None:
    """docs/api.md is the committed list of public names and signatures."""
    kept, now = (DOCS / "api.md").read_text().splitlines(), generator("stable_api").api_page().splitlines()
    changes = [line for line in unified_diff(kept, now, lineterm="", n=0) if line[:2] not in ("--", "++", "@@")]
    cure = "public names changed. If that is meant: python docs/generate.py, and an entry in CHANGELOG.md that says how to adapt"
    none(changes, cure)


def test_every_public_name_is_in_the_stable_api() -> None:
    """Independent of the generator, which might forget some."""
    sections = (DOCS / "api.md").read_text().split("\n## ")
    listed = {section.partition("\n")[0]: section for section in sections}
    wanted = {"rarkit": [name for name in rarkit.__all__ if f"rarkit.{name}" not in PUBLIC_MODULES and name[0] != "_"]}
    for module in sorted(PUBLIC_MODULES):
        wanted[module] = getattr(import_module(module), "__all__", [])
    lacking = [
        f"{module}.{name}"
        for module, names in wanted.items()
        for name in names
        if not re.search(rf"^(?:class |def |from rarkit import )?{name}\b", listed[module], re.MULTILINE)
    ]
    lacking += [
        path for path, command in tree(COMMAND).items() if not hasattr(command, "commands") and path not in listed["Commands"]
    ]
    none([*lacking, *(kind.hook for kind in KINDS.values() if kind.hook not in listed["Hooks"])], "is not in docs/api.md")


def test_every_part_and_setting_is_documented() -> None:
    """Independent of the generator: a part it forgot would be missing from the page and from the comparison."""
    wanted = []
    for kind in KINDS:
        registry = rarkit.parts().of_kind(kind)
        for name, part in registry.items():
            if registry.source(name).plugin == "builtin":
                wanted += [f"### {name}", part.__name__, *(f"{key}" for key in part.model_fields)]
    assert len(wanted) > 40
    none(missing(DOCS / "parts.md", wanted))


def test_every_recipe_table_and_key_is_documented() -> None:
    tables = settings_tables(Recipe)
    assert {"", "train", "sample", "evaluate"} <= set(tables)
    page = (DOCS / "recipes.md").read_text()
    shown = {*re.findall(r"`([^`\n]+)`", page), *re.findall(r"^\[+([\w.]+)\]+$", page, re.MULTILINE)}
    shown = {word.strip("[]") for word in shown}
    none([table for table in tables if table and table not in shown], "docs/recipes.md lacks these")
    none([key for keys in tables.values() for key in keys if key not in shown], "docs/recipes.md lacks these")


def test_every_recipe_is_documented() -> None:
    recipes = [recipe.name for recipe in (ROOT / "recipes").glob("*.toml")]
    assert recipes
    none(missing(DOCS / "recipes.md", recipes))


def test_the_readme_says_how_to_begin() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "pip install -e . -c constraints.txt && rarkit run recipes/digits.toml" in readme
    assert "pip install nox && nox" in readme


def test_what_the_page_on_security_names_is_there() -> None:
    page = (ROOT / "SECURITY.md").read_text()
    assert ALLOW in page
    named = set(re.findall(r"`([\w-]+/[\w/]*)`", page))
    assert named >= {"tests/hostile/"}
    none([f"SECURITY.md names {place}, which is not there" for place in named if not (ROOT / place).exists()])


def test_a_misuse_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ A=1 rarkit run --no-such-option x.toml \\\n  && rarkit explode\nrarkit is output\n```\n")
    [block] = blocks(page)
    found = list(commands(block))
    assert found == [(2, ["run", "--no-such-option", "x.toml"]), (2, ["explode"])]
    assert all(misuse(arguments) for _, arguments in found)
    assert misuse(["--help"]) is None
