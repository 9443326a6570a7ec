"""The page: it parses, loads nothing, escapes everything, and leaves out what a run does not have."""

from __future__ import annotations

import base64
import io
import itertools
import re
from dataclasses import fields, replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rarkit.errors import GridError
from rarkit.evaluation.record import MetricRecord
from rarkit.rendering.figures import Curve, PictureGrid, Scan, Series
from rarkit.rendering.pictures import layout, mosaic
from rarkit.report.data import RunReport, StageRow
from rarkit.report.page import render
from tests.hostile.harness import CONTROLS

VOID = {"meta", "img", "br", "hr", "link", "input"}
RUNS_SCRIPTS = {"script", "iframe", "object", "embed", "link", "base", "form", "foreignobject", "use", "image"}
LOADS = {"src", "href", "srcset", "xlink:href", "action", "data", "poster", "background", "formaction"}
HOSTILE = "</title></code></pre></style><script>alert(1)</script><img src=x onerror=alert(1)>\"' onload='x' {{ 7 * 7 }} &amp; ]]>"
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def full() -> RunReport:
    steps = np.arange(50)
    return RunReport(
        title="Digits in spirals",
        recipe_name="digits",
        recipe_toml='title = "Digits"\n[model]\nwidth = 64\n',
        command="rarkit run digits.toml",
        when="2026-01-02 03:04 UTC",
        facts=("rar of 1,234 parameters", "360 samples"),
        stages=(
            StageRow("tokenize", "abc123", "2026-01-01 10:00 UTC", None, "a machine with 2 cores"),
            StageRow("train", "def456", "2026-01-02 11:00 UTC", 75.0, "a machine with 8 GPUs"),
        ),
        grids=(
            PictureGrid("Samples", "Drawn in order.", IMAGES, 3, ("zero", "one"), ("first", "second", "third")),
            PictureGrid("Reconstructions", "", IMAGES[:2], 2),
        ),
        curves=(
            Curve("Loss", "step", "bits", (Series("each step", steps, 9 - steps / 10, True), Series("mean", steps, steps))),
            Curve("Random ratio", "step", "share", (Series("r", steps, steps / 50),)),
        ),
        scan=Scan("raster", np.arange(12), 3, 4),
        metrics=(
            MetricRecord("frechet_distance", 5.9607, 4.9517, 6.9939, "", "lower", "How far off.", {"real": 2.4, "uniform": 163.81}),
            MetricRecord("reconstruction_psnr", 26.236, None, None, "dB", "higher", "How faithful."),
        ),
        notes=("Only few images.",),
        rehearsal=True,
    )


class Page(HTMLParser):
    """Parses a page and insists that every tag is closed where it was opened."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> without a start"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def of(self, *tags):
        return [text for tag, text in self.texts if tag in tags and text]

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


def shows_itself_alone(page):
    """Nothing is loaded, nothing runs."""
    for tag, attrs in page.tags:
        assert tag not in RUNS_SCRIPTS, tag
        for name, value in attrs.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in LOADS or value.startswith("data:image/png;base64,"), (tag, name, value[:60])
            assert name != "style" or "url" not in value
    (style,) = page.of("style")
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = (attrs["content"] for attrs in page.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_the_whole_page_parses_and_loads_nothing(full):
    page = Page(render(full))
    shows_itself_alone(page)
    assert page.of("title") == page.of("h1") == ["Digits in spirals"]
    assert page.of("h2") == [
        "Numbers beside their yardsticks",
        "Pictures",
        "Training and sampling",
        "All numbers, and what they mean",
        "Stages",
        "How to reproduce it",
        "The recipe, defaults spelled out",
    ]


def test_everything_that_is_known_is_told(full):
    page = Page(render(full))
    texts = " ".join(text for _, text in page.texts)
    for words in (
        *("1 min 15 s", "This was a rehearsal.", "Only few images.", "5.961", "4.952 … 6.994", "163.8", "26.24 dB", "How far off."),
        *(
            "zero",
            "third",
            "Drawn in order.",
            "each step",
            "Random ratio",
            "Scan order: raster",
            "abc123",
            "2026-01-01 10:00 UTC",
        ),
        *("rarkit run digits.toml", "tokenize: made on a machine with 2 cores.", "train: made on a machine with 8 GPUs."),
        *("width = 64", "rar of 1,234 parameters · 360 samples"),
    ):
        assert words in texts, words


def test_the_pictures_are_the_images(full):
    for attrs, grid in zip(Page(render(full)).all("img"), full.grids, strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(attrs["src"].partition(",")[2])))
        expected = mosaic(grid.images_NHWC, columns=grid.columns)
        assert (int(attrs["width"]), int(attrs["height"])) == picture.size == expected.size
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))


def test_a_reader_without_eyes_has_texts(full):
    page = Page(render(full))
    assert page.all("html")[0]["lang"] == "en"
    assert all(attrs["alt"] for attrs in page.all("img"))
    assert all(attrs["aria-label"] and attrs["role"] == "img" for attrs in page.all("svg"))
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.all("th"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_tables_fit_a_narrow_window(full):
    """Those that reflow name each of their cells as the column's head does, which is hidden then."""
    html = render(full)
    tables = re.findall(r'<table class="reflow">.*?</table>', html, re.DOTALL)
    assert len(tables) == html.count("<table") - html.count('<table class="scale"') == html.count('<div class="table"') == 2
    for table in tables:
        heads = re.findall(r"<th scope=\"col\"[^>]*>([^<]*)</th>", table)
        for row in re.findall(r"<tr>(<th scope=\"row\".*?)</tr>", table, re.DOTALL):
            names = [re.search('data-name="([^"]*)"', cell) for cell in re.findall("<td[^>]*>", row)]
            assert len(names) == len(heads) - 1
            assert all(name is None or name[1] == head for name, head in zip(names, heads[1:], strict=True))


