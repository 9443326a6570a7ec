"""A place for results is refused before the work begins, and looking at it changes nothing."""

from __future__ import annotations

import pytest

from rarkit.errors import StoreError, UserError
from rarkit.files.writable import check_writable, writing


@pytest.mark.parametrize("place", ["a.png", "a.NPZ", "new/er/a.npz", "folder", "new/folder/", "v1.5/", "there"])
def test_a_writable_place_is_left_as_it_was(tmp_path, place):
    (tmp_path / "there").mkdir()
    check_writable(f"{tmp_path}/{place}")
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


@pytest.mark.parametrize(
    ("place", "options", "error", "message"),
    [
        ("a.jpg", {}, UserError, "has to end in .png or .npz, or a folder"),
        ("folder", {"folder": False, "suffixes": (".gif",)}, UserError, "has to end in .gif"),
        ("there.png", {}, UserError, "is a folder, but its name ends like a file's"),
        ("file/a.png", {}, StoreError, "is not a folder"),
        ("file/new/folder", {}, StoreError, "is not a folder"),
    ],
)
def test_other_places_are_refused(tmp_path, place, options, error, message):
    (tmp_path / "there.png").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(error) as refused:
        check_writable(f"{tmp_path}/{place}", **options)
    assert f"{tmp_path}/{place}" in str(refused.value)
    assert message in str(refused.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "there.png"]


def test_errors_of_the_system_become_ours():
    with (
        pytest.raises(StoreError, match=r"^a\.png cannot be written \(No space left on device\)\. Choose another place"),
        writing("a.png"),
    ):
        raise OSError(28, "No space left on device")
