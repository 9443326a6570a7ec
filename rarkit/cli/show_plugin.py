"""``rarkit plugins show``: one plugin, its parts and their settings."""

from __future__ import annotations

import importlib.util
import json
from importlib.metadata import entry_points
from typing import Any

from rarkit.cli.tables import print_entries
from rarkit.registry.component import Component
from rarkit.registry.contract import GROUP
from rarkit.registry.loader import PluginRecord
from rarkit.runtime.console import PrintableConsole, styled


def as_json(record: PluginRecord) -> dict[str, Any]:
    """A plugin as plain JSON data."""
    value, place = _where(record)
    return {
        "plugin": record.source.plugin,
        "distribution": record.source.distribution,
        "version": record.source.distribution_version,
        "entry_point": value,
        "file": place,
        "requires_rarkit": record.requires_rarkit,
        "status": record.status,
        "cause": record.cause,
        "seconds": round(record.seconds, 3),
        "parts": [
            {"kind": kind, "name": part.part_name(), "version": part.version, "about": about(part), "settings": settings(part)}
            for kind, part in record.parts
        ],
    }


def printed(record: PluginRecord) -> None:
    """Prints a plugin."""
    value, place = _where(record)
    console = PrintableConsole()
    console.print(styled(record.source.plugin, "bold"), f" of {record.source.distribution} {record.source.distribution_version}")
    status = record.status if record.status != "loaded" else f"loaded in {record.seconds:.2f} s"
    console.print(f"status: {status}{f': {record.cause}' if record.cause else ''}", soft_wrap=True)
    console.print(f"entry point: {value}{f' ({place})' if place else ''}", soft_wrap=True)
    console.print(f"written for: rarkit {record.requires_rarkit or '(does not say)'}")
    if not record.parts:
        return
    console.print("")
    rows = []
    for kind, part in record.parts:
        keys = [f"{key} = {default}" for key, default in settings(part).items()]
        rows.append(([kind, part.part_name()], [about(part), *([", ".join(keys)] if keys else [])]))
    print_entries(("kind", "part"), rows)


def about(part: type[Component]) -> str:
    """The first paragraph of a part's documentation, in one line."""
    return " ".join((part.__doc__ or "").strip().partition("\n\n")[0].split()).replace("``", "")


def settings(part: type[Component]) -> dict[str, str]:
    """The keys of a part's recipe table with their defaults, as a recipe would write them; "required" for those without one."""
    schema = part.model_json_schema()
    required = schema.get("required", [])
    keys = {key: field for key, field in schema.get("properties", {}).items() if key != "name"}
    return {key: "required" if key in required else _toml(field.get("default")) for key, field in keys.items()}


def _toml(default: Any) -> str:
    if default is None:
        return "none"
    # JSON's numbers, strings and lists are TOML's too.
    return json.dumps(default, ensure_ascii=False)


def _where(record: PluginRecord) -> tuple[str, str]:
    """What the entry point names, and the file of that module; "" if Python finds none."""
    values = [
        point.value
        for point in entry_points(group=GROUP)
        if point.name == record.source.plugin and point.dist is not None and point.dist.name == record.source.distribution
    ]
    value = values[0] if values else ""
    try:
        spec = importlib.util.find_spec(value.partition(":")[0]) if value else None
    except Exception:  # The package around the module may raise anything when it is imported; its cause is shown above.
        return value, ""
    return value, (spec.origin or "") if spec else ""