def test_a_page_says_where_a_scale_is_not_linear(full):
    page = Page(render(full))
    assert "logarithmic scale" in page.of("th")
    assert {"2", "200"} <= set(page.of("span"))
    evenly = replace(full.metrics[0], yardsticks={"real": 2.4, "reconstructions": 2.8})
    assert "logarithmic" not in render(replace(full, metrics=(evenly,)))


def test_row_labels_are_spread_over_just_the_rows(full):
    html = render(full)
    (rows,) = re.findall(r'<ul class="rows".*?</ul>', html)
    grid = full.grids[0]
    assert len(re.findall("<li", rows)) == layout(grid.images_NHWC, columns=grid.columns).rows


OPTIONAL = [field.name for field in fields(RunReport) if field.name != "title"]
GONE = {
    "stages": "Stages",
    "grids": "Pictures",
    "metrics": "All numbers, and what they mean",
    "recipe_toml": "The recipe, defaults spelled out",
}


@pytest.mark.parametrize("name", OPTIONAL)
def test_what_is_missing_is_left_out(full, name):
    kind = type(getattr(full, name))
    empty = None if name == "scan" else kind()
    page = Page(render(replace(full, **{name: empty})))
    shows_itself_alone(page)
    assert page.of("h1") == [full.title]
    if name in GONE:
        assert GONE[name] in Page(render(full)).of("h2")
        assert GONE[name] not in page.of("h2")
    if name == "rehearsal":
        assert "This was a rehearsal." not in page.of("strong")


def test_with_nothing_but_a_title_no_section_remains():
    page = Page(render(RunReport("Alone", "", "", "", "")))
    assert page.of("h2") == []
    assert not page.all("section")
    shows_itself_alone(page)


def test_numbers_without_yardsticks_have_no_cards(full):
    page = Page(render(replace(full, metrics=full.metrics[1:])))
    assert "Numbers beside their yardsticks" not in page.of("h2")
    assert "reconstruction PSNR" in page.of("th")


def hostile(report: RunReport, text: str) -> RunReport:
    """The report with the text in every place that takes one."""
    lines = tuple(Series(text, np.arange(3), np.arange(3)) for _ in range(2))
    return replace(
        report,
        **dict.fromkeys(("title", "recipe_name", "recipe_toml", "command", "when"), text),
        facts=(text, text),
        stages=(StageRow(text, text, text, 1.0, text),),
        grids=(PictureGrid(text, text, IMAGES, 3, (text, text), (text,) * 3),),
        curves=(Curve(text, text, text, lines),),
        scan=Scan(text, np.arange(4), 2, 2),
        metrics=(MetricRecord(text, 1.0, 0.0, 2.0, text, "lower", text, {text: 2.0}),),
        notes=(text,),
    )


def test_hostile_texts_stay_texts(full):
    page = Page(render(hostile(full, HOSTILE)))
    shows_itself_alone(page)
    assert page.of("title") == page.of("h1") == [HOSTILE]
    assert page.of("code").count(HOSTILE) == 3
    assert sum(HOSTILE in text for _, text in page.texts) >= 18


def test_no_text_turns_others_around(full):
    html = render(hostile(full, "a\u202eb\u2066c\x1b[2J\x9b\u200f\n\td"))
    assert not CONTROLS.search(html)
    assert html.count(r"a\u202eb\u2066c\x1b[2J\x9b\u200f") >= 18


@settings(max_examples=25, deadline=None)
@given(text=st.text(alphabet=st.sampled_from("<>&\"'/=`{}%#- scriptonabé→\n\\"), max_size=30))
def test_no_text_changes_the_structure(full, text):
    plain, strange = (Page(render(hostile(full, words))) for words in ("words", f"w{text}w"))
    assert [tag for tag, _ in plain.tags] == [tag for tag, _ in strange.tags]
    assert [sorted(attrs) for _, attrs in plain.tags] == [sorted(attrs) for _, attrs in strange.tags]
    assert strange.of("code")[-1] == f"w{text}w"


@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.floats() | st.none(), min_size=4, max_size=4), better=st.sampled_from(["", "higher", "lower"]))
def test_any_numbers_make_a_page(full, values, better):
    value, low, high, yardstick = values
    if low is not None and high is not None:
        low, high = min(low, high), max(low, high)
    odd = MetricRecord("m", value or 0.0, low, high, "", better, "", {"y": yardstick or 0.0})
    page = Page(render(replace(full, metrics=(odd,))))
    for attrs in page.all("i") + page.all("b"):
        for share in re.findall(r"(?:left|width):([^%]*)%", attrs["style"]):
            assert 0 <= float(share) <= 100


def test_the_same_report_is_the_same_page(full):
    assert render(full) == render(full)


@pytest.mark.parametrize(("labels", "says"), [((("a",), ()), "1 row labels"), (((), ("a", "b", "c")), "3 column labels")])
def test_labels_that_would_stand_beside_the_wrong_images_are_refused(full, labels, says):
    with pytest.raises(GridError, match=says):
        render(replace(full, grids=(PictureGrid("Samples", "", IMAGES[:4], 2, *labels),)))
