"""Permutation schedules: how often a sample is trained on a random permutation. ``draw`` turns that into permutations."""

from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.permutation_schedules.constant import Constant
from rarkit.permutation_schedules.cosine import Cosine
from rarkit.permutation_schedules.draw import draw_orders
from rarkit.permutation_schedules.linear import Linear
from rarkit.permutation_schedules.step import Step

__all__ = ["PermutationSchedule", "Constant", "Linear", "Cosine", "Step", "draw_orders"]
