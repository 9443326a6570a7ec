"""xFormers' memory-efficient attention as an attention backend.

Shape letters: B batch, N heads, S query length, T key length, K head width.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, final

from rarkit import AttentionBackend, AttentionFunction, Dropout, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

requires_rarkit = ">=0.1,<0.2"


@final
class XFormers(AttentionBackend):
    """``xformers.ops.memory_efficient_attention``: exact attention that does not store the attention weights. CUDA only."""

    name: Literal["xformers"] = "xformers"

    def capability(self, device: str, dtype: str) -> str | None:
        if find_spec("xformers") is None:
            return "xFormers is not installed: pip install xformers, in the build for your torch and CUDA"
        if not device.startswith("cuda"):
            return f"xFormers has no attention on {device}, only on CUDA; choose sdpa"
        if dtype not in ("float32", "float16", "bfloat16"):
            return f"xFormers supports float32, float16 and bfloat16, not {dtype}; choose sdpa"
        return other_cuda()

    def build(self) -> AttentionFunction:
        return attend


def other_cuda() -> str | None:
    """Why the kernels of the installed xFormers cannot be loaded beside the installed torch; None if nothing speaks against it.

    Imports neither: xFormers tells what it was built for in a file, and torch in its version.
    """
    package = find_spec("xformers")
    told = Path(package.origin).with_name("cpp_lib.json") if package is not None and package.origin else None
    if told is None or not told.is_file():
        return None
    built, torch = json.loads(told.read_text())["version"]["cuda"], version("torch")
    tag = re.search(r"\+cu(\d+)$", torch)
    if built is None or tag is None or int(tag[1]) // 10 == built // 100:
        return None
    return (
        f"its kernels were built for CUDA {built // 100}, and torch {torch} has CUDA {int(tag[1]) // 10}, so they do not load: "
        "install xFormers in the build for your torch and CUDA, or choose sdpa"
    )


def attend(q_BNSK: Tensor, k_BNTK: Tensor, v_BNTK: Tensor, *, causal: bool, dropout: Dropout | None = None) -> Tensor:
    """softmax(q kᵀ / √K) v; see ``rarkit.AttentionFunction``."""
    from xformers.ops import LowerTriangularMask, memory_efficient_attention

    # xFormers expects (B, S, N, K).
    q, k, v = (tensor.transpose(1, 2) for tensor in (q_BNSK, k_BNTK, v_BNTK))
    mask = LowerTriangularMask() if causal else None
    # The kernel takes no seeds; it draws from torch's global generator.
    probability = 0.0 if dropout is None else dropout.probability
    read_BSNK: Tensor = memory_efficient_attention(q, k, v, attn_bias=mask, p=probability)
    return read_BSNK.transpose(1, 2)


@hookimpl
def rarkit_attention_backends() -> list[type[AttentionBackend]]:
    """Adds xFormers' attention to rarkit."""
    return [XFormers]
