"""Is a job's output there, whole, and made of what it would be made of now?"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hpcreco.shards import Schema, Shard, ShardError


def fingerprint(content: Any) -> str:
    """Digest of all that decides a file's content, given as JSON values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


#: why a file is made again whose fingerprint says something else
OTHERWISE_MADE = "stale: made with another seed, other options or another version"


def unfinished(
    path: Path, attribute: str, expected: Any, otherwise: str = OTHERWISE_MADE, schema: Schema | None = None
) -> str | None:
    """None when the shard `path` is whole and holds `expected` in an attribute, else why it has to be made.

    otherwise: the reason when the attribute says something else, or nothing. schema: what it has to be a shard of.
    """
    if not path.is_file():
        return "missing"
    try:
        with Shard(path, schema) as shard:
            recorded = shard.attributes.get(attribute)
    except ShardError as error:
        return f"broken: {error}"
    return None if recorded == expected else otherwise
