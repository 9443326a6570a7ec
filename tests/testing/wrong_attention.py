"""Softmax attention that breaks the promise which ``fault`` names.

Shape letters: B batch, N heads, S query length, T key length, K head width.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, final

from rarkit import AttentionBackend
from rarkit.errors import CapabilityError


@final
class Wrong(AttentionBackend):
    """Softmax attention with a fault."""

    name: Literal["wrong"] = "wrong"
    fault: Literal[
        "none",
        "scale",
        "scale_of_16",
        "narrow",
        "detached",
        "detached_values",
        "peeking",
        "peeking_past_256",
        "always_causal",
        "views",
        "cache_views",
        "one_sample",
        "one_head",
        "one_query",
        "many_samples",
        "many_heads",
        "256_keys",
        "1024_keys",
        "bfloat16",
        "upcast",
        "coarse",
        "overflow",
        "in_place",
        "noisy",
        "undropped",
        "unscaled",
        "refusing",
        "denying",
        "unseeded",
        "together",
        "layerless",
    ] = "none"
    """What is wrong."""

    has_seeded_dropout: ClassVar[bool] = True

    @property
    def has_dropout(self):
        return self.fault != "denying"

    def build(self):
        return self._attend

    def _attend(self, q, k, v, *, causal, dropout=None):
        q, k, v = self._taken(q, k, v)
        scores = self._scores(q, k, causal)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True) if self.fault == "overflow" else scores.softmax(-1)
        if dropout is not None and self.fault != "undropped":
            weights = weights * self._kept(weights, dropout) / (1 if self.fault == "unscaled" else 1 - dropout.probability)
        return self._read(weights, v)

    def _taken(self, q, k, v):
        import torch

        match self.fault:
            case "views":
                q, k, v = (tensor.view(-1, *tensor.shape[-2:]).view(tensor.shape) for tensor in (q, k, v))
            case "cache_views" if q.shape[2] == 1:
                k, v = (tensor.view(-1, tensor.shape[-1]).view(tensor.shape) for tensor in (k, v))
            case "bfloat16" if q.dtype == torch.bfloat16:
                raise RuntimeError("expected scalar type Float")
            case "in_place":
                q.mul_(2).div_(3)
            case "coarse":
                q, k = (tensor.bfloat16().to(tensor.dtype) for tensor in (q, k))
            case "one_sample":
                assert len(q) > 1
            case "one_head":
                q, k, v = (tensor.squeeze(1) if tensor.shape[1] == 1 else tensor for tensor in (q, k, v))
            case "many_samples" if len(q) > 16:
                q = q[:1].expand_as(q)
            case "many_heads" if q.shape[1] > 8:
                q = q.flip(1)
            case "narrow" if q.shape[-1] % 16:
                q, k = q[..., : q.shape[-1] // 16 * 16], k[..., : k.shape[-1] // 16 * 16]
            case "256_keys" | "1024_keys":
                most = int(self.fault.split("_")[0])
                k, v = k[:, :, :most], v[:, :, :most]
        return q, k, v

    def _scores(self, q, k, causal):
        import torch

        fault = self.fault
        scale = {"scale": 1.0, "scale_of_16": 4.0}.get(fault, math.sqrt(q.shape[-1]))
        scores = q @ k.transpose(-1, -2) / scale
        seen = causal or (fault == "always_causal" and q.shape[2] == k.shape[2])
        diagonal = 257 if fault == "peeking_past_256" and q.shape[2] > 256 else 1
        if seen and fault != "peeking":
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(diagonal)
            scores = scores.masked_fill(hidden, -math.inf)
        return scores + 1e-3 * torch.randn_like(scores) if fault == "noisy" else scores

    def _read(self, weights, v):
        match self.fault:
            case "detached":
                return weights.detach() @ v
            case "detached_values":
                return weights @ v.detach()
            case "upcast":
                return weights.float() @ v.float()
            case "one_query" if weights.shape[-2] == 1:
                return (weights @ v).squeeze(-2)
        return weights @ v

    def _kept(self, weights, dropout):
        import torch

        if self.fault == "refusing":
            raise CapabilityError("wrong has no dropout")
        if self.fault == "unseeded":
            return torch.rand_like(weights) >= dropout.probability
        layer = 0 if self.fault == "layerless" else dropout.layer
        shared = len(dropout.seeds_B) if self.fault == "together" else 0
        generators = [torch.Generator().manual_seed(7919 * layer + shared + seed) for seed in dropout.seeds_B.tolist()]
        drawn = [torch.rand(weights.shape[1:], generator=generator) for generator in generators]
        return torch.stack(drawn) >= dropout.probability
