"""The family ``rar`` keeps what every model family promises."""

from __future__ import annotations

from rarkit.models.rar.family import RARFamily
from rarkit.testing import ModelFamilySuite

SMALL = {"hidden_size": 32, "depth": 2, "num_heads": 2, "mlp_hidden_size": 48}


class TestRAR(ModelFamilySuite):
    parts = (
        RARFamily(**SMALL),
        RARFamily(**SMALL, target_aware=False),
        RARFamily(**SMALL, conditioning="prefix"),
        RARFamily(**SMALL, target_aware=False, conditioning="prefix", dropout=0.0, attention_dropout=0.0, class_dropout=0.5),
    )
