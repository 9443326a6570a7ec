"""JSON that was valid, with something in it changed, as a damaged disk, another program or somebody who means harm leaves it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    2**63,
    10**400,
    1e300,
    -0.5,
    float("nan"),
    float("inf"),
    "",
    "a",
    "../..",
    "a/../../b",
    "\x00",
    "\x1b[2J\n\u202e",
    "x" * 5000,
    "ü" * 200,
    [],
    [[]],
    {},
    {"a": {"b": [None]}},
    [{"\x1b[31m\n": 1}],
]
"""Values of the wrong type, size or shape."""
DEEP = '{"a":' * 150 + "1" + "}" * 150
DEEPER = b"[" * 100_000


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in plain JSON data, its own among them."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(below for key, item in items for below in places(item, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: Any, *, delete: bool = False) -> Any:
    """A copy of plain JSON data with another value at a path, or none."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if delete and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = changed(value[path[0]], path[1:], new, delete=delete)
    return copy


@st.composite
def mutated(draw: st.DrawFn, content: Any) -> bytes:
    """Plain JSON data as text, after one or two changes of values or of bytes."""
    for _ in range(draw(st.integers(1, 2))):
        # Short paths first, so that all kinds of values are reached in tables with thousands.
        path = draw(st.sampled_from(sorted(places(content), key=len)[:400]))
        deep = draw(st.booleans()) and draw(st.booleans())
        new = json.loads(DEEP) if deep else draw(st.sampled_from(ODD))
        content = changed(content, path, new, delete=draw(st.booleans()) and bool(path))
    text = json.dumps(content, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    kind = draw(st.sampled_from(["whole"] * 6 + ["cut", "byte", "deep", "surrogate", "latin", "twice"]))
    place = draw(st.integers(0, max(0, len(text) - 1)))
    match kind:
        case "cut":
            return text[:place]
        case "byte":
            return text[:place] + draw(st.binary(min_size=1, max_size=3)) + text[place + 1 :]
        case "deep":
            return text[:place] + DEEPER
        case "surrogate":
            return text.replace(b'"', b'"\\ud800', 1)
        case "latin":
            return text.replace(b'"', b'"\xe9', 1)
        case "twice":
            return text + text
    return text
