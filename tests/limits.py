"""Runs what reads hostile files in a process of little memory."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable

from rarkit.errors import UserError

MEMORY = 2**28
"""Bytes that reading may take besides what this process has."""


def refusal(read: Callable[[], object]) -> str:
    """The message of the UserError that ``read`` raises, in a fork of this process that may take ``MEMORY`` more than it has."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        message = "it was not refused"
        try:
            with open("/proc/self/statm") as file:
                data = int(file.read().split()[5]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_DATA, (data + MEMORY, data + MEMORY))
            read()
        except UserError as error:
            message = f"refused: {error}"
        except BaseException as error:
            message = f"not as an error of the user: {error!r}"
        finally:
            os.write(sending, message.encode("utf-8", "backslashreplace")[:60_000])
            os._exit(0)
    os.close(sending)
    with os.fdopen(receiving) as file:
        message = file.read()
    os.waitpid(child, 0)
    assert message.startswith("refused: "), message
    assert message.count("\n") <= 2, message
    return message.removeprefix("refused: ")
