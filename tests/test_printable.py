"""Whatever a text holds, what is printed of it steers no terminal, ends no line but our own, and lacks nothing that can be seen."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import tomllib
import warnings
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

import pytest
import tomli_w
from hypothesis import example, given
from hypothesis import strategies as st
from rich.table import Table

from rarkit.cli import failures
from rarkit.cli.encoding import echo
from rarkit.cli.options import print_json
from rarkit.cli.tables import print_entries, table_of
from rarkit.errors import RankError, RarkitError, RarkitWarning, RecipeError, UnknownPartError
from rarkit.evaluation.record import MetricRecord
from rarkit.printable import printable, printable_strings
from rarkit.report.terminal import metrics_table
from rarkit.runtime.console import PrintableConsole, in_lines, styled
from rarkit.runtime.progress import Reporter
from tests.hostile.harness import CONTROLS, STYLING

STEERING = "\x1b]0;x\x07\x1b[2J[/x]\u202e\r\x9b31m\n\tb :smile: [red]"
SHOWN = r"\x1b]0;x\x07\x1b[2J[/x]\u202e\r\x9b31m\n\tb :smile: [red]"
TEXTS = st.text(
    st.one_of(
        st.characters(exclude_categories=()),  # halves of surrogate pairs too
        st.sampled_from("[]/\\:{}a\x1b\x07\x9b\x7f\r\n\t\u2028\u200f\u202e\u2066\u061c\udcff"),
    ),
    max_size=60,
)


def is_steering(character: str) -> bool:
    return bool(CONTROLS.match(character)) or character in "\n\t\u061c" or "\ud800" <= character <= "\udfff"


@given(TEXTS)
@example(STEERING)
def test_what_can_be_seen_is_kept_and_the_rest_is_an_escape(text):
    shown = [character.encode("unicode_escape").decode() if is_steering(character) else character for character in text]
    assert printable(text) == "".join(shown)
    assert printable(printable(text)) == printable(text)
    kept = [character if character in "\n\t" else piece for character, piece in zip(text, shown, strict=True)]
    assert printable(text, lines=True) == "".join(kept)


@given(TEXTS)
@example(STEERING)
def test_json_and_toml_hold_the_same_data(text):
    code = printable_strings(json.dumps({text: [text]}, ensure_ascii=False, indent=1))
    assert json.loads(code) == {text: [text]}
    assert not CONTROLS.search(code)
    text = "".join(character for character in text if not "\ud800" <= character <= "\udfff")
    code = printable_strings(tomli_w.dumps({text: [text]}))
    assert tomllib.loads(code) == {text: [text]}
    assert not CONTROLS.search(code)


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_a_message_has_the_lines_that_it_was_given(lines):
    for kind in (RarkitError, RecipeError, UnknownPartError, RarkitWarning):
        assert str(kind(*lines)).split("\n") == [printable(line) for line in lines]
    first = RecipeError(*lines)
    assert str(RankError(str(first), told=False)) == str(first)


def a_metric(text: str) -> MetricRecord:
    return MetricRecord(text, 1.0, unit=text, yardsticks={text: 1.0})


def a_table(text: str) -> Table:
    table = table_of(text)
    table.add_row(text)
    return table


def progress(text: str) -> None:
    with Reporter().task(text, 2, "images") as advance:
        advance(1, note=text)


def waits(text: str) -> None:
    with Reporter().waiting(text):
        pass


def warns(text: str) -> None:
    for warning in (RarkitWarning(text), UserWarning(text)):
        sys.stderr.write(failures._format_warning(warning, type(warning), "file.py", 1, ""))


def logs(text: str) -> None:
    sys.stderr.write(failures._LogLine().format(logging.LogRecord("library", logging.ERROR, "", 1, "%s", (text,), None)))


def has_a_bug(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError as error:
        failures.print_traceback(ValueError, error, error.__traceback__)


PRINTERS = {
    "echo": echo,
    "echo in a colour": lambda text: echo(text, err=True, fg="red"),
    "console": lambda text: PrintableConsole().print(text, soft_wrap=True),
    "console, wrapped": lambda text: PrintableConsole().print(text, style="bold"),
    "styled": lambda text: PrintableConsole().print(styled(text, "bold"), f"({text})"),
    "lines": lambda text: PrintableConsole().print(in_lines([text, text])),
    "table": lambda text: PrintableConsole().print(a_table(text)),
    "entries": lambda text: print_entries((text, "b"), [((text, text), [text])]),
    "metrics": lambda text: PrintableConsole().print(metrics_table([a_metric(text)])),
    "say": lambda text: Reporter().say(text),
    "waiting": waits,
    "warning": warns,
    "log": logs,
    "traceback": has_a_bug,
    "json": lambda text: print_json({text: text}),
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(printer, text, stream):
    # Wide enough for columns side by side: texts that are folded cannot be looked for.
    wide = patch.dict(os.environ, COLUMNS="1000", TERM="xterm-256color")
    with wide, redirect_stdout(stream), redirect_stderr(stream):
        printer(text)
    return stream.getvalue()


@pytest.mark.parametrize("name", PRINTERS)
@given(text=TEXTS)
@example(text=STEERING)
def test_nothing_that_steers_is_printed_and_nothing_is_lost(name, text):
    out = printed(PRINTERS[name], text, io.StringIO())
    assert not CONTROLS.search(out), ascii(out)
    if name == "json":
        assert json.loads(out) == {text: text}
    else:
        assert "".join(printable(text).split()) in "".join(out.split())


@pytest.mark.parametrize("printer", [*PRINTERS.values(), progress])
def test_terminals_get_colours_of_ours_only(printer):
    out = printed(printer, STEERING, Terminal())
    assert not CONTROLS.search(STYLING.sub("", out)), ascii(out)


def test_progress_elsewhere_than_on_a_terminal(monkeypatch):
    monkeypatch.setattr("rarkit.runtime.progress.SECONDS_BETWEEN_LINES", -1.0)
    out = printed(progress, STEERING, io.StringIO())
    assert out.startswith(f"{SHOWN}: 1/2 images")
    assert out.endswith(f", {SHOWN}\n")


def test_a_line_of_a_message_cannot_be_forged():
    name = "a\nerror: forged"
    assert printed(lambda text: echo(f"there is no {text}"), name, io.StringIO()) == "there is no a\\nerror: forged\n"
    assert printed(has_a_bug, name, io.StringIO()).splitlines()[-1] == "ValueError: a\\nerror: forged"
    with pytest.warns(RarkitWarning, match=r"a\\nerror"):
        warnings.warn(name, RarkitWarning, stacklevel=1)
