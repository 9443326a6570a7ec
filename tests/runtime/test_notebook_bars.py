"""Progress in notebooks: one bar of HTML that is replaced, and the tour that shows it (``nox -s notebook`` runs it)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarkit.printable import printable
from rarkit.runtime.notebook_bars import bar, notebook
from tests.rules import ROOT

TOUR = json.loads((ROOT / "docs" / "tour.ipynb").read_text())


def recorded():
    shown = []
    return shown, lambda data, *, transient, update: shown.append((data, transient["display_id"], update))


texts = st.text(max_size=20)


@given(description=texts, note=texts, done=st.integers(0, 5), parts=st.lists(st.integers(1, 9), max_size=5))
def test_one_bar_is_shown_and_replaced_until_all_is_done(description, note, done, parts):
    shown, publish = recorded()
    total = done + sum(parts)
    with bar(publish, description, total, "images", done) as advance:
        for part in parts:
            advance(part, note=note)
    assert [update for _, _, update in shown[:2]] == [False, True]
    assert all(update for _, _, update in shown[1:])
    assert len({name for _, name, _ in shown}) == 1
    first, last = shown[0][0]["text/html"], shown[-1][0]["text/html"]
    assert f'<progress value="{done}" max="{total}">' in first
    assert f'<progress value="{total}" max="{total}">' in last
    assert last.count("<") == 4
    assert printable(shown[-1][0]["text/plain"]) == shown[-1][0]["text/plain"]


def test_a_bar_of_work_that_failed_stays_where_it_was():
    shown, publish = recorded()

    def fail():
        with bar(publish, "train", 10, "steps", 0) as advance:
            advance(4)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert 'value="4"' in shown[-1][0]["text/html"]


def test_without_a_notebook_there_is_no_bar_and_nothing_is_imported_for_it():
    assert notebook() is None
    code = "import sys, rarkit.runtime.progress as p; p.notebook(); sys.exit('IPython' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def outputs(kind):
    return [output for cell in TOUR["cells"] for output in cell.get("outputs", []) if output["output_type"] == kind]


def test_the_tour_is_kept_with_what_it_shows():
    assert not outputs("error")
    assert all(cell["outputs"] for cell in TOUR["cells"] if cell["cell_type"] == "code")
    results = ["".join(output["data"].get("text/html", "")) for output in outputs("execute_result")]
    for element, least in (("<img", 3), ("<svg", 1), ("<table", 3)):
        assert sum(element in html for html in results) >= least, element
    bars = ["".join(output["data"].get("text/html", "")) for output in outputs("display_data")]
    assert any("<progress" in html for html in bars)
    assert "/tmp" not in json.dumps(TOUR["cells"])
    assert "/home" not in json.dumps(TOUR["cells"])
