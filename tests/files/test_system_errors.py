"""Errors of the operating system: which of them may be gone when the same request is tried again."""

from __future__ import annotations

import errno
import os

import pytest

from rarkit.errors import StoreError, WriteError
from rarkit.files.system_errors import may_pass
from rarkit.pipeline.run_folder import writing_results

PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
LASTING = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.EROFS)


@pytest.mark.parametrize("number", [*PASSING, *LASTING], ids=errno.errorcode.get)
def test_what_may_pass_exits_with_1(number, tmp_path):
    """An exit code of 2 says that the request has to be changed, or what is in its way."""
    with pytest.raises(StoreError, match="cannot write results to") as refused, writing_results(tmp_path):
        raise OSError(number, os.strerror(number))
    passes = number in PASSING
    assert may_pass(refused.value.__cause__) == passes
    assert (isinstance(refused.value, WriteError), refused.value.exit_code) == ((True, 1) if passes else (False, 2))


def test_errors_of_libraries_may_pass():
    assert may_pass(RuntimeError("the server does not answer"))
    assert may_pass(OSError("no number"))
