"""Errors of the operating system: what they say about the machine, and that they say nothing about the data."""

from __future__ import annotations

import errno
import os
import re

_CURES = {
    errno.EMFILE: "Allow this process more open files: ulimit -n 4096.",
    errno.ENFILE: "The machine has too many open files: close some programs.",
    errno.ENOMEM: "Free some memory.",
    errno.ENOSPC: "Free some space.",
    errno.EDQUOT: "Free some space, or raise the quota.",
    errno.EFBIG: "Files may not be so large here: raise the limit (ulimit -f), or choose another disk.",
    errno.EACCES: "Check its permissions.",
    errno.EPERM: "Check its permissions.",
    errno.EIO: "The disk or the network failed: check it, and try again.",
}


def cure_of(error: BaseException, default: str) -> str:
    """What to do about an error of the operating system, as a sentence; ``default`` for all others."""
    return _CURES.get(error.errno or 0, default) if isinstance(error, OSError) else default


def may_pass(error: BaseException) -> bool:
    """Whether the same request can succeed later: room, memory or a device were lacking, or a library could not reach its server.

    The system's other errors (permissions, links, folders in the place of files) are of what was asked for.
    """
    if not isinstance(error, OSError) or error.errno is None:
        return True
    return error.errno in _CURES and error.errno not in (errno.EACCES, errno.EPERM)


def system_error(error: BaseException) -> OSError | MemoryError | None:
    """The operating system's error in an exception; None if the exception may be about the content of what was read.

    Libraries raise OSErrors about content too (Pillow: "image file is truncated"), but those have no number. Torch reports
    errors of the system as RuntimeErrors that end in text and number: "…: Too many open files (24)".
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
        return error
    if isinstance(error, RuntimeError):
        text = str(error).partition("\n")[0]
        told = re.search(r": ([^:]+) \((\d+)\)\.?$", text)
        if told is not None and os.strerror(int(told[2])) == told[1]:
            return OSError(int(told[2]), told[1])
        if "can't allocate memory" in text or "out of memory" in text:
            return MemoryError(text)
    return None
