"""What a page of the documentation holds: its blocks, its Python, its commands, its headings."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

STEADY = ("plugins list", "orders show", "schedules show", "--version")
"""Commands whose printed output depends on nothing but rarkit: where a page shows it, it has to be true."""


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is that of its first line of content, counted from 1."""

    page: Path
    language: str
    line: int
    lines: tuple[str, ...]


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """The fenced blocks of a page."""
    found, opened, language, start = [], "", "", 0
    lines = page.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        fence = re.match(r" *(`{3,})(\S*)", line)
        if fence and not opened:
            opened, language, start = fence[1], fence[2], number + 1
        elif fence and fence[1] == opened and not fence[2]:
            found.append(Block(page, language, start, tuple(lines[start - 1 : number - 1])))
            opened = ""
    assert not opened, f"{page.name}:{start - 1}: a fence without an end"
    return tuple(found)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    lines = page.read_text().splitlines()
    for block in blocks(page):
        lines[block.line - 1 : block.line - 1 + len(block.lines)] = [""] * len(block.lines)
    return "\n".join(lines)


def script(page: Path) -> str:
    """All Python of a page, on the lines where the page has it, so that a traceback points into the page."""
    lines = [""] * len(page.read_text().splitlines())
    for block in blocks(page):
        if block.language == "python":
            lines[block.line - 1 : block.line - 1 + len(block.lines)] = inspect.cleandoc("\n".join(block.lines)).split("\n")
    return "\n".join(lines) + "\n"


def commands(block: Block) -> Iterator[tuple[int, list[str]]]:
    """The rarkit commands of a shell block, each with its line and arguments."""
    prompted = any(line.lstrip().startswith("$ ") for line in block.lines)
    typed, start = "", block.line
    for number, line in enumerate(block.lines, block.line):
        if not typed:
            if prompted and not line.lstrip().startswith("$ "):
                continue
            start = number
        typed += line.strip().removeprefix("$ ")
        if typed.endswith("\\"):
            typed = typed[:-1] + " "
            continue
        for command in re.split(r"&&|\|\||[|;]", typed):
            words = shlex.split(command, comments=True)
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words = words[1:]
            if words[:1] == ["rarkit"]:
                yield start, words[1:]
        typed = ""


def inline(page: Path) -> Iterator[tuple[int, list[str]]]:
    """The rarkit commands that stand in a page's prose."""
    for number, line in enumerate(prose(page).splitlines(), 1):
        for code in re.findall(r"`(rarkit [^`]+)`", line):
            yield number, shlex.split(code)[1:]


def shown_outputs(page: Path) -> Iterator[tuple[int, list[str], list[str]]]:
    """The steady commands of a page's console blocks, each with the lines that are shown under it."""
    for block in blocks(page):
        starts = {line: arguments for line, arguments in commands(block) if block.language == "console"}
        for line, arguments in starts.items():
            below = block.lines[line - block.line + 1 :]
            end = next((count for count, text in enumerate(below) if text.startswith("$ ")), len(below))
            if " ".join(arguments).startswith(STEADY) and end:
                yield line, arguments, list(below[:end])


def slug(heading: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def missing(page: Path, wanted: Iterator[str] | list[str]) -> list[str]:
    """Those that the page does not show in backticks, in a heading, or in a code block."""
    assert page.exists(), f"docs/{page.name} is missing"
    shown = page.read_text()
    return [name for name in wanted if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", shown)]
