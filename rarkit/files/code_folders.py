"""Where compiled code is kept, rarkit's own and that of ``torch.compile``: in folders to which nobody else can add.

A digest says that a library is whole, not who made it. So what is in a folder of others is not loaded: it is compiled again, in a
folder of this user or of this process.
"""

from __future__ import annotations

import atexit
import getpass
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from rarkit.errors import CapabilityError, RarkitWarning
from rarkit.files.locations import cache_folder
from rarkit.files.private import make_private, not_private, not_private_inside

Compiled = TypeVar("Compiled", bound=Callable[..., object])
INDUCTOR, TRITON = "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"


def kept_code(of: str) -> tuple[Path, str | None]:
    """The user's folder for compiled code of a kind, and why nothing in it is to be loaded, or None. Missing folders are made.

    Raises:
        OSError, RuntimeError: there is no such folder, and none can be made; or nobody has a home.
    """
    folder = cache_folder(of)
    make_private(folder)
    return folder, not_private(folder)


def temporary_folder() -> Path:
    """A new folder for compiled code of this process, for the caller to remove.

    Raises:
        CapabilityError: in all folders for temporary files, others could replace it.
        OSError: there is none.
    """
    reasons = []
    # Whoever owns the root of all folders can replace them anyway. In a container without privileges, this is not root.
    trusted = [os.stat("/").st_uid]
    for parent in dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp"]):
        if os.path.isdir(parent) and os.access(parent, os.W_OK):
            folder = Path(tempfile.mkdtemp(prefix="rarkit-code-", dir=parent))
            reason = not_private(folder, trusted)
            if reason is None:
                return folder
            folder.rmdir()
            reasons.append(reason)
    raise CapabilityError(f"there is no folder for compiled code of one's own ({'; '.join(reasons)}): set TMPDIR to one")


def torch_compiled(function: Compiled) -> Compiled:
    """``torch.compile``, whose compiled code comes from a folder of this user alone.

    Raises:
        CapabilityError: there is no such folder.
    """
    import torch

    keep_torch_private()
    return cast(Compiled, torch.compile(function))


def keep_torch_private() -> None:
    """Sees to it that ``torch.compile`` and Triton load code from folders of this user alone, and says if it had to change one.

    Which ones they use stands in environment variables, so that processes started from here use the same.

    Raises:
        CapabilityError: there is no folder for them.
    """
    usual = _usual_inductor_folder()
    named = os.environ.get(INDUCTOR) or usual
    for variable, folder in ((INDUCTOR, named), (TRITON, os.environ.get(TRITON))):
        reason = _refused(folder) if folder else None
        if folder and reason is None:
            os.environ[variable] = folder
        elif folder:
            os.environ[variable] = str(_other_folder(variable.partition("_")[0].lower()))
            _warn(folder, f"{reason}", os.environ[variable], variable)
    # There, torch keeps headers and some choices whatever the variable says: the place follows from the folder for temporary files.
    reason = _refused(usual)
    if reason is not None:
        tempfile.tempdir = os.environ["TMPDIR"] = str(_folder_of_this_process())
        if named != usual:
            _warn(usual, reason, tempfile.tempdir, "TMPDIR")


def _warn(folder: str, reason: str, instead: str, variable: str) -> None:
    warnings.warn(
        f"torch.compile does not use {folder}, where others may put code ({reason}), but {instead}. Remove that folder, or set "
        f"{variable} to one that only you may write to.",
        RarkitWarning,
        stacklevel=4,
    )


def _usual_inductor_folder() -> str:
    """As torch chooses it."""
    try:
        name = getpass.getuser()
    except (KeyError, ModuleNotFoundError, OSError):
        name = f"uid_{os.getuid()}" if hasattr(os, "getuid") else "unknown_user"
    return os.path.join(tempfile.gettempdir(), "torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", name))


def _refused(folder: str) -> str | None:
    try:
        make_private(Path(folder).absolute())
        return not_private_inside(folder)
    except OSError as error:
        return f"{error.strerror}: {error.filename}"


def _other_folder(of: str) -> Path:
    try:
        folder, reason = kept_code(of)
        if reason is None and not_private_inside(folder) is None:
            return folder
    except (OSError, RuntimeError):
        pass  # no home, or one where nothing can be written
    return _folder_of_this_process()


def _folder_of_this_process() -> Path:
    """A new folder, which is removed when the process ends."""
    folder = temporary_folder()
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, owner: int) -> None:
    # Processes that are forked from this one end too.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
