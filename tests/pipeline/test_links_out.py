"""Links that lead out of the data's folder stand in the plan and on the page of a run."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import rarkit
from rarkit.cli.show import plan_as_json, print_plan
from rarkit.estimate.estimate import estimate
from rarkit.recipe.load import load_recipe
from tests.hostile.entry import SMALL


@pytest.mark.filterwarnings("ignore:.*held out for testing:rarkit.errors.RarkitWarning")
@pytest.mark.parametrize("linked", [True, False])
def test_links_out_of_the_data_are_told(tmp_path, linked, capsys):
    for number in range(8):
        path = tmp_path / f"data/{number % 2}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(path)
    if linked:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "data/0/0.png").rename(tmp_path / "elsewhere/0.png")
        (tmp_path / "data/0/0.png").symlink_to("../../elsewhere/0.png")
    dataset = f"dataset={{name='image_folder', path='{tmp_path}/data', size=4, workers=0, test_fraction=0.5}}"
    recipe = load_recipe(str(SMALL), [dataset, "train.steps=1", "sample.per_class=8"], unset=["evaluate"])
    plan = rarkit.plan(recipe, store=str(tmp_path / "store"))
    needed = estimate(plan)
    print_plan(plan, needed)
    run = rarkit.run(recipe, store=str(tmp_path / "store"), runs=tmp_path / "runs", device="cpu", quiet=True)
    page, text = (run.folder / "report.html").read_text(), capsys.readouterr().out
    told = f"1 link leads out of the data's folder: 1 to {tmp_path}/elsewhere."
    assert plan_as_json(plan, needed)["links_out"] == ({f"{tmp_path}/elsewhere": 1} if linked else {})
    assert (told in text) == (told in page.replace("&#39;", "'")) == linked
