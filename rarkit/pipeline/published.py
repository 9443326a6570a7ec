"""Where the released files are published: told to whoever misses one."""

from __future__ import annotations

from rarkit.errors import RarkitError

PUBLISHED = {
    **{f"rar_{size}.bin": f"hf://yucornetto/RAR/rar_{size}.bin" for size in ("b", "l", "xl", "xxl")},
    "maskgit-vqgan-imagenet-f16-256.bin": "hf://fun-research/TiTok/maskgit-vqgan-imagenet-f16-256.bin",
    "pt_inception-2015-12-05-6726825d.pth": "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    "VIRTUAL_imagenet256_labeled.npz": "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet/256/"
    "VIRTUAL_imagenet256_labeled.npz",
}
"""Where the released files are to be had, by their names."""


def with_published(error: RarkitError) -> str:
    """The message of an error, with the addresses at which the released files it names are published."""
    message = str(error)
    for name, address in PUBLISHED.items():
        if name in str(error):
            hub = ', which may also be named instead (pip install "rarkit[hub]")' if address.startswith("hf://") else ""
            message += f" Published: {address}{hub}."
    return message
