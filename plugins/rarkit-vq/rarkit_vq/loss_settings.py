"""The settings of losses beside the error of the pixels, each a table of ``[tokenizer]``. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Self, final

from pydantic import Field, model_validator

from rarkit import Location, NotInFingerprint, Settings
from rarkit.tokenizers import checksum

Weight = Annotated[float, Field(gt=0.0, le=1e3)]


@final
class PerceptualSettings(Settings):
    """LPIPS, a distance in the features of a VGG16 network (arXiv 1801.03924): reconstructions look sharper, at a lower PSNR."""

    weight: Weight = 0.1
    """What it counts, beside the error of pixels from -1 to 1."""
    vgg: Annotated[Location, NotInFingerprint()]
    """The file ``vgg16-397923af.pth`` of torchvision: a path or URL."""
    lpips: Annotated[Location, NotInFingerprint()]
    """The file ``vgg.pth`` of LPIPS, version 0.1: a path or URL. The package ``lpips`` has it in ``weights/v0.1``."""

    def content(self) -> dict[str, str]:
        """The checksums of the files."""
        return {"vgg": checksum(self.vgg), "lpips": checksum(self.lpips)}


@final
class DiscriminatorSettings(Settings):
    """A network that learns to tell reconstructions from images, and a loss that the tokenizer lowers by deceiving it.

    It makes texture where there would be blur, but not necessarily that of the image. For hours or a GPU.
    """

    weight: Weight = 0.1
    """What its loss counts. It is scaled besides, so that at 1 its gradient at the decoder's last layer is as large as that of the
    other errors."""
    start_step: Annotated[int, Field(ge=1, le=10**9)] = 2000
    """The step in which its loss begins to count."""
    ahead_steps: Annotated[int, Field(ge=1, le=10**9)] = 500
    """Steps that it is trained for before that."""
    ramp_steps: Annotated[int, Field(ge=1, le=10**9)] = 500
    """Steps over which its loss rises to its weight."""
    width: Annotated[int, Field(ge=8, le=1024, multiple_of=8)] = 64
    """Channels of its first layer."""
    layers: Annotated[int, Field(ge=1, le=6)] = 3
    """Layers that halve height and width; a patch that it sees has about 2 ** (layers + 2) pixels a side."""
    learning_rate: Annotated[float, Field(gt=0.0, le=100.0)] = 1.0
    """Its learning rate, as a multiple of the tokenizer's."""

    @model_validator(mode="after")
    def _begins_in_time(self) -> Self:
        if self.ahead_steps > self.start_step:
            raise ValueError(
                f"discriminator.ahead_steps {self.ahead_steps} is more than start_step {self.start_step}: lower it, or raise "
                "start_step"
            )
        return self
