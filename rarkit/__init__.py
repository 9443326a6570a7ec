"""rarkit: autoregressive image generation in which the order of the tokens is a first-class choice.

Quick start:

    import rarkit

    run = rarkit.run(rarkit.load_recipe("recipes/digits.toml"))    # tokenize, train, sample, evaluate; cached
    print(run.metrics, run.folder)
    model = rarkit.load(run)                                       # or a run's folder, a bundle, a checkpoint
    model.sample(3, seed=1).save("three.png")                      # new images of class 3
    spiral = rarkit.parts().scan_orders["spiral"]()                # a part; parts() has all that are installed
    print(spiral.order(3, 3))

A part of your own is a class derived from ``rarkit.ScanOrder``, say, with ``@rarkit.register`` above it. The model alone is in
``rarkit.models``, sampling from it in ``rarkit.sampling``, the pieces of the training loop in ``rarkit.training``, those of
tokenizers with a network in ``rarkit.tokenizers``, and checks of your parts in ``rarkit.testing``. Importing these names loads
neither torch nor zarr.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rarkit.lazy import lazy_names
from rarkit.registry.kinds import KINDS

if TYPE_CHECKING:
    from rarkit import datasets as datasets
    from rarkit import errors as errors
    from rarkit import models as models
    from rarkit import sampling as sampling
    from rarkit import testing as testing
    from rarkit import tokenizers as tokenizers
    from rarkit import training as training
    from rarkit.attention.base import AttentionBackend as AttentionBackend
    from rarkit.attention.base import AttentionFunction as AttentionFunction
    from rarkit.attention.base import Dropout as Dropout
    from rarkit.datasets.base import Dataset as Dataset
    from rarkit.engine.settings import TrainSettings as TrainSettings
    from rarkit.errors import RarkitError as RarkitError
    from rarkit.evaluation.record import MetricRecord as MetricRecord
    from rarkit.evaluation.settings import EvaluateSettings as EvaluateSettings
    from rarkit.features.base import FeatureExtractor as FeatureExtractor
    from rarkit.features.base import FeatureModel as FeatureModel
    from rarkit.features.base import Features as Features
    from rarkit.images import ImageBlock as ImageBlock
    from rarkit.images import ImageInfo as ImageInfo
    from rarkit.images import ImageReader as ImageReader
    from rarkit.inference.drawing import Drawing as Drawing
    from rarkit.inference.load import load as load
    from rarkit.inference.pipeline import Pipeline as Pipeline
    from rarkit.inference.sample import sample as sample
    from rarkit.inference.tokenizer_evaluation import TokenizerEvaluation as TokenizerEvaluation
    from rarkit.inference.tokenizer_evaluation import evaluate_tokenizer as evaluate_tokenizer
    from rarkit.models.base import ModelFamily as ModelFamily
    from rarkit.models.config import ModelConfig as ModelConfig
    from rarkit.permutation_schedules.base import PermutationSchedule as PermutationSchedule
    from rarkit.pipeline.plan import Plan as Plan
    from rarkit.pipeline.plan import plan as plan
    from rarkit.pipeline.results import Run as Run
    from rarkit.pipeline.run import run as run
    from rarkit.recipe.load import load_recipe as load_recipe
    from rarkit.recipe.make import make_recipe as make_recipe
    from rarkit.recipe.schema import Recipe as Recipe
    from rarkit.registry.component import Component as Component
    from rarkit.registry.component import Location as Location
    from rarkit.registry.component import NotInFingerprint as NotInFingerprint
    from rarkit.registry.component import Settings as Settings
    from rarkit.registry.hookspecs import hookimpl as hookimpl
    from rarkit.registry.kinds import Parts as Parts
    from rarkit.registry.loader import parts as parts
    from rarkit.registry.register import register as register
    from rarkit.registry.registry import Registry as Registry
    from rarkit.sampling.settings import SampleSettings as SampleSettings
    from rarkit.scan_orders.base import ScanOrder as ScanOrder
    from rarkit.tokenizers.base import Tokenizer as Tokenizer
    from rarkit.tokenizers.base import TokenizerModel as TokenizerModel
    from rarkit.trackers.base import OpenTracker as OpenTracker
    from rarkit.trackers.base import TrackedRun as TrackedRun
    from rarkit.trackers.base import Tracker as Tracker

__version__ = "0.1.0"

__getattr__, __dir__, _names = lazy_names(
    __name__,
    {
        "rarkit.errors": ["RarkitError"],
        "rarkit.evaluation.record": ["MetricRecord"],
        "rarkit.evaluation.settings": ["EvaluateSettings"],
        "rarkit.images": ["ImageBlock", "ImageInfo", "ImageReader"],
        "rarkit.inference.drawing": ["Drawing"],
        "rarkit.inference.load": ["load"],
        "rarkit.inference.pipeline": ["Pipeline"],
        "rarkit.inference.sample": ["sample"],
        "rarkit.inference.tokenizer_evaluation": ["TokenizerEvaluation", "evaluate_tokenizer"],
        "rarkit.pipeline.plan": ["Plan", "plan"],
        "rarkit.pipeline.results": ["Run"],
        "rarkit.pipeline.run": ["run"],
        "rarkit.recipe.load": ["load_recipe"],
        "rarkit.recipe.make": ["make_recipe"],
        "rarkit.recipe.schema": ["Recipe"],
        "rarkit.registry.component": ["Component", "Location", "NotInFingerprint", "Settings"],
        "rarkit.registry.hookspecs": ["hookimpl"],
        "rarkit.registry.kinds": ["Parts"],
        "rarkit.registry.loader": ["parts"],
        "rarkit.registry.register": ["register"],
        "rarkit.registry.registry": ["Registry"],
        "rarkit.sampling.settings": ["SampleSettings"],
        "rarkit.engine.settings": ["TrainSettings"],
        **{kind.home: kind.public for kind in KINDS.values()},
    },
    modules=("datasets", "errors", "models", "sampling", "testing", "tokenizers", "training"),
)
__all__ = [*_names, "__version__"]
