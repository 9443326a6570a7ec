"""TensorBoard's event files."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rarkit.trackers.base import OpenTracker, TrackedRun, Tracker

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVENTS = re.compile(r"events\.out\.tfevents\.(\d{1,12})\.")
"""The beginning of the names of event files."""
INSTALL = 'TensorBoard is not installed: pip install "rarkit[tensorboard]"'


@final
class TensorBoard(Tracker):
    """TensorBoard's event files, on this machine: ``tensorboard --logdir runs`` shows those of all recipes in a browser.

    A training that goes on hides what was told of later steps before. Needs ``pip install "rarkit[tensorboard]"``.
    """

    name: Literal["tensorboard"] = "tensorboard"
    flush_seconds: Annotated[int, Field(ge=1, le=86400)] = 10
    """Seconds after which what is new is written to the file, at the latest."""

    def capability(self, device: str, dtype: str) -> str | None:
        return None if find_spec("tensorboard") is not None else INSTALL

    def open(self, run: TrackedRun) -> OpenTracker:
        from torch.utils.tensorboard import SummaryWriter

        _wait_for_another_second(run.folder)
        # TensorBoard hides what was written before of this step and later ones.
        writer = SummaryWriter(str(run.folder), purge_step=run.step, flush_secs=self.flush_seconds)
        if run.step == 0:
            lines = json.dumps(run.settings, indent=2, ensure_ascii=False).splitlines()
            # Markdown, in which four spaces begin a line of code.
            writer.add_text("recipe", "\n".join(f"    {line}" for line in lines), 0)
        return _Events(writer)


def _wait_for_another_second(folder: Path) -> None:
    """TensorBoard reads the files of a folder in the order of their names, which begin with the second in which they were made."""
    made = [int(name[1]) for path in folder.iterdir() if (name := EVENTS.match(path.name))]
    if made and 0 <= (ahead := max(made) + 1 - time.time()) <= 1:
        time.sleep(ahead)


@final
class _Events(OpenTracker):
    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, number in numbers.items():
            self._writer.add_scalar(name, number, step)

    def image(self, step: int, name: str, image_HWC: NDArray[np.uint8]) -> None:
        self._writer.add_image(name, image_HWC, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()
