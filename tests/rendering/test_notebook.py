"""What notebooks show: HTML in which nobody's text is code, and a ``repr`` of a few lines."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from typing import Literal, final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rarkit
from rarkit.datasets.digits import Digits
from rarkit.errors import GridError
from rarkit.inference.drawing import SHOWN_CLASSES, SHOWN_EACH
from rarkit.rendering.figures import Curve, Series
from rarkit.rendering.notebook import chart, heading, table
from rarkit.sampling.settings import SampleSettings

SCREEN_LINES, SCREEN_CHARACTERS = 24, 2000
HOSTILE = "<script>alert(1)</script>\"'&\u202e\x1b[31m"
VOID = {"img", "br", "rect", "circle", "path", "line", "polyline"}


@final
class Tags(HTMLParser):
    """Which elements there are, the text between, and whether all are closed."""

    def __init__(self, html):
        super().__init__()
        self.names, self.text, self.pictures, self._open = [], "", [], []
        self.feed(str(html))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag == "img":
            self.pictures.append(dict(attrs))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def harmless(html):
    tags = Tags(html)
    assert "script" not in tags.names
    assert not re.search("[\u202e\x1b]", html)
    return tags


@given(st.text(max_size=30), st.text(max_size=30))
def test_text_of_strangers_is_text(one, other):
    tags = harmless(heading(one, other) + table((one,), [(other,), (HOSTILE,)]) + chart(Curve(one, other, HOSTILE, (_line(one),))))
    assert tags.text.count("<script>alert(1)</script>") >= 1
    assert set(tags.names) <= {"div", "b", "table", "thead", "tbody", "tr", "th", "td", "style", "svg", "text", *VOID}


def _line(label):
    return Series(label, np.arange(3), np.arange(3.0))


@pytest.mark.parametrize("kind", ["scan_orders", "permutation_schedules"])
def test_every_order_and_schedule_shows_itself(kind):
    for name, part in rarkit.parts().of_kind(kind).items():
        tags = harmless(part()._repr_html_())
        assert ("img" in tags.names) == (kind == "scan_orders")
        assert ("svg" in tags.names) == (kind == "permutation_schedules")
        assert name in (tags.pictures[0]["alt"] if tags.pictures else part()._repr_html_())


@final
class Wide(rarkit.ScanOrder):
    """Supports one grid that is never shown."""

    name: Literal["wide"] = "wide"

    def requirement(self, height, width):
        return None if (height, width) == (2, 31) else "it needs 2 × 31"

    def order(self, height, width):
        return np.arange(height * width)


def test_an_order_without_a_small_grid_shows_its_repr():
    assert harmless(Wide()._repr_html_()).text == "Wide(name='wide')"
    with pytest.raises(GridError):
        Wide().order(8, 8)


def test_plans_and_runs_show_stages_numbers_and_samples(finished, tmp_path):
    planned = rarkit.plan(finished.plan.recipe, tmp_path / "store")
    tags = harmless(planned._repr_html_())
    for stage in planned.stages:
        assert stage.name in tags.text
        assert stage.reason in tags.text
    tags = harmless(finished._repr_html_())
    assert len(tags.pictures) == 1
    assert len(finished.metrics) == tags.names.count("tr") - 1
    assert "Fréchet distance" in tags.text


def test_a_run_whose_store_is_gone_still_shows_its_numbers(finished, tmp_path):
    import shutil

    shutil.copytree(finished.plan.store.root, tmp_path / "store")
    again = rarkit.run(finished.plan.recipe, tmp_path / "store", runs=tmp_path / "runs", device="cpu", quiet=True)
    _ = again.metrics
    shutil.rmtree(tmp_path / "store")
    tags = harmless(again._repr_html_())
    assert len(again.metrics) == tags.names.count("tr") - 1
    assert tags.pictures == []
    assert "sample" in tags.text


def drawing(classes, per_class):
    count = classes * per_class
    return rarkit.Drawing(
        images_NHWC=np.zeros((count, 8, 8, 1), np.uint8),
        labels_N=np.repeat(np.arange(classes), per_class),
        tokens_NL=np.zeros((count, 16), np.int64),
        classes=tuple(range(classes)),
        class_names=tuple(f"{HOSTILE}{label}" for label in range(classes)),
        per_class=per_class,
        grid=(4, 4),
        order_L=np.arange(16),
        seed=0,
        scan_order={"name": "raster"},
        settings=SampleSettings(),
    )


@pytest.mark.parametrize(("classes", "per_class"), [(1, 1), (10, 1), (3, 4), (1000, 10)])
def test_a_drawing_shows_its_first_images(classes, per_class):
    tags = harmless(drawing(classes, per_class)._repr_html_())
    assert len(tags.pictures) == 1
    shown = min(classes, SHOWN_CLASSES) * min(per_class, SHOWN_EACH)
    assert (f"{shown} of {classes * per_class} images" in tags.text) == (shown < classes * per_class)


def test_a_drawing_counts_in_words():
    assert repr(drawing(1, 1)).startswith("Drawing(1 image of 1 class, ")
    assert repr(drawing(2, 3)).startswith("Drawing(6 images of 2 classes, ")


def test_no_repr_is_longer_than_a_screen(finished, tmp_path):
    many = dataclasses.replace(Digits().info(), class_names=tuple(map(str, range(1000))))
    recipe = finished.plan.recipe
    values = [recipe, finished.plan, finished, finished.plan.experiment, *finished.plan.stages, *finished.metrics]
    values += [many, drawing(1000, 10), Digits().open("train").read(), finished.plan.store, rarkit.parts(), recipe.evaluate]
    values.append(finished.metrics)
    for value in values:
        text = repr(value)
        assert len(text) <= SCREEN_CHARACTERS, text
        assert text.count("\n") < SCREEN_LINES, text
