"""A feature extractor that breaks the promise which ``fault`` names."""

from __future__ import annotations

import itertools
import math
from typing import Literal, final

import numpy as np

from rarkit import FeatureExtractor, FeatureModel, Features
from rarkit.errors import GridError

COUNTER = itertools.count()


@final
class Flat(FeatureExtractor):
    """The pixels themselves."""

    name: Literal["flat"] = "flat"
    fault: Literal[
        "none",
        "refuses",
        "nan",
        "nan_of_black",
        "batch",
        "large_batch",
        "logits",
        "spatial",
        "fid",
        "unnamed",
        "nameless",
        "fit",
        "hashed",
        "silent",
        "constant",
        "random",
        "projected",
        "global",
        "view",
        "writes",
        "float64",
        "one_row",
    ] = "none"
    """What is wrong."""

    @property
    def learns(self):
        return self.fault in ("fit", "hashed")

    def distance_names(self):
        names = {"fid": {"features": "fid"}, "unnamed": {"spatial": " "}}
        return {"features": "pixels"} if self.fault == "nameless" else super().distance_names() | names.get(self.fault, {})

    def check_images(self, info):
        if self.fault == "refuses":
            raise GridError("flat takes no images")

    def fit(self, reader, seed):
        match self.fault:
            case "fit":
                return {"drawn": np.array(next(COUNTER))}
            case "hashed":
                return {"drawn": np.array(hash("flat"))}
            case "silent":
                return {}
        return super().fit(reader, seed)

    def build(self, state, device):
        return FlatModel(self.fault)


@final
class FlatModel(FeatureModel):
    def __init__(self, fault):
        self.fault = fault
        self.seed = hash("projection") % 2**32

    def __call__(self, images_BHWC):
        features_BF = images_BHWC.flatten(1).float()
        logits_BC, spatial_BS = features_BF[:, :3].clone(), features_BF[:, 3:8].clone()
        match self.fault:
            case "nan":
                features_BF[0, 0] = math.nan
            case "nan_of_black":
                features_BF = features_BF / features_BF.norm(dim=1, keepdim=True)
            case "batch":
                features_BF = features_BF - features_BF.mean(0)
            case "large_batch" if len(features_BF) > 16:
                features_BF = features_BF.roll(1, 0)
            case "logits":
                logits_BC = logits_BC - logits_BC.mean(0)
            case "spatial":
                spatial_BS = spatial_BS / spatial_BS.max()
            case "float64":
                features_BF = features_BF.double()
            case "one_row":
                features_BF = features_BF.mean(0, keepdim=True)
            case _:
                features_BF = self._unsteady(images_BHWC, features_BF)
        return Features(features_BF, logits_BC, spatial_BS)

    def _unsteady(self, images_BHWC, features_BF):
        import torch

        match self.fault:
            case "constant":
                return torch.ones_like(features_BF)
            case "random":
                return features_BF + torch.randn(features_BF.shape, generator=torch.Generator().manual_seed(next(COUNTER)))
            case "projected":
                generator = torch.Generator().manual_seed(self.seed)
                return features_BF @ torch.randn(features_BF.shape[1], 4, generator=generator)
            case "global":
                return features_BF + 0 * torch.randn_like(features_BF)
            case "view":
                return images_BHWC.view(len(images_BHWC), -1).float()
            case "writes":
                images_BHWC.clamp_(max=254)
        return features_BF
