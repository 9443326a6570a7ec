"""Where torch.compile loads code from: not from folders that others may write to."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import pytest

from rarkit.errors import CapabilityError, RarkitWarning
from rarkit.files import code_folders
from rarkit.files.code_folders import INDUCTOR, TRITON, keep_torch_private, temporary_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="owners and modes as on POSIX")


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Folders of a user: ``cache`` and ``tmp``. The variables are unset, and put back at the end."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    for variable in (INDUCTOR, TRITON):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    # Removed at the end of the process otherwise, when these folders are gone.
    monkeypatch.setattr(code_folders.atexit, "register", lambda *arguments: None)
    return tmp_path


def inductor_folder():
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return Path(cache_dir())


def test_the_usual_folder_stays_and_is_made_for_this_user_alone(places):
    usual = inductor_folder()
    usual.rmdir()
    del os.environ[INDUCTOR]
    with warnings.catch_warnings(action="error"):
        keep_torch_private()
    assert inductor_folder() == usual
    assert usual.parent == places / "tmp"
    assert usual.stat().st_mode & 0o777 == 0o700
    # Files that a umask of 002 leaves open to a group are out of its reach.
    (usual / "kernel.so").touch()
    (usual / "kernel.so").chmod(0o664)
    keep_torch_private()
    assert inductor_folder() == usual


@pytest.mark.parametrize("variable", [INDUCTOR, TRITON])
@pytest.mark.parametrize("planted", ["folder", "file"])
def test_a_folder_that_others_may_write_to_is_not_used(places, monkeypatch, variable, planted):
    shared = places / "shared"
    shared.mkdir()
    (shared / "kernel.so").touch()
    (shared if planted == "folder" else shared / "kernel.so").chmod(0o777)
    monkeypatch.setenv(variable, str(shared))
    with pytest.warns(RarkitWarning, match=f"does not use {shared}, .*writable by others") as said:
        keep_torch_private()
    assert len(said) == 1
    chosen = Path(os.environ[variable])
    assert chosen.parent == places / "cache/rarkit"
    assert chosen.stat().st_mode & 0o777 == 0o700
    assert variable == TRITON or inductor_folder() == chosen
    assert list(shared.iterdir()) == [shared / "kernel.so"]
    # Said once: it is in the environment from now on.
    with warnings.catch_warnings(action="error"):
        keep_torch_private()


@pytest.mark.parametrize("named", [False, True])
def test_somebody_elses_folder_under_the_usual_name_is_not_used(places, monkeypatch, named):
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    usual = inductor_folder()
    del os.environ[INDUCTOR]
    if os.geteuid() == 0:
        os.chown(usual, 54321, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 54321)
        monkeypatch.setattr(code_folders, "_other_folder", lambda of: places / "other")
        monkeypatch.setattr(code_folders, "_folder_of_this_process", lambda: places / "process")
    if named:
        monkeypatch.setenv(INDUCTOR, str(places / "mine"))
    with pytest.warns(RarkitWarning, match=f"does not use {usual}, .*belongs to another user"):
        keep_torch_private()
    assert os.environ[INDUCTOR] != str(usual)
    # Precompiled headers are there, whatever the variable says.
    assert Path(default_cache_dir()).name == usual.name
    assert default_cache_dir() != str(usual)
    assert os.environ["TMPDIR"] == os.path.dirname(default_cache_dir())


def test_without_a_folder_of_the_user_the_process_has_its_own(places, monkeypatch):
    for name in ("shared", "cache"):
        (places / name).mkdir()
        (places / name).chmod(0o777)
    monkeypatch.setenv(INDUCTOR, str(places / "shared"))
    with pytest.warns(RarkitWarning, match="does not use"):
        keep_torch_private()
    chosen = inductor_folder()
    assert chosen.parent == places / "tmp"
    assert chosen.stat().st_mode & 0o777 == 0o700
    code_folders._remove(chosen, os.getpid() + 1)
    assert chosen.is_dir()
    code_folders._remove(chosen, os.getpid())
    assert not chosen.exists()


def test_a_folder_for_temporary_files_where_others_may_replace_things_is_passed_over(places, monkeypatch):
    (places / "tmp").chmod(0o777)
    folder = temporary_folder()
    folder.rmdir()
    assert folder.parent in (Path("/tmp"), Path("/var/tmp"))
    assert list((places / "tmp").iterdir()) == []
    monkeypatch.setattr(code_folders, "not_private", lambda *arguments: "all is open")
    with pytest.raises(CapabilityError, match=r"all is open.*set TMPDIR"):
        temporary_folder()
