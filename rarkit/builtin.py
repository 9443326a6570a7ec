"""The parts that come with rarkit, registered through the same entry point and hooks as any plugin's."""

from __future__ import annotations

from rarkit.attention.base import AttentionBackend
from rarkit.attention.flex import Flex
from rarkit.attention.plain import Plain
from rarkit.attention.sdpa import SDPA
from rarkit.datasets.base import Dataset
from rarkit.datasets.digits import Digits
from rarkit.datasets.generated import Generated
from rarkit.datasets.image_folder import ImageFolder
from rarkit.datasets.image_list import ImageList
from rarkit.datasets.npz import Npz
from rarkit.datasets.photographs import Photographs
from rarkit.datasets.webdataset import WebDataset
from rarkit.features.base import FeatureExtractor
from rarkit.features.classifier import Classifier
from rarkit.features.inception import Inception
from rarkit.models.base import ModelFamily
from rarkit.models.llama_ar.family import LlamaARFamily
from rarkit.models.rar.family import RARFamily
from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.permutation_schedules.constant import Constant
from rarkit.permutation_schedules.cosine import Cosine
from rarkit.permutation_schedules.linear import Linear
from rarkit.permutation_schedules.step import Step
from rarkit.registry.hookspecs import hookimpl
from rarkit.scan_orders.alternate import Alternate
from rarkit.scan_orders.base import ScanOrder
from rarkit.scan_orders.raster import Raster
from rarkit.scan_orders.spiral import Spiral
from rarkit.scan_orders.subsample import Subsample
from rarkit.scan_orders.z_curve import ZCurve
from rarkit.scan_orders.zigzag import Zigzag
from rarkit.tokenizers.base import Tokenizer
from rarkit.tokenizers.exported import Exported
from rarkit.tokenizers.maskgit_vqgan import MaskGITVQGAN
from rarkit.tokenizers.patch_kmeans import PatchKMeans
from rarkit.tokenizers.pixel import Pixel
from rarkit.trackers.base import Tracker
from rarkit.trackers.tensorboard import TensorBoard


@hookimpl
def rarkit_scan_orders() -> list[type[ScanOrder]]:
    return [Raster, Spiral, Zigzag, Alternate, ZCurve, Subsample]


@hookimpl
def rarkit_permutation_schedules() -> list[type[PermutationSchedule]]:
    return [Constant, Linear, Cosine, Step]


@hookimpl
def rarkit_tokenizers() -> list[type[Tokenizer]]:
    return [PatchKMeans, Pixel, MaskGITVQGAN, Exported]


@hookimpl
def rarkit_attention_backends() -> list[type[AttentionBackend]]:
    return [Plain, SDPA, Flex]


@hookimpl
def rarkit_datasets() -> list[type[Dataset]]:
    return [Digits, Photographs, ImageFolder, ImageList, WebDataset, Npz, Generated]


@hookimpl
def rarkit_feature_extractors() -> list[type[FeatureExtractor]]:
    return [Classifier, Inception]


@hookimpl
def rarkit_models() -> list[type[ModelFamily]]:
    return [RARFamily, LlamaARFamily]


@hookimpl
def rarkit_trackers() -> list[type[Tracker]]:
    return [TensorBoard]
