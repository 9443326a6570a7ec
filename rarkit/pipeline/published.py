"""The addresses of the released files, added to the message if one is missing."""

from __future__ import annotations

from rarkit.errors import RarkitError, sentences

PUBLISHED = {
    **{f"rar_{size}.bin": f"hf://yucornetto/RAR/rar_{size}.bin" for size in ("b", "l", "xl", "xxl")},
    "maskgit-vqgan-imagenet-f16-256.bin": "hf://fun-research/TiTok/maskgit-vqgan-imagenet-f16-256.bin",
    "pt_inception-2015-12-05-6726825d.pth": "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    "VIRTUAL_imagenet256_labeled.npz": "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet/256/"
    "VIRTUAL_imagenet256_labeled.npz",
}
"""Addresses of the released files, by file name."""


def with_published(error: RarkitError) -> str:
    """The message of an error, followed by the addresses of the released files that it mentions."""
    parts = [str(error)]
    for name, address in PUBLISHED.items():
        if name in str(error):
            hub = ', which can also be given as the path (pip install "rarkit[hub]")' if address.startswith("hf://") else ""
            parts.append(f"Published: {address}{hub}.")
    return sentences(*parts)
