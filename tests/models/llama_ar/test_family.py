"""The family ``llama_ar`` keeps what every model family promises."""

from __future__ import annotations

from rarkit.models.llama_ar.family import LlamaARFamily
from rarkit.testing import ModelFamilySuite


class TestLlamaAR(ModelFamilySuite):
    parts = (
        LlamaARFamily(hidden_size=32, depth=2, num_heads=2),
        LlamaARFamily(hidden_size=24, depth=1, num_heads=1, mlp_hidden_size=20, rope_theta=100.0, rms_norm_eps=1e-6),
        LlamaARFamily(hidden_size=32, depth=2, num_heads=4, dropout=0.0, attention_dropout=0.0, class_dropout=0.5),
    )
