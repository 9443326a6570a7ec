"""What tokenizers with a network share: weights from files, bundles or nowhere; the range of images; small files beside them."""

from __future__ import annotations

from typing import ClassVar, final

import fsspec
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rarkit.errors import NotFetchedError, WeightsError
from rarkit.files.restraint import fetching
from rarkit.tokenizers import NetworkModel, companion, length, load_network, nearest_codes, network_state, numbered, random_weights


def network() -> nn.Sequential:
    with torch.device("meta"):
        return nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.Linear(8, 4))


def sizes(tensors):
    return {"channels": len(tensors["0.bias"])} if "0.bias" in tensors else {}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_weights_come_from_a_file_a_bundle_or_nowhere(tmp_path):
    random = load_network(network(), None)
    tensors = random.state_dict()
    assert not random.training
    assert not any(weight.requires_grad for weight in random.parameters())
    assert equal(tensors, random_weights(network().to_empty(device="cpu"), 0).state_dict())
    assert not equal(tensors, random_weights(network().to_empty(device="cpu"), 1).state_dict())
    assert tensors["1.weight"].eq(1).all()
    assert tensors["1.bias"].eq(0).all()
    torch.save(
        {"ema": {f"old.{name}": value.double() for name, value in tensors.items()} | {"extra": tensors["0.bias"]}},
        tmp_path / "a.pt",
    )
    read = load_network(network(), str(tmp_path / "a.pt"), {}, unused=("extra",), renamed=lambda name: name.removeprefix("old."))
    assert equal(read.state_dict(), tensors)
    state = network_state(random)
    assert equal(load_network(network(), str(tmp_path / "nowhere.pt"), state).state_dict(), tensors)


def test_weights_that_do_not_fit_are_told_apart(tmp_path):
    tensors = load_network(network(), None).state_dict()
    save_file({**tensors, "0.bias": torch.zeros(5)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"does not fit the tokenizer: it has 5 channels instead of 8\. Is it a\?"):
        load_network(network(), str(tmp_path / "a.safetensors"), cure="Is it a?", sizes=sizes)
    with pytest.raises(WeightsError, match="the bundle does not fit the tokenizer: missing"):
        load_network(network(), None, {"0.bias": tensors["0.bias"].numpy()})


@final
class Colours(NetworkModel):
    """Each pixel is the nearest of two colours, the codes 0 and 1; ``seen`` are the images that the network gets."""

    title: ClassVar[str] = "colours"
    network: nn.Embedding
    seen: Tensor

    def latents(self, images_BCHW: Tensor) -> Tensor:
        self.seen = images_BCHW.clone()
        return images_BCHW

    def codes(self, latents_BZHW: Tensor) -> Tensor:
        return nearest_codes(latents_BZHW, self.network.weight)

    def images(self, codes_BHW: Tensor) -> Tensor:
        return self.network(codes_BHW).permute(0, 3, 1, 2)


@final
class SignedColours(NetworkModel):
    """The same, of images from −1 to 1."""

    title: ClassVar[str] = "signed_colours"
    signed: ClassVar[bool] = True
    network: nn.Embedding
    latents, codes, images = Colours.latents, Colours.codes, Colours.images


@pytest.mark.parametrize(("kind", "low"), [(Colours, 0.0), (SignedColours, -1.0)])
def test_images_are_in_the_network_s_range_and_levels_in_bytes(kind, low):
    middle = (low + 1) / 2
    colours = torch.tensor([[low - 1, low, middle], [1.0, 2.0, middle]])
    images = torch.tensor([[0, 255, 51], [255, 255, 51], [0, 0, 255]], dtype=torch.uint8).reshape(3, 1, 1, 3)
    model = kind(nn.Embedding(2, 3, _weight=colours), "cpu", 2)
    assert model.encode(images).shape == (3, 1, 1)
    torch.testing.assert_close(model.seen, images[2:].permute(0, 3, 1, 2) / 255 * (1 - low) + low)
    codes = torch.tensor([0, 1, 1]).reshape(3, 1, 1)
    assert model.decode(codes).reshape(3, 3).tolist() == [[0, 0, 128], [255, 255, 128], [255, 255, 128]]
    down = kind(nn.Embedding(2, 3, _weight=colours), "cpu", 2, rounds=False)
    assert down.decode(codes[:1]).flatten().tolist() == [0, 0, 127]
    assert model.encode(images[:0]).shape == (0, 1, 1)


def test_what_is_not_finite_is_refused():
    model = Colours(nn.Embedding(2, 3, _weight=torch.full((2, 3), torch.nan)), "cpu", 2)
    with pytest.raises(WeightsError, match="tokenizer 'colours' decodes codes to numbers that are not finite"):
        model.decode(torch.zeros(1, 1, 1, dtype=torch.int64))


def test_a_small_file_lies_with_weights(tmp_path):
    (tmp_path / "config.json").write_bytes(b"{}")
    for place in (tmp_path, tmp_path / "a.safetensors", tmp_path / "a.safetensors.index.json"):
        assert companion(str(place), "config.json", 2) == b"{}"
    assert companion(str(tmp_path), "other.json", 2) is None
    assert companion(str(tmp_path / "nowhere"), "config.json", 2) is None
    with pytest.raises(WeightsError, match="has more than 1 bytes"):
        companion(str(tmp_path), "config.json", 1)
    fsspec.filesystem("memory").pipe_file("/companions/config.json", b"[]")
    assert companion("memory://companions", "config.json", 2) == b"[]"
    assert companion("memory://companions/a.bin", "config.json", 2) == b"[]"
    with fetching("nothing"), pytest.raises(NotFetchedError):
        companion("https://127.0.0.1:9/vqvae", "config.json", 2)


def test_layers_of_a_list_are_counted():
    tensors = dict.fromkeys(("blocks.0.weight", "blocks.11.weight", "blocks.x", "others.20.weight"), torch.zeros(1))
    assert (numbered(tensors, "blocks."), numbered(tensors, "none.")) == (12, 0)
    name = next(iter(tensors))
    axes = tensors[name].ndim
    assert [length(tensors, name, axis) for axis in range(axes + 1)] == [*tensors[name].shape, 0]
    assert length(tensors, "none", 0) == 0
