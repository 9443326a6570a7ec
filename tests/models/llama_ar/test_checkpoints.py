"""Weights from files: the same model back, and clear errors where they are of another one."""

from __future__ import annotations

import pytest
import torch

from rarkit.errors import WeightsError
from rarkit.files.weights import write_tensors
from rarkit.models import RAR, RARConfig, load_llama_ar
from tests.models.llama_ar.small import TINY, lively


@pytest.fixture
def write(tmp_path):
    """Writes tensors with a model's metadata, and returns the path."""

    def _write(tensors, metadata=None, name="model.safetensors"):
        path = tmp_path / name
        write_tensors(tensors, path, lively().metadata() if metadata is None else metadata)
        return path

    return _write


def test_a_folder_stands_for_its_file_and_weights_keep_their_bits(write, tmp_path):
    model = lively()
    write(model.state_dict())
    loaded = load_llama_ar(tmp_path, TINY)
    assert not loaded.training
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
    assert loaded.state_dict().keys() == model.state_dict().keys()


def test_dropout_may_differ_from_the_file(write):
    path = write(lively().state_dict())
    config = TINY.model_copy(update={"dropout": 0.5, "attention_dropout": 0.0, "class_dropout": 0.3})
    assert load_llama_ar(path, config).config == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": (4, 3)}, r"grid = \(3, 4\) \(here \(4, 3\)\).*\[model\]"),
        ({"num_heads": 4}, r"num_heads = 2 \(here 4\)"),
        (
            {"rope_theta": 500.0, "rms_norm_eps": 1e-6},
            r"rms_norm_eps = 1e-05 \(here 1e-06\), rope_theta = 10000\.0 \(here 500\.0\)",
        ),
        ({"depth": 1}, r"does not fit the model: it has 2 blocks \(depth\) instead of 1\. Set \[model\] to the sizes"),
        ({"depth": 3}, r"it has 2 blocks \(depth\) instead of 3\."),
        ({"codebook_size": 21}, r"it has 20 codes instead of 21\..* Use the tokenizer"),
        ({"num_classes": 4}, r"it has 5 classes instead of 4\..* Use a dataset with the classes"),
        ({"hidden_size": 64, "mlp_hidden_size": 96}, r"32 channels \(hidden_size\) instead of 64, 48 MLP channels"),
    ],
)
def test_other_sizes_are_refused_where_shapes_do_not_show_them_too(write, change, message):
    path = write(lively().state_dict())
    with pytest.raises(WeightsError, match=message):
        load_llama_ar(path, TINY.model_copy(update=change))


def test_files_that_say_nothing_of_their_sizes_are_taken_by_their_shapes(write):
    path = write(lively().state_dict(), {}, "model.bin")
    assert load_llama_ar(path, TINY.model_copy(update={"rope_theta": 500.0})).config.rope_theta == 500.0


def test_another_familys_file_is_refused(write):
    sizes = {"hidden_size": 32, "depth": 2, "num_heads": 2, "mlp_hidden_size": 48, "seq_len": 12}
    other = RAR(RARConfig(**sizes, codebook_size=20, num_classes=5))
    with pytest.raises(WeightsError, match=r"missing: model\.embed_tokens\.weight.*unexpected: adaln_before_head"):
        load_llama_ar(write(other.state_dict(), other.metadata()), TINY)
    with pytest.raises(WeightsError, match=r"is not that of this model .*\. Use a file that rarkit exported"):
        load_llama_ar(write(lively().state_dict(), other.metadata()), TINY)


def test_whole_numbers_are_no_weights(write):
    tensors = {name: tensor.long() if name == "lm_head.weight" else tensor for name, tensor in lively().state_dict().items()}
    with pytest.raises(WeightsError, match=r"wrong dtype: lm_head\.weight is torch\.int64"):
        load_llama_ar(write(tensors), TINY)
