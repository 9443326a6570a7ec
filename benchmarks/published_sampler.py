"""The baseline of ``sampling.py``: a reimplementation of the published sampler.

At every step it embeds all ids and looks up all positions again, recomputes the AdaLN modulations of both branches from class and
step, concatenates the KV cache, and normalises queries and keys in two calls. Nothing is prepared or captured in advance.

Shape letters: B batch, R = 2·B rows (with and without class), T entries so far, D width, N heads, K head width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from rarkit.models import RAR
from rarkit.models.rar.layers import Conditions


@torch.inference_mode()
def published_sampler(
    model: RAR, labels_B: Tensor, order_L: Tensor, scales: Sequence[float], temperature: float, steps: int | None = None
) -> Tensor:
    """Tokens (B, L) in visiting order, or those of the first ``steps`` steps, with guidance at every step."""
    class_ids_B = model.class_ids(labels_B)
    class_ids_R = torch.cat([class_ids_B, torch.full_like(class_ids_B, model.no_class_id)])
    cache: list[tuple[Tensor, Tensor] | None] = [None] * model.config.depth
    ids_BT = torch.zeros(len(labels_B), 0, dtype=torch.int64, device=labels_B.device)
    for step in range(steps or len(order_L)):
        logits_RV = _forward(model, torch.cat([ids_BT, ids_BT]), class_ids_R, order_L, cache)
        conditional_BV, unconditional_BV = logits_RV.chunk(2)
        guided_BV = unconditional_BV + scales[step] * (conditional_BV - unconditional_BV)
        drawn_B1 = torch.multinomial((guided_BV.float() / temperature).softmax(-1), 1)
        ids_BT = torch.cat([ids_BT, drawn_B1], dim=1)
    return ids_BT


def _forward(model: RAR, ids_RT: Tensor, class_ids_R: Tensor, order_L: Tensor, cache: list[tuple[Tensor, Tensor] | None]) -> Tensor:
    embedded_RTD = model.embeddings(torch.cat([class_ids_R[:, None], ids_RT], dim=1))
    x_RTD = torch.cat([model.cls_token.expand(len(ids_RT), -1, -1), embedded_RTD], dim=1)
    x_RTD = x_RTD + model.positions(order_L)[: x_RTD.shape[1]]
    condition_RTD = model.embeddings(class_ids_R)[:, None] + model.timesteps_embeddings[:, : x_RTD.shape[1]]
    if cache[0] is not None:
        x_RTD, condition_RTD = x_RTD[:, -1:], condition_RTD[:, -1:]
    for layer, block in enumerate(model.layers):

        def attend(q_RNTK: Tensor, k_RNTK: Tensor, v_RNTK: Tensor, layer: int = layer) -> Tensor:
            past = cache[layer]
            if past is not None:
                k_RNTK, v_RNTK = torch.cat([past[0], k_RNTK], dim=2), torch.cat([past[1], v_RNTK], dim=2)
            cache[layer] = k_RNTK, v_RNTK
            return functional.scaled_dot_product_attention(q_RNTK, k_RNTK, v_RNTK, is_causal=past is None)

        # As published, the activation is computed in each block.
        conditions = Conditions(functional.silu(condition_RTD), None)
        x_RTD = block(x_RTD, conditions, attend)
    return model.lm_head(model.adaln_before_head(x_RTD, Conditions(functional.silu(condition_RTD), None)))[:, -1]
