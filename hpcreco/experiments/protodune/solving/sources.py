"""The files a solve is made from, found and known to belong together: xy, waveforms, and maybe a network's output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcreco.experiments.protodune import EXPERIMENT, names
from hpcreco.experiments.protodune.analysis.join import find_xy, opened
from hpcreco.experiments.protodune.batches import Source
from hpcreco.experiments.protodune.xy_writer import inspect
from hpcreco.shards import Shard


class SolveError(RuntimeError):
    """Files that cannot be solved, or options that do not fit them."""

    exit_code = 2


@dataclass(frozen=True)
class Sources:
    """One xy file with its waveforms and, if a network chose the cells, its yinf file.

    What is wrong with them is in `problem`.
    """

    xy: Source
    tpc: int
    geometry_digest: str
    downsample: tuple[int, int, int]
    wire: Source | None = None
    yinf: Source | None = None
    problem: str = ""

    @property
    def named(self) -> Path:
        """The file the output is named after."""
        return self.yinf.path if self.yinf else self.xy.path


def find(path: Path, parsed_folders: Sequence[Path] = (), xy_folders: Sequence[Path] = ()) -> Sources:
    """All that belongs to a yinf or an xy file. Raises SolveError, JoinError or ShardError when `path` is no such."""
    yinf: Source | None = None
    with Shard(path) as shard:
        product = str(shard.attributes["format"]).removeprefix("hpcreco/protodune/")
        if product not in ("yinf", "xy"):
            raise SolveError(f"{path}: a {product} file; give yinf files, or xy files with --cells")
        xy_path = path
        if product == "yinf":
            yinf = Source(path, shard.n_events, shard.digest)
            xy_path = find_xy(shard, xy_folders)
    if yinf is not None:
        with opened(path, [xy_path.parent]) as (made, _):
            if made.attributes["kind"] != "probability":
                raise SolveError(f"{path}: holds {made.attributes['kind']}; cells are chosen by probability")
    with Shard(xy_path, EXPERIMENT.schema("xy")) as xy:
        tpcs = list(xy.attributes["tpc"])
        if len(tpcs) != 1:
            raise SolveError(
                f"{xy_path}: joined of TPCs {tpcs}; solve each TPC, then `hpcreco protodune merge-tpcs`"
            )
        x, y, z = (int(factor) for factor in xy.attributes["downsample"])
        source = Source(xy_path, xy.n_events, xy.digest)
        wire = _waveforms(xy, parsed_folders)
        return Sources(source, int(tpcs[0]), xy.attributes["geometry_digest"], (x, y, z), wire, yinf)


def _waveforms(xy: Shard, folders: Sequence[Path]) -> Source:
    """The file that `xy` was tiled from: in `folders` if given, else where it was. Raises SolveError."""
    name, product = names.require(xy.path), xy.attributes["x_type"]
    recorded = [Path(file) for file in xy.attributes["source_files"]]
    places = [path for path in recorded if _is_of(names.parse(path), name, product)]
    digests = list(xy.attributes["source_digests"])
    if folders:
        known, _ = names.scan(folders)
        found = [file.path for file in known if _is_of(file, name, product)]
        places = sorted(found, key=lambda path: (path.suffix != ".h5", str(path)))
    there = [path for path in places if path.is_file()]
    if not there:
        raise SolveError(
            f"{xy.path}: its {product} file {places[0] if places else ''} is not there; name the folder with -i PARSED"
        )
    source = inspect(there[0])
    if digests and source.digest != digests[0]:
        raise SolveError(
            f"{xy.path} was tiled from a {product} file with digest {digests[0][:12]}, but {source.path} has "
            f"{source.digest[:12]}: run `hpcreco tile` again"
        )
    return source


def _is_of(file: names.FileName | None, xy: names.FileName, product: str) -> bool:
    same = ("event_type", "index", "tpc")
    return file is not None and file.product == product and file.key(*same) == xy.key(*same)
