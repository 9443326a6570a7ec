"""What a change touches: the counts that docs/architecture.md states, taken from parts and settings that are there."""

from __future__ import annotations

import re
import textwrap

import pytest

from rarkit.permutation_schedules.constant import Constant
from rarkit.pipeline.plan import STAGES
from rarkit.registry.loader import load
from rarkit.sampling import TokenChoice
from tests.rules import ROOT, modules, target

IMPORTERS = {
    # A built-in part is its file and a line in the list of parts.
    "scan_orders.zigzag": {"builtin"},
    "permutation_schedules.cosine": {"builtin"},
    "tokenizers.patch_kmeans": {"builtin"},
    "datasets.digits": {"builtin"},
    # A metric is its file and a line in the list of metrics.
    "evaluation.diversity": {"evaluation.metrics"},
    "evaluation.precision_recall": {"evaluation.metrics"},
    # A stage is its file and a line in the list of stages; the report reads what it shows of the output.
    "stages.fit": {"pipeline.plan", "report.fit_section", "report.publish"},
}
"""Who imports a module of rarkit."""
SETTINGS = {
    # The classifier of features is trained with values of its own.
    "gradient_clip": {"engine/settings.py", "engine/trainer.py", "features/classifier.py"},
    "end_learning_rate": {"engine/settings.py", "engine/learning_rates.py", "features/classifier.py"},
    "betas": {"engine/settings.py", "engine/optimizer.py", "features/classifier.py"},
    # The command line has an option of its own for it; others are reached by --set.
    "top_p": {"sampling/settings.py", "sampling/choice.py", "cli/sample.py"},
}
"""Which files of rarkit name a setting: its definition, its use, and who has a reason to change it."""


@pytest.mark.parametrize("module", IMPORTERS)
def test_a_part_a_metric_and_a_stage_are_one_file_and_one_line(module):
    reached = {name for name, other in modules().items() if f"rarkit.{module}" in map(target, other.imports)}
    assert {name.removeprefix("rarkit.") for name in reached} == IMPORTERS[module]


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_is_named_where_it_is_defined_and_where_it_is_used(setting):
    files = set()
    for module in modules().values():
        code = re.sub(r'"""(?:.|\n)*?"""|#.*', "", module.source)
        if re.search(rf"\b{setting}\b", code):
            files.add(str(module.path.relative_to(ROOT / "rarkit")))
    assert files == SETTINGS[setting]


def test_a_model_family_is_its_folder_and_a_line_in_the_list_of_parts():
    reached = {name for name, module in modules().items() if any("models.llama_ar" in target(one) for one in module.imports)}
    assert {name for name in reached if not name.startswith("rarkit.models.llama_ar")} == {"rarkit.builtin"}


def test_the_page_states_these_counts():
    page = (ROOT / "docs/architecture.md").read_text()
    rows = dict(re.findall(r"^\| (a [\w ,]+?) \| (\d) \|", page, re.MULTILINE))
    assert rows == {
        "a scan order, in a plugin": "1",
        "a scan order, built in": "2",
        "a training setting": "2",
        "a setting of how tokens are chosen": "2",
        "a metric": "2",
        "a stage": "2",
        "a model family": "2",
    }


def test_a_scan_order_in_a_plugin_is_one_file(tmp_path, monkeypatch):
    from importlib.metadata import EntryPoint

    (tmp_path / "one_file_plugin.py").write_text(
        textwrap.dedent("""
            from typing import Literal

            import numpy as np

            import rarkit


            class Backwards(rarkit.ScanOrder):
                "From the last cell to the first."

                name: Literal["backwards"] = "backwards"

                def order(self, height: int, width: int):
                    return np.arange(height * width)[::-1].copy()


            @rarkit.hookimpl
            def rarkit_scan_orders():
                return [Backwards]
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    parts = load([EntryPoint("one", "one_file_plugin", "rarkit")]).parts(strict=True)
    assert parts.scan_orders["backwards"]().order(1, 3).tolist() == [2, 1, 0]


def test_stages_and_choices_are_lists_of_one_kind():
    """What the counts rest on: stages come from one list, and settings of choice reach ``generate`` by name."""
    assert [stage.name for stage in STAGES] == ["fit", "tokenize", "train", "sample", "reference", "evaluate"]
    assert TokenChoice.of({"top_p": 0.5}).top_p == 0.5
    assert Constant().name == "constant"
