"""Permutation schedules that break the promise which ``fault`` names, most of them at a few steps."""

from __future__ import annotations

import itertools
import os
import random
from typing import Literal, final

from rarkit import PermutationSchedule

COUNTER, CALLS = itertools.count(), itertools.count()
KEPT = {}


@final
class WrongSchedule(PermutationSchedule):
    """From 1 down to 0, with a fault."""

    name: Literal["wrong_schedule"] = "wrong_schedule"
    fault: Literal[
        "none",
        "above",
        "below",
        "nan",
        "text",
        "at_the_end",
        "past_200",
        "past_500",
        "past_a_million",
        "one_step",
        "rising",
        "rising_past_500",
        "bump",
        "moody",
        "after_30",
        "process",
        "forgetful",
        "global",
    ] = "none"
    """What is wrong."""

    def random_ratio(self, step, total):
        ratio = 1 - step / total
        match self.fault:
            case "above":
                return 1.5
            case "below":
                return -ratio
            case "nan":
                return float("nan")
            case "text":
                return "1"
            case "at_the_end" if step == total:
                return 1 + 1e-9
            case "past_200" if total > 200:
                return 1 + step / total
            case "past_500" if total > 500:
                return 1 - step / 500
            case "one_step" if total == 1:
                return step / (total - 1)
            case "past_a_million" if total > 1_000_000 and step % 2:
                return 2.0
            case "rising":
                return step / total
            case "rising_past_500" if total > 500:
                return step / total
            case "bump" if step == 200:
                return 1.0
            case "moody":
                return (next(COUNTER) % 7) / 7
            case "after_30" if next(CALLS) >= 30:
                return 0.5
            case "process":
                return (os.getpid() % 1009) / 1009
            case "forgetful":
                return KEPT.setdefault(step, ratio)
            case "global":
                return random.random()
        return ratio
