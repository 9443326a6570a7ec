"""The Inception network of FID, and the reference statistics of OpenAI's ADM evaluator.

Shape letters: B batch, H, W, C height, width, channels of an image, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, final

from rarkit.errors import DatasetError, GridError, WeightsError, sentences
from rarkit.features.base import FeatureExtractor, FeatureModel, Features, LearnedState
from rarkit.features.reference_batch import ReferenceBatch
from rarkit.files.tensor_mismatches import check_tensors
from rarkit.files.weight_files import local_copy
from rarkit.files.weights import checksum, read_tensors
from rarkit.images import ImageInfo
from rarkit.registry.bounds import Batch
from rarkit.registry.component import Location, NotInFingerprint

if TYPE_CHECKING:
    from torch import Tensor

    from rarkit.features._inception_network import InceptionNetwork

RELEASED = "pt_inception-2015-12-05-6726825d.pth"
WIDTHS = {"features": 2048, "spatial": 17 * 17 * 7}
"""How many features there are of each kind."""
COUNTER = "num_batches_tracked"
"""Entries of batch normalisation that only training uses; the published file may or may not hold them."""


@final
class Inception(FeatureExtractor):
    """The Inception-v3 of 2015 in which FID is defined, with the weights that pytorch-fid converted from TensorFlow's graph.

    It takes from the graph what OpenAI's ADM evaluator takes: images resized to 299 × 299 as TensorFlow 1 does, ``pool_3`` for FID,
    precision and recall, 7 channels of ``mixed_6/conv`` for sFID, class scores without bias for the inception score. With
    ``reference``, FID and sFID are against its statistics of all of ImageNet's training images.
    """

    name: Literal["inception"] = "inception"
    weights: Annotated[Location | None, NotInFingerprint()]
    """The published ``pt_inception-2015-12-05-6726825d.pth``; null means random weights (in rehearsals), and no distance is FID."""
    reference: Annotated[Location | None, NotInFingerprint()] = None
    """A reference batch of the ADM evaluator, such as ``VIRTUAL_imagenet256_labeled.npz``; the training images by default.

    With statistics alone (``mu``, ``sigma``), precision and recall are left out; without ``mu_s`` and ``sigma_s``, sFID too."""
    network_batch: Annotated[Batch, NotInFingerprint(tolerance=1e-4)] = 32
    """Images per pass of the network; bounds memory."""

    knows_classes: ClassVar[bool] = False

    def distance_names(self) -> dict[str, str]:
        if self.weights is None:
            return {"features": "frechet_distance", "spatial": "spatial_frechet_distance"}
        return {"features": "fid", "spatial": "sfid"}

    def content(self) -> Any:
        content, errors = {}, []
        for setting, read in (("weights", self._checksum), ("reference", self._reference_content)):
            try:
                content[setting] = read()
            except (WeightsError, DatasetError) as error:
                errors.append(str(error))
        if errors:
            raise WeightsError(sentences(*errors))
        return content

    def _checksum(self) -> str | None:
        return None if self.weights is None else checksum(self.weights)

    def _reference_content(self) -> Any:
        batch = self.reference_batch()
        return None if batch is None else batch.content()

    def rehearsed(self) -> Self:
        return self.model_copy(update={"weights": None, "reference": None})

    def check_images(self, info: ImageInfo) -> None:
        if info.channels not in (1, 3):
            raise GridError(f"feature extractor 'inception' takes grey or colour images, not {info.channels} channels")

    def reference_batch(self) -> ReferenceBatch | None:
        return None if self.reference is None else ReferenceBatch(self.reference, WIDTHS)

    def build(self, state: LearnedState, device: str) -> FeatureModel:
        return InceptionModel(self.network(), device, self.network_batch)

    def network(self) -> InceptionNetwork:
        """The network with its weights, on the CPU.

        Raises:
            WeightsError: the file is missing, damaged, or not of this network.
        """
        import torch

        from rarkit.features._inception_network import InceptionNetwork

        with torch.device("meta"):
            network = InceptionNetwork()
        expected = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(COUNTER)}
        if self.weights is None:
            network.to_empty(device="cpu").initialise(0)
        else:
            read, _ = read_tensors(local_copy(self.weights))
            tensors = {name: tensor.float() for name, tensor in read.items() if not name.endswith(COUNTER)}
            check_tensors(self.weights, "Inception network", expected, tensors, lambda _: f"Is it {RELEASED}?", _sizes)
            counters = {name: torch.zeros_like(tensor, device="cpu") for name, tensor in network.state_dict().items()}
            counters = {name: tensor for name, tensor in counters.items() if name.endswith(COUNTER)}
            network.load_state_dict({**counters, **tensors}, assign=True)
        return network.eval().requires_grad_(False)


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    return {"class scores": len(tensors["fc.bias"])} if "fc.bias" in tensors and tensors["fc.bias"].ndim else {}


@final
class InceptionModel(FeatureModel):
    """Runs the network in float32, in bounded batches."""

    def __init__(self, network: InceptionNetwork, device: str, batch_size: int) -> None:
        import torch

        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device, self.batch_size = device, batch_size

    def __call__(self, images_BHWC: Tensor) -> Features:
        import torch

        # Otherwise a GPU rounds factors to TF32, which has ten bits.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            seen = [self.network(self._channels_first(part)) for part in images_BHWC.split(self.batch_size)]  # type: ignore[no-untyped-call]
        features, spatial, logits = (torch.cat(parts) for parts in zip(*seen, strict=True))
        return Features(features, logits, spatial)

    def _channels_first(self, images_BHWC: Tensor) -> Tensor:
        images_BCHW = images_BHWC.to(self.device).permute(0, 3, 1, 2).float()
        return images_BCHW.expand(-1, 3, -1, -1)
