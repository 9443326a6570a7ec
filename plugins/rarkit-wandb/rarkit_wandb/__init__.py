"""Weights & Biases as a tracker for rarkit, offline unless the recipe says otherwise and whoever runs it allows that.

Shape letters: H, W, C height, width, channels of a picture.
"""

from __future__ import annotations

import os
import secrets
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Literal, final

from pydantic import Field

from rarkit import OpenTracker, TrackedRun, Tracker, hookimpl
from rarkit.errors import CapabilityError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

requires_rarkit = ">=0.1,<0.2"
ID, LAST = "run-id", "last-step"
"""Files in the tracker's folder: the id of the run, and the last step that W&B was told."""


@final
class WandB(Tracker):
    """Weights & Biases: kept on this machine, to be sent by ``wandb sync``, or sent while the training runs.

    Needs ``pip install wandb``, and to send anything a key (``wandb login``) and the consent of whoever runs the recipe.
    """

    name: Literal["wandb"] = "wandb"
    """Selects this tracker."""
    mode: Literal["offline", "online"] = "offline"
    """Offline, nothing leaves this machine; online, settings, numbers and pictures are sent."""
    project: Annotated[str, Field(min_length=1, max_length=128)] = "rarkit"
    """The project to which runs belong."""
    entity: str | None = None
    """The user or team that the project belongs to. Defaults to W&B's own default."""

    def sends_to(self) -> str | None:
        if self.mode == "offline":
            return None
        return os.environ.get("WANDB_BASE_URL") or "Weights & Biases"

    def capability(self, device: str, dtype: str) -> str | None:
        return None if find_spec("wandb") is not None else "wandb is not installed: pip install wandb"

    def open(self, run: TrackedRun) -> OpenTracker:
        # Otherwise W&B reports its own errors to its makers even offline. It reads this when it is imported.
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        import wandb

        if self.mode == "online" and not wandb.login(prompt=False, verify=False):
            raise CapabilityError('W&B has no key here: run "wandb login", or set mode = "offline".')
        last = _read(run.folder / LAST) if run.step else None
        name = _read(run.folder / ID) if run.step else None
        name = name or secrets.token_hex(8)
        _write(run.folder / ID, name)
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            save_code=False,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
        )
        opened = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,
            name=run.recipe if run.stage == "train" else f"{run.recipe} ({run.stage})",
            id=name,
            resume="allow" if run.step else None,
            config=dict(run.settings),
            dir=run.folder,
            settings=settings,
            # Not one that the process has open for another purpose.
            reinit="create_new",
        )
        return _OpenRun(opened, run.folder / LAST, -1 if last is None else int(last))


@final
class _OpenRun(OpenTracker):
    def __init__(self, run: Any, path: Path, last: int) -> None:
        self._run, self._path, self._last = run, path, last

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        # W&B's history is never changed: what an interrupted training told stays.
        if step > self._last:
            self._run.log(dict(numbers), step=step)
            _write(self._path, str(step))

    def image(self, step: int, name: str, image_HWC: NDArray[np.uint8]) -> None:
        import wandb

        if step > self._last:
            self._run.log({name: wandb.Image(image_HWC.squeeze(2) if image_HWC.shape[2] == 1 else image_HWC)}, step=step)

    def close(self) -> None:
        self._run.finish()


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all, and through no link that somebody may have put there."""
    new = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    with new.open("x") as file:
        file.write(text)
    os.replace(new, path)


@hookimpl
def rarkit_trackers() -> list[type[Tracker]]:
    """Adds the tracker to rarkit."""
    return [WandB]
