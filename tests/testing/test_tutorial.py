"""The plugin of the tutorial passes its suite, exactly as the page prints both; without pytest, the suites say what they need."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap

import pytest

from tests import new_plugins
from tests.pages import blocks
from tests.processes import call, rarkit_with
from tests.rules import ROOT

PAGE = ROOT / "docs" / "plugins.md"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def test_the_tutorials_plugin_passes_its_suite(tmp_path):
    columns = [block for block in blocks(PAGE) if "class Columns(rarkit.ScanOrder):" in block.lines or "[project]" in block.lines]
    first = {block.language: block for block in reversed(columns)}
    [suite] = re.findall(r"from `test_columns\.py`:\n\n((?:    .*\n|\n)+)", PAGE.read_text())
    (tmp_path / "rarkit_columns.py").write_text("\n".join(first["python"].lines))
    (tmp_path / "pyproject.toml").write_text("\n".join(first["toml"].lines))
    (tmp_path / "test_columns.py").write_text(textwrap.dedent(suite))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ended = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"^12 passed", ended.stdout, re.MULTILINE), ended.stdout


def rarkit_in(folder: str, *arguments: str) -> None:
    """The command, in a folder, with the distributions in its ``site``."""
    os.chdir(folder)
    rarkit_with(f"{folder}/site", {}, *arguments)


def test_the_tutorials_commands_do_what_it_says(tmp_path):
    """But those of pip, which builds with what it downloads; ``nox -s new_plugins`` runs all of them."""
    commands = next(block for block in blocks(PAGE) if block.language == "bash").lines
    assert [line.split()[0] for line in commands] == ["rarkit", "pip", "rarkit", "python", "rarkit", "rarkit", "pip"]
    (tmp_path / "site").mkdir()
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path / 'site'}"}
    printed = {}
    for number, line in enumerate(commands):
        program, *arguments = shlex.split(line)
        if program == "python":
            ended = subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)
        elif program == "rarkit":
            (output := tmp_path / f"output{number}").mkdir()
            ended = call(output, rarkit_in, str(tmp_path), *arguments)
        else:
            continue
        assert ended.returncode == 0, ended.stdout + ended.stderr
        printed[line] = ended.stdout
        if "new" in arguments:
            new_plugins.lay_out(tmp_path / "rarkit-columns", tmp_path / "site")
    assert re.search(r"^✓ scan_orders columns: \d+ checks passed$", printed["rarkit plugins check columns"], re.MULTILINE)
    assert printed["rarkit orders show columns --grid 4x4"].split()[:4] == ["0", "4", "8", "12"]
    assert (tmp_path / "runs/digits-rehearsal/report.html").is_file()


@pytest.mark.parametrize("missing", [("pytest",), ("hypothesis",), ("pytest", "hypothesis")])
def test_without_its_libraries_the_suites_say_what_to_install(missing):
    code = f"""
        import sys
        from importlib.machinery import PathFinder

        class Without(PathFinder):
            @classmethod
            def find_spec(cls, name, path=None, target=None):
                return None if name in {missing!r} else PathFinder.find_spec(name, path, target)

        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not PathFinder] + [Without]
        import rarkit.testing
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=ENVIRONMENT, capture_output=True, text=True)
    last = ended.stderr.strip().splitlines()[-1]
    assert last == f"ImportError: rarkit.testing needs {' and '.join(missing)}: pip install pytest hypothesis"
