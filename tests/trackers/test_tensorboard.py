"""TensorBoard's event files, read by TensorBoard itself."""

from __future__ import annotations

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rarkit import TrackedRun
from rarkit.testing import TrackerSuite
from rarkit.trackers import tensorboard
from rarkit.trackers.tensorboard import TensorBoard


def read(folder):
    events = EventAccumulator(str(folder), {"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    return events


class TestTensorBoard(TrackerSuite):
    parts = (TensorBoard(),)

    def tracked(self, folder):
        events = read(folder)
        return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_pictures_and_the_recipe_are_shown(tmp_path):
    grey_HWC, colour_HWC = (np.zeros((4, 6, channels), np.uint8) for channels in (1, 3))
    with TensorBoard().open(TrackedRun("r", tmp_path, {"title": "Größe"})) as tracker:
        tracker.image(3, "previews/grey", grey_HWC)
        tracker.image(3, "previews/colour", colour_HWC)
    events = read(tmp_path)
    sizes = {name: [(one.step, one.height, one.width) for one in events.Images(name)] for name in events.Tags()["images"]}
    assert sizes == {"previews/grey": [(3, 4, 6)], "previews/colour": [(3, 4, 6)]}
    [text] = events.Tensors("recipe/text_summary")
    assert '    "title": "Größe"' in text.tensor_proto.string_val[0].decode()


def test_a_training_that_begins_again_takes_the_place_of_the_one_before(tmp_path):
    for steps in (range(5), range(2)):
        with TensorBoard().open(TrackedRun("r", tmp_path, {})) as tracker:
            for step in steps:
                tracker.log(step, {"loss": 1.0})
    events = read(tmp_path)
    assert [event.step for event in events.Scalars("loss")] == [0, 1]


def test_a_missing_library_is_known_before_anything_runs(monkeypatch):
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    assert TensorBoard().capability("cpu", "float32") == 'TensorBoard is not installed: pip install "rarkit[tensorboard]"'


@pytest.mark.parametrize("seconds", [0, -1, 10**6, 0.5])
def test_files_are_written_now_and_then(seconds):
    with pytest.raises(ValueError, match="flush_seconds"):
        TensorBoard(flush_seconds=seconds)
