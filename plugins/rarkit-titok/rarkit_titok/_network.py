"""The network of TiTok, with the released tensor names.

Shape letters: B batch, C channels, H, W height and width of an image, G patches of a side, P patches (G²), N tokens of an image,
S entries of a transformer (1 + P + N), D width, Z numbers of a code, V codebook size, U codes of the pixel decoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from rarkit.tokenizers import MaskGITDecoder

if TYPE_CHECKING:
    from rarkit_titok.sizes import TiTokSizes, TransformerSizes

CHANNELS = 3


@final
class Codebook(nn.Module):
    """Vectors by code (V, Z)."""

    def __init__(self, codes: int, channels: int) -> None:
        super().__init__()
        # Pass the tensor: if nn.Embedding draws the weights on the meta device, torch loads its compiler, which takes seconds.
        self.embedding = nn.Embedding(codes, channels, _weight=torch.empty(codes, channels))


@final
class Block(nn.Module):
    """Attention and MLP, each after a norm and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x_BSD: Tensor) -> Tensor:
        normed_BSD = self.ln_1(x_BSD)
        x_BSD = x_BSD + self.attn(normed_BSD, normed_BSD, normed_BSD, need_weights=False)[0]
        out_BSD: Tensor = x_BSD + self.mlp["c_proj"](functional.gelu(self.mlp["c_fc"](self.ln_2(x_BSD))))
        return out_BSD


@final
class Encoder(nn.Module):
    """From images in [0, 1] to latents: patches and latent tokens go through a transformer, and the latter are kept."""

    def __init__(self, sizes: TiTokSizes) -> None:
        super().__init__()
        width, patches = sizes.encoder.width, sizes.side() ** 2
        self.transposes = sizes.pixels is None
        self.patch_embed = nn.Conv2d(CHANNELS, width, sizes.patch, stride=sizes.patch)
        self.class_embedding = nn.Parameter(torch.empty(1, width))
        self.positional_embedding = nn.Parameter(torch.empty(1 + patches, width))
        self.latent_token_positional_embedding = nn.Parameter(torch.empty(sizes.tokens, width))
        self.ln_pre, self.transformer, self.ln_post = _transformer(sizes.encoder)
        self.conv_out = nn.Conv2d(width, sizes.code_channels, 1)

    def forward(self, images_BCHW: Tensor, latent_tokens_ND: Tensor) -> Tensor:
        """Latents (B, Z, 1, N)."""
        batch, (tokens, width) = len(images_BCHW), latent_tokens_ND.shape
        patches_BPD = self.patch_embed(images_BCHW).flatten(2).transpose(1, 2)
        image_BSD = torch.cat([self.class_embedding.expand(batch, 1, width), patches_BPD], 1) + self.positional_embedding
        latents_ND = latent_tokens_ND + self.latent_token_positional_embedding
        x_BSD = self.ln_pre(torch.cat([image_BSD, latents_ND.expand(batch, tokens, width)], 1))
        for block in self.transformer:
            x_BSD = block(x_BSD)
        latents_BND = self.ln_post(x_BSD[:, -tokens:])
        # The first kind was trained with the numbers taken in this order, though they are not each token's own.
        shape = batch, width, tokens, 1
        latents_BDN1 = latents_BND.transpose(1, 2).unsqueeze(3) if self.transposes else latents_BND.reshape(shape)
        latents_BZ1N: Tensor = self.conv_out(latents_BDN1).transpose(2, 3)
        return latents_BZ1N


