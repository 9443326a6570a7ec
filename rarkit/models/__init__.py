"""Model families, one folder each, and the code that they share. Importing this loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rarkit.lazy import lazy_names

if TYPE_CHECKING:
    from rarkit.files.weights import checksum as checksum
    from rarkit.models.adaptation import Adapted as Adapted
    from rarkit.models.adaptation import GivenWeights as GivenWeights
    from rarkit.models.base import ModelCosts as ModelCosts
    from rarkit.models.base import ModelFamily as ModelFamily
    from rarkit.models.base import SamplingBytes as SamplingBytes
    from rarkit.models.base import TrainingBytes as TrainingBytes
    from rarkit.models.config import ModelConfig as ModelConfig
    from rarkit.models.image_model import ImageModel as ImageModel
    from rarkit.models.llama_ar.checkpoints import load_llama_ar as load_llama_ar
    from rarkit.models.llama_ar.config import LlamaARConfig as LlamaARConfig
    from rarkit.models.llama_ar.llama_ar import LlamaAR as LlamaAR
    from rarkit.models.rar.checkpoints import load_rar as load_rar
    from rarkit.models.rar.checkpoints import save_rar as save_rar
    from rarkit.models.rar.config import RARConfig as RARConfig
    from rarkit.models.rar.merged import MergedRAR as MergedRAR
    from rarkit.models.rar.rar import RAR as RAR
    from rarkit.models.rar.sizes import PRESETS as PRESETS
    from rarkit.models.rar.sizes import list_models as list_models
    from rarkit.models.target_aware import TargetAwarePositions as TargetAwarePositions

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "rarkit.files.weights": ["checksum"],
        "rarkit.models.adaptation": ["Adapted", "GivenWeights"],
        "rarkit.models.base": ["ModelCosts", "ModelFamily", "SamplingBytes", "TrainingBytes"],
        "rarkit.models.config": ["ModelConfig"],
        "rarkit.models.image_model": ["ImageModel"],
        "rarkit.models.llama_ar.checkpoints": ["load_llama_ar"],
        "rarkit.models.llama_ar.config": ["LlamaARConfig"],
        "rarkit.models.llama_ar.llama_ar": ["LlamaAR"],
        "rarkit.models.rar.checkpoints": ["load_rar", "save_rar"],
        "rarkit.models.rar.config": ["RARConfig"],
        "rarkit.models.rar.merged": ["MergedRAR"],
        "rarkit.models.rar.rar": ["RAR"],
        "rarkit.models.rar.sizes": ["PRESETS", "list_models"],
        "rarkit.models.target_aware": ["TargetAwarePositions"],
    },
)
