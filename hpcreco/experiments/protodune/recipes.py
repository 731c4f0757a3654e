"""What decides a file's content, recorded in it: a finished file with another recipe is stale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcreco.shards import Shard, ShardError


def unfinished(path: Path, expected: Mapping[str, Any]) -> str | None:
    """None when the shard `path` is complete and its attribute `recipe` is as `expected`, else why not."""
    if not path.is_file():
        return "missing"
    try:
        with Shard(path) as shard:
            recorded = shard.attributes.get("recipe") or {}
    except ShardError as error:
        return f"broken: {error}"
    changed = sorted(key for key in expected if recorded.get(key) != expected[key])
    return f"stale: {', '.join(changed)} changed" if changed else None