@final
class Decoder(nn.Module):
    """From vectors of codes to a transformer's patches: logits of the pixel decoder's codes, or pixels in [0, 1]."""

    def __init__(self, sizes: TiTokSizes) -> None:
        super().__init__()
        width, self.side = sizes.decoder.width, sizes.side()
        self.decoder_embed = nn.Linear(sizes.code_channels, width)
        self.class_embedding = nn.Parameter(torch.empty(1, width))
        self.positional_embedding = nn.Parameter(torch.empty(1 + self.side**2, width))
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.latent_token_positional_embedding = nn.Parameter(torch.empty(sizes.tokens, width))
        self.ln_pre, self.transformer, self.ln_post = _transformer(sizes.decoder)
        self.conv_out: nn.Module = nn.Identity()
        if sizes.pixels is None:
            self.ffn = nn.Sequential(nn.Conv2d(width, sizes.patch**2 * CHANNELS, 1), _Pixels(sizes.patch))
            self.conv_out = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        else:
            self.ffn = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.Tanh(), nn.Conv2d(2 * width, sizes.pixels.codes, 1))

    def forward(self, vectors_BNZ: Tensor) -> Tensor:
        """Logits (B, U, G, G) or images (B, 3, H, W)."""
        batch, patches, width = len(vectors_BNZ), self.side**2, self.mask_token.shape[2]
        tokens_BND = self.decoder_embed(vectors_BNZ) + self.latent_token_positional_embedding
        masks_BPD = self.mask_token.expand(batch, patches, width)
        image_BSD = torch.cat([self.class_embedding.expand(batch, 1, width), masks_BPD], 1) + self.positional_embedding
        x_BSD = self.ln_pre(torch.cat([image_BSD, tokens_BND], 1))
        for block in self.transformer:
            x_BSD = block(x_BSD)
        patches_BPD = self.ln_post(x_BSD[:, 1 : 1 + patches])
        patches_BDGG = patches_BPD.transpose(1, 2).reshape(batch, width, self.side, self.side)
        read: Tensor = self.conv_out(self.ffn(patches_BDGG))
        return read


@final
class _Pixels(nn.Module):
    """From channels (row, column, colour) of a patch to its pixels: (B, p·p·3, G, G) to (B, 3, G·p, G·p)."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, x_BCGG: Tensor) -> Tensor:
        batch, _, rows, columns = x_BCGG.shape
        pixels = x_BCGG.reshape(batch, self.patch, self.patch, CHANNELS, rows, columns)
        return pixels.permute(0, 3, 4, 1, 5, 2).reshape(batch, CHANNELS, rows * self.patch, columns * self.patch)


def _transformer(sizes: TransformerSizes) -> tuple[nn.LayerNorm, nn.ModuleList, nn.LayerNorm]:
    blocks = nn.ModuleList(Block(sizes.width, sizes.heads) for _ in range(sizes.layers))
    return nn.LayerNorm(sizes.width), blocks, nn.LayerNorm(sizes.width)


@final
class TiTokNetwork(nn.Module):
    """Encoder, codebook, decoder and, in the first kind, the decoder from codes of MaskGIT-VQGAN to pixels."""

    def __init__(self, sizes: TiTokSizes) -> None:
        super().__init__()
        self.latent_tokens = nn.Parameter(torch.empty(sizes.tokens, sizes.encoder.width))
        self.encoder, self.decoder = Encoder(sizes), Decoder(sizes)
        self.quantize = Codebook(sizes.codes, sizes.code_channels)
        self.l2_norm = sizes.l2_norm
        if (pixels := sizes.pixels) is not None:
            self.pixel_quantize = Codebook(pixels.codes, pixels.z_channels)
            network = pixels.hidden_channels, pixels.channel_mult, pixels.num_res_blocks, pixels.z_channels
            self.pixel_decoder = MaskGITDecoder(CHANNELS, *network)

    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Latents (B, Z, 1, N) of images in [0, 1], not of length one."""
        latents_BZ1N: Tensor = self.encoder(images_BCHW, self.latent_tokens)
        return latents_BZ1N

    def scaled(self, vectors: Tensor, axis: int) -> Tensor:
        """Vectors as they are compared and decoded: of length one if this network has it so."""
        return functional.normalize(vectors, dim=axis) if self.l2_norm else vectors

    def decode(self, codes_B1N: Tensor) -> Tensor:
        """Images (B, 3, H, W), not clamped to [0, 1], of codes (B, 1, N)."""
        read: Tensor = self.decoder(self.scaled(self.quantize.embedding(codes_B1N[:, 0]), 2))
        if hasattr(self, "pixel_decoder"):
            read = self.pixel_decoder(self.mixed(read))
        return read

    def mixed(self, logits_BUGG: Tensor) -> Tensor:
        """The pixel decoder's vectors, each the mean of all, weighted by the probabilities of their codes: (B, Z, G, G)."""
        return torch.einsum("bugh,uz->bzgh", logits_BUGG.softmax(1), self.pixel_quantize.embedding.weight)
