"""A digest of tensors tells every change of a name, dtype, shape or number, and nothing else."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rarkit.errors import WeightsError
from rarkit.files.tensor_content import check_digest, content, digest_of
from rarkit.files.weights import read_tensors, write_tensors

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]


@given(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3), st.integers(0, 99))
def test_it_is_of_the_tensors_and_not_of_how_they_lie(tmp_path_factory, dtype, shape, seed):
    tensors = {
        name: torch.from_numpy(np.asarray(np.random.default_rng([seed, index]).integers(0, 2, shape))).to(dtype)
        for index, name in enumerate(("b", "a"))
    }
    digest = digest_of(tensors)
    assert digest == digest_of({"a": tensors["a"], "b": tensors["b"]})
    # Of the same numbers in other strides.
    axes = tuple(reversed(range(len(shape))))
    turned = {name: tensor.permute(axes).contiguous() for name, tensor in tensors.items()}
    assert digest == digest_of({name: tensor.permute(axes) for name, tensor in turned.items()})
    place = tmp_path_factory.mktemp("written") / "one.safetensors"
    write_tensors(tensors, place, {})
    check_digest(read_tensors(place)[0], digest, str(place))


@given(st.sampled_from(DTYPES), st.integers(0, 5))
def test_every_change_is_told(dtype, place):
    plain = {"a": torch.zeros(2, 3, dtype=dtype), "b": torch.zeros(2, dtype=dtype)}
    changed = plain["a"].clone()
    changed.view(-1)[place] = 1
    others = [
        {**plain, "a": changed},
        {**plain, "a": plain["a"].reshape(3, 2)},
        {"a": plain["a"], "c": plain["b"]},
        {"a": plain["a"]},
        {**plain, "c": torch.zeros(0, dtype=dtype)},
    ]
    digests = {digest_of(tensors) for tensors in (plain, *others)}
    assert len(digests) == len(others) + 1
    with pytest.raises(WeightsError, match=r"one\.safetensors is damaged \(its arrays are not those that were written\)\. Export"):
        check_digest(plain, digest_of(others[0]), "one.safetensors")


def test_the_same_bytes_of_another_dtype_are_others():
    assert digest_of({"a": torch.zeros(3, dtype=torch.int16)}) != digest_of({"a": torch.zeros(3, dtype=torch.bfloat16)})


def test_the_format_stands():
    """Files that were exported are read by later versions."""
    expected = hashlib.sha256(b'["a", "float32", [2]]' + np.array([1, 2], "<f4").tobytes()).hexdigest()
    assert digest_of({"a": torch.tensor([1.0, 2.0])}) == expected
    assert bytes(content(torch.tensor([[1, 2]], dtype=torch.int16).T)) == b"\x01\0\x02\0"
