"""Whether others may change what lies at a path, on real folders."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.files.private import make_private, not_private, not_private_inside

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="owners and modes as on POSIX")
ANOTHER = 54321


@pytest.fixture
def given_away(monkeypatch):
    """A function that gives a file to another user, as root; others become another user themselves."""

    def give_away(path):
        if os.geteuid() == 0:
            os.chown(path, ANOTHER, -1, follow_symlinks=False)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: ANOTHER)

    return give_away


@given(modes=st.lists(st.sampled_from([0o700, 0o755, 0o775, 0o757, 0o1777, 0o1775, 0o2755]), min_size=1, max_size=4))
@settings(max_examples=30)
def test_each_folder_on_the_way_counts_and_sticky_ones_only_at_its_end(tmp_path_factory, modes):
    folder = tmp_path_factory.mktemp("way")
    for mode in modes:
        folder = folder / "folder"
        folder.mkdir()
        folder.chmod(mode)
    open_to_others = [mode & 0o022 and not mode & 0o1000 for mode in modes[:-1]] + [modes[-1] & 0o022]
    reason = not_private(folder)
    assert (reason is not None) == any(open_to_others), (list(map(oct, modes)), reason)
    file = folder / "file"
    file.touch(0o600)
    # Nobody else replaces a file of this user in a sticky folder.
    assert (not_private(file) is not None) == any(mode & 0o022 and not mode & 0o1000 for mode in modes)


def test_the_reason_names_what_is_open(tmp_path):
    (tmp_path / "shared/mine").mkdir(parents=True)
    (tmp_path / "shared/mine").chmod(0o755)
    (tmp_path / "shared").chmod(0o775)
    assert not_private(tmp_path / "shared/mine") == f"{tmp_path / 'shared'} is writable by its group"
    (tmp_path / "shared").chmod(0o757)
    assert not_private(tmp_path / "shared/mine") == f"{tmp_path / 'shared'} is writable by others"


@pytest.mark.parametrize("what", ["folder", "folder/inside", "folder/inside/file"])
def test_what_belongs_to_another_is_not_private(tmp_path, given_away, what):
    (tmp_path / "folder/inside").mkdir(parents=True, mode=0o755)
    (tmp_path / "folder/inside/file").touch(0o600)
    given_away(tmp_path / what)
    assert "belongs to another user" in not_private(tmp_path / "folder/inside/file")


def test_another_may_be_trusted(tmp_path, given_away):
    given_away(tmp_path)
    own = {os.stat(tmp_path).st_uid, os.stat(tmp_path.parent).st_uid, os.stat(tmp_path.parent.parent).st_uid}
    assert not_private(tmp_path, own) is None


def test_the_way_through_a_link_counts_and_so_does_its_target(tmp_path, monkeypatch):
    for name in ("mine/code", "shared/code", "links"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "shared").chmod(0o777)
    (tmp_path / "links/to_mine").symlink_to(tmp_path / "mine")
    (tmp_path / "links/to_shared").symlink_to("../shared/code")
    (tmp_path / "links/up").symlink_to("../mine/code/../code")
    (tmp_path / "shared/to_mine").symlink_to(tmp_path / "mine/code")
    assert not_private(tmp_path / "links/to_mine/code") is None
    assert not_private(tmp_path / "links/up") is None
    assert not_private(tmp_path / "links/to_shared") == f"{tmp_path / 'shared'} is writable by others"
    assert not_private(tmp_path / "shared/to_mine") == f"{tmp_path / 'shared'} is writable by others"
    monkeypatch.chdir(tmp_path / "links")
    assert not_private("to_mine/../mine/./code") is None
    assert "shared" in not_private("../shared/code")


def test_a_link_of_another_can_be_turned_by_them(tmp_path, given_away):
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to("mine")
    given_away(tmp_path / "link")
    assert "belongs to another user" in not_private(tmp_path / "link")


def test_links_in_a_circle_and_what_is_not_there_are_errors(tmp_path):
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    for name in ("one", "nothing/folder"):
        with pytest.raises(OSError, match=f"Too many levels|{name.partition('/')[0]}"):
            not_private(tmp_path / name)


def test_everything_in_a_folder_counts(tmp_path, given_away):
    (tmp_path / "code/deep").mkdir(parents=True)
    for folder in (tmp_path / "code", tmp_path / "code/deep"):
        folder.chmod(0o755)
    file = tmp_path / "code/deep/kernel.so"
    file.touch()
    file.chmod(0o664)
    assert not_private_inside(tmp_path / "code") == f"{file} is writable by its group"
    # Nobody else gets to it through a folder that is shut.
    (tmp_path / "code").chmod(0o700)
    assert not_private_inside(tmp_path / "code") is None
    given_away(file)
    assert "belongs to another user" in not_private_inside(tmp_path / "code")


def test_folders_are_made_for_this_user_alone(tmp_path):
    before = os.umask(0o002)
    try:
        make_private(tmp_path / "one/two")
        make_private(tmp_path / "one/two/three")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("one", "one/two", "one/two/three")] == [0o700] * 3
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        make_private(tmp_path / "file/folder")
