"""What the ranks of a run must have in common, before any of them starts."""

from __future__ import annotations

import json
from typing import Any

from rarkit.cache.fingerprint import differences
from rarkit.errors import StoreError
from rarkit.pipeline.execution import versions
from rarkit.pipeline.plan import Plan
from rarkit.recipe.sources import part_tables
from rarkit.registry.addresses import addresses
from rarkit.registry.loader import present
from rarkit.registry.registered import source_of
from rarkit.runtime.ranks import SAME_STORE, Ranks

MOST_SHOWN = 3
"""Differences that a message names."""


def check_agreement(planned: Plan, ranks: Ranks) -> None:
    """Checks that all ranks have the same versions, recipe, data and plan. This also keeps the first rank from writing before the
    others have made their plans.

    Paths may differ from one machine to the next: what lies there counts.

    Raises:
        StoreError: something on this rank differs from the first rank's; the message names it.
        RarkitError: this rank's plan cannot be carried out, for want of data or weights.
    """
    if ranks.size > 1 and planned.obstacle is not None:
        # Otherwise the message would be about the plan, which differs on account of it.
        raise planned.obstacle
    stages = planned.stages
    for what, own in (
        ("the version of a package", versions()),
        ("the version or source of a part", _parts(planned)),
        ("the recipe", _settings(planned)),
        ("what the stages read (data, weights)", {stage.name: dict(stage.identity) for stage in stages}),
        ("the plan", {stage.name: {"action": stage.action, "fingerprint": stage.fingerprint} for stage in stages}),
    ):
        agree(ranks, what, own)


def agree(ranks: Ranks, what: str, own: dict[str, Any]) -> None:
    """Waits for all ranks and checks that ``own``, plain JSON data, is the same on each.

    Raises:
        StoreError: this rank's differs from the first rank's.
    """
    first = ranks.told(lambda: own)
    # As JSON, in which tuples are lists.
    if json.dumps(first, sort_keys=True) != json.dumps(own, sort_keys=True):
        said = f"{what} differs from that of the first rank: {_differing(first, own)}"
        raise StoreError(f"{said}. {SAME_STORE}, and the same recipe, data, versions and parts.")
    ranks.meet()


def _parts(planned: Plan) -> dict[str, Any]:
    """The parts of the recipe by table: class, version, and the distribution that brought it or the digest of its source."""
    origins = {part: record.source for record in present().records for _, part in record.parts}
    return {
        table: {
            "name": part.name,
            "class": f"{type(part).__module__}.{type(part).__qualname__}",
            "version": type(part).version,
            "from": f"{origin.distribution} {origin.distribution_version}" if (origin := origins.get(type(part))) else None,
            "source": source_of(type(part)),
        }
        for table, part in part_tables(planned.recipe)
    }


def _settings(planned: Plan) -> dict[str, Any]:
    """The settings of the recipe, without paths and URLs."""
    settings: dict[str, Any] = planned.recipe.model_dump(mode="json")
    for address in addresses(planned.recipe):
        *tables, key = address.setting.split(".")
        table = settings
        for name in tables:
            table = table[name]
        # A setting may name several places.
        table.pop(key, None)
    return settings


def _differing(first: dict[str, Any], own: dict[str, Any]) -> str:
    changes = differences(first, own)
    more = len(changes) - MOST_SHOWN
    return ", ".join(changes[:MOST_SHOWN]) + (f" and {more} more" if more > 0 else "") + " (the first rank's → this one's)"
