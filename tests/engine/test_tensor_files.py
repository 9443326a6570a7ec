"""Files of pieces of tensors: whatever a header claims, it is believed only as far as the file goes."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.engine.tensor_files import Piece, header, ordered, read_header, whole_shape

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=3)


@st.composite
def cut(draw):
    """The pieces that cuts along each axis of a tensor leave, in any order, and its shape."""
    lengths = draw(st.lists(LENGTHS, min_size=1, max_size=3))
    edges = [[0, *itertools.accumulate(of_axis)] for of_axis in lengths]
    boxes = itertools.product(*(list(itertools.pairwise(of_axis)) for of_axis in edges))
    shape = tuple(of_axis[-1] for of_axis in edges)
    pieces = []
    for box in boxes:
        offsets, sizes = tuple(begin for begin, _ in box), tuple(end - begin for begin, end in box)
        pieces.append(Piece("a.b", torch.float32, offsets, sizes, sizes == shape))
    return draw(st.permutations(pieces)), shape


@given(cut())
def test_pieces_make_up_the_tensor_that_was_cut(pieces_and_shape):
    pieces, shape = pieces_and_shape
    assert whole_shape(pieces) == shape


@given(cut(), st.data())
def test_pieces_that_overlap_or_leave_something_out_are_refused(pieces_and_shape, data):
    pieces, shape = pieces_and_shape
    if len(pieces) == 1:
        return
    changed = data.draw(st.sampled_from(pieces))
    others = [piece for piece in pieces if piece != changed]
    axis = data.draw(st.integers(0, len(shape) - 1))
    moved, longer = list(changed.offsets), list(changed.shape)
    moved[axis] += 1
    longer[axis] += 1
    wrong = [
        [*pieces, changed],
        [*others, Piece("a.b", torch.float32, tuple(moved), changed.shape, False)],
        [*others, Piece("a.b", torch.float16, changed.offsets, changed.shape, False)],
        [*pieces, Piece("a.b", torch.float32, (0,) * len(shape), shape, True)],
        [*others, Piece("a.b", torch.float32, changed.offsets, (0, *changed.shape[1:]), False)],
    ]
    if changed.offsets[axis] + changed.shape[axis] < shape[axis]:
        wrong.append([*others, Piece("a.b", torch.float32, changed.offsets, tuple(longer), False)])
    for pieces_of_it in wrong:
        with pytest.raises(ValueError, match=r"the pieces of tensor 'a\.b'|is there more than once"):
            whole_shape(pieces_of_it)


@given(cut())
def test_a_header_is_read_as_it_was_written(pieces_and_shape):
    pieces = ordered(pieces_and_shape[0])
    data = header(pieces) + bytes(sum(piece.nbytes for piece in pieces))
    read = read_header(lambda start, stop: data[start:stop], len(data))
    assert [(piece.key, piece.dtype, piece.nbytes) for piece in read] == [(p.key, p.dtype, p.nbytes) for p in pieces]
    assert whole_shape(read) == pieces_and_shape[1]
    assert all(piece.start % piece.dtype.itemsize == 0 for piece in read)


def file(entries, data=b"", length=None):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(shape=(2,), offsets=(0, 8), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HOSTILE = {
    "nothing": b"",
    "a_length_alone": (2**63).to_bytes(8, "little"),
    "a_huge_header": file({}, length=2**40),
    "a_header_beyond_the_file": file({}, length=100),
    "no_json": file(b"{"),
    "deep": file(b'{"a":' * 100_000),
    "a_list": file(b"[]"),
    "many_tables": file(b"{" + b",".join(b'"%d":{}' % number for number in range(300_000)) + b"}"),
    "terabytes": file({"a": entry((2**62,), (0, 2**62))}, bytes(8)),
    "more_than_there_is_in_many_axes": file({"a": entry((2**62,) * 8, (0, 8))}, bytes(8)),
    "axes_without_an_end": file({"a": entry((1,) * 1000 + (2,))}, bytes(8)),
    "overlapping": file({"a": entry(), "b": entry()}, bytes(8)),
    "a_hole": file({"a": entry(), "b": entry(offsets=(16, 24))}, bytes(24)),
    "backwards": file({"a": entry(offsets=(8, 0))}, bytes(8)),
    "negative": file({"a": entry((-2,), (0, 8))}, bytes(8)),
    "something_behind": file({"a": entry()}, bytes(9)),
    "too_short": file({"a": entry()}, bytes(7)),
    "an_unknown_type": file({"a": entry(dtype="C64")}, bytes(8)),
    "a_shape_that_is_text": file({"a": entry(("2",))}, bytes(8)),
    "a_place_of_another_shape": file({"a[0:3]": entry()}, bytes(8)),
    "a_place_of_other_axes": file({"a[0:2,0:1]": entry()}, bytes(8)),
    "a_place_beyond_all": file({f"a[{10**30}:{10**30 + 2}]": entry()}, bytes(8)),
    "a_name_that_steers": file({"\x1b[31m": entry()}, bytes(8)),
    "a_name_without_an_end": file({"a" * 10**6: entry()}, bytes(8)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_one_short_error(name):
    data = HOSTILE[name]
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        read_header(lambda start, stop: data[start:stop], len(data))
    assert type(refused.value) is ValueError
    assert len(str(refused.value)) < 300


@settings(max_examples=200)
@given(st.binary(max_size=40), st.integers(0, 60), st.integers(0, 255))
def test_whatever_is_changed_a_header_claims_no_more_than_the_file_has(noise, place, value):
    data = bytearray(file({"a[4:6]": entry(), "b": entry((2, 1), (8, 16)), "c": entry((0,), (16, 16))}, bytes(16)))
    data[place] = value
    data[place : place + len(noise) // 8] = noise[: len(noise) // 8]
    try:
        pieces = read_header(lambda start, stop: bytes(data[start:stop]), len(data))
    except ValueError:
        return
    assert all(piece.start >= 0 and piece.start + piece.nbytes <= len(data) for piece in pieces)
    assert all(piece.nbytes == math.prod(piece.shape) * piece.dtype.itemsize for piece in pieces)
