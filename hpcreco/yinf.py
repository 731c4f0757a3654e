"""yinf shards: what inference writes, one file per input shard, and how it is tied to that shard.

Torch-free, because reports and displays read yinf files on machines without torch.
"""

from __future__ import annotations

from pathlib import Path

from hpcreco.shards import Attribute, Shard


class YinfError(RuntimeError):
    """A yinf file and the shard it is read with do not belong together."""

    exit_code = 1


#: attributes that every yinf schema holds beside the experiment's own
ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("experiment", "str"),
    Attribute("epoch", "int"),
    Attribute("step", "int"),
    Attribute("checkpoint", "str", volatile=True),
    Attribute("checkpoint_digest", "str"),
    Attribute("input_file", "str", volatile=True),
    Attribute("input_digest", "str"),
    Attribute("sums", "json", required=False),
    Attribute("backend", "str", volatile=True),
    Attribute("ranks", "int", volatile=True),
)


def file_name(epoch: int, input_path: Path, product: str = "xy") -> str:
    """``epoch<e>-<input name with the product token replaced by yinf>``, e.g. epoch3-reco_Mu_001_yinf-TPC1.h5."""
    head, token, tail = input_path.name.rpartition(f"_{product}")
    name = f"{head}_yinf{tail}" if token else f"{input_path.stem}_yinf{input_path.suffix}"
    return f"epoch{epoch}-{name}"


def check_match(yinf: Shard, source: Shard) -> None:
    """Refuse a yinf shard that was not made from `source`: `YinfError` names both files and the remedy."""
    expected = yinf.attributes["input_digest"]
    if expected != source.digest:
        raise YinfError(
            f"{yinf.path} was made from a shard with digest {expected[:12]}, but {source.path} has "
            f"{source.digest[:12]}: the input was made again since; run `hpcreco infer` again"
        )
    if list(yinf.event_ids) != list(source.event_ids):
        raise YinfError(f"{yinf.path} and {source.path} hold different events; run `hpcreco infer` again")
