"""Decoding with the compiled kernels.

Shape letters: R rows, U distinct classes, S entries of the sequence, D width, N heads, K head width, M modulations.
"""

from __future__ import annotations

from typing import cast, final

from torch import Tensor

from rarkit.models.rar.decoding.native_kernels import CompiledLinear, Modulation, Residual
from rarkit.models.rar.decoding.steps import EagerSteps


@final
class CompiledSteps(EagerSteps):
    """Decodes with the compiled kernels: five calls per block, which read only the filled part of the cache."""

    def advance(self, x_RD: Tensor, entry: int) -> Tensor:
        weights, config, kernels, modulations = self.weights, self.model.config, self.weights.kernels, self.modulations
        assert kernels is not None
        assert modulations is not None
        eps, row_R = config.layer_norm_eps, modulations.row_R
        modulations.reach(entry)
        *tables, final_UM = modulations.of(entry)
        x_RD = (x_RD + self.positions_SD[entry]).float()
        for layer, (block, table_UM) in enumerate(zip(weights.blocks, tables, strict=True)):
            projections = block.qkv, block.proj, block.fc1_gelu, block.fc2
            qkv, proj, fc1_gelu, fc2 = (cast(CompiledLinear, projection) for projection in projections)
            shift1, scale1, gate1, shift2, scale2, gate2 = table_UM.chunk(6, dim=-1)
            qkv_R3NK = qkv(x_RD, Modulation(shift1, scale1, row_R, eps)).view(-1, 3, config.num_heads, config.head_size)
            read_RNK = kernels.attend(qkv_R3NK, (block.qk_weight_2NK, block.qk_bias_2NK, eps), self.kv[layer], entry)
            x_RD = proj(read_RNK.flatten(1), residual=Residual(x_RD, gate1, row_R))
            x_RD = fc2(fc1_gelu(x_RD, Modulation(shift2, scale2, row_R, eps)), residual=Residual(x_RD, gate2, row_R))
        scale_UD, shift_UD = final_UM.chunk(2, dim=-1)
        return cast(CompiledLinear, weights.head)(x_RD, Modulation(shift_UD, scale_UD, row_R, eps))
