"""Processes to kill and to interrupt. They are forked from a server that has imported torch and the like once.

A fresh interpreter takes seconds to import them. What these processes run must be a function that they can import: the name of a
module of ``tests`` or rarkit, and a name in it. They have the environment that the tests began with.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import signal
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rarkit.runtime.signals import STOPPING

HANGS_AFTER = 600.0
"""Seconds after which a process is taken to hang, on the slowest of machines."""
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        *("torch._dynamo", "torch.distributed.run", "zarr", "sklearn.cluster", "sklearn.datasets", "PIL.ImageDraw", "jinja2"),
        *("rarkit.cli.app", "rarkit.builtin", "rarkit.report.publish"),
        *(
            "rarkit.engine.trainer",
            "rarkit.training.next_token",
            "rarkit.models.rar.decoding.native_steps",
            "rarkit.models.rar.decoding.prepared",
        ),
        *("rarkit.pipeline.run", "rarkit.recipe.load", "rarkit.report.page", "rarkit.cache.zarr_groups", "safetensors.torch"),
        *("torch.distributed.checkpoint", "rarkit.cli.show", "rarkit.report.terminal"),
        *("rarkit.models.rar.rar", "rarkit.models.rar.merged", "rarkit.features._classifier_network", "rarkit.training.likelihood"),
    ]
)


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it printed; the code is -N if signal N killed it."""

    returncode: int
    stdout: str
    stderr: str


def start(folder: Path, work: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Starts a process that calls ``work(*arguments)`` and leaves what it prints in ``folder``, in ``stdout`` and ``stderr``."""
    process = _server.Process(target=_work, args=(folder, work, arguments))
    process.start()
    return process


def end(folder: Path, process: BaseProcess) -> Ended:
    """Waits for a process of ``start`` to end."""
    process.join(HANGS_AFTER)
    assert process.exitcode is not None, f"process {process.pid} hangs"
    return Ended(process.exitcode, (folder / "stdout").read_text(), (folder / "stderr").read_text())


def call(folder: Path, work: Callable[..., Any], *arguments: Any) -> Ended:
    """Calls ``work(*arguments)`` in a process."""
    return end(folder, start(folder, work, *arguments))


def call_ranks(count: int, folder: Path, work: Callable[..., Any], *arguments: Any) -> Ended:
    """Calls ``work(*arguments)`` in each of ``count`` processes that torchrun's own agent starts, watches and stops.

    All print to one place; the code is that of torchrun.
    """
    return end(folder, start_ranks(count, folder, work, *arguments))


def start_ranks(count: int, folder: Path, work: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Starts what ``call_ranks`` waits for."""
    return start(folder, launched, count, folder, work, arguments)


def rarkit(*arguments: object) -> None:
    """The command ``rarkit``, for ``call`` and ``call_ranks``."""
    from rarkit.cli import main

    sys.argv = ["rarkit", *map(str, arguments)]
    main()


def rarkit_with(distributions: str, variables: dict[str, str], *arguments: object) -> None:
    """``rarkit`` where a folder of distributions is on the path, with these environment variables."""
    sys.path.insert(0, distributions)
    os.environ.update(variables)
    rarkit(*arguments)


def torchrun(variables: dict[str, str], *arguments: object) -> None:
    """The command ``torchrun``, whose ranks are interpreters of their own."""
    from torch.distributed.run import main

    os.environ.update(variables)
    main([*map(str, arguments)])


def script(path: str) -> None:
    """Runs a Python file as ``python FILE`` does in the file's own folder."""
    os.chdir(Path(path).parent)
    runpy.run_path(path, run_name="__main__")


def _work(folder: Path, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        # Ranks append to what their launcher writes.
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    # Whoever runs the tests in the background may have them ignored: SIGHUP by nohup, SIGINT by a shell.
    for number in STOPPING:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    # What the server has imported stays: the first full garbage collection would look through it, for a quarter of a second.
    gc.freeze()
    work(*arguments)


def launched(count: int, folder: Path, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Is torchrun: starts, watches and stops the ranks. For ``start``, where ``call_ranks`` would wait."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What ``torchrun --standalone`` asks for, but for how processes start.
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork",
    )
    elastic_launch(config, _work)(folder, work, arguments)
