"""Say what a run's inference is worth: purity and efficiency, counts, and what one would get without a network.

RUN is a run's output_dir, a folder of yinf files or one yinf file. Scores are joined with the xy files they were made
from, and refused if these were made again since. Writes report.txt, CSV tables and pictures to RUN/report.

auc_pe is the area under the purity-efficiency curve (not the ROC area, which ghosts make high for any network); the
break-even is where purity equals efficiency. Data without truth get counts and score histograms.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hpcreco.experiments.protodune.analysis.cut import Cut, Label, parse_cut
from hpcreco.experiments.protodune.analysis.join import JoinError, find_yinf, label_of, opened, scored_events
from hpcreco.experiments.protodune.analysis.sample import Sample
from hpcreco.world import detect

EPILOG = """\
examples:
  hpcreco report runs/ghost3d_tiny
  hpcreco report runs/ghost3d --epoch 24 --true-cut 0.17MeV     the cut of the published figures
  hpcreco report runs/ghost3d --true-cut 5000e --all-truth      charge lost in tiling counts against the efficiency
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = EPILOG
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="output_dir of a run, a folder of yinf files, or a yinf file"
    )
    parser.add_argument(
        "--epoch", type=int, help="report on this epoch's inference (default: the last one found)"
    )
    parser.add_argument(
        "--true-cut",
        metavar="CUT",
        help="voxels with more than this are true: 0.17MeV, 5000e, or a number in the labels' unit "
        "(default: data.threshold of the run)",
    )
    parser.add_argument(
        "--all-truth",
        action="store_true",
        help="efficiency of all true voxels; by default of those that tiling made candidates",
    )
    parser.add_argument(
        "--threshold", type=float, help="score of the working point (default: largest purity + efficiency)"
    )
    parser.add_argument(
        "--xy",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="where the xy files are, if they were moved",
    )
    parser.add_argument("-o", "--out", type=Path, help="folder to write (default: RUN/report)")
    parser.add_argument("--no-pictures", action="store_true", help="only text and tables")


def run(args: argparse.Namespace) -> int:
    """Write the report and print its text."""
    from hpcreco.experiments.protodune.analysis.tables import text_report, write_tables

    if detect().rank != 0:  # started like the other verbs under mpiexec or srun: one report is enough
        return 0
    epoch, paths = _choose(args.run, args.epoch)
    cut = parse_cut(args.true_cut) if args.true_cut else None
    joined = join(paths, args.xy, cut, args.all_truth)
    base = args.run.parent if args.run.is_file() else args.run
    heading = {
        "run": args.run,
        "epoch": epoch,
        "checkpoint": ", ".join(sorted(joined.checkpoints)),
        "yinf files": len(paths),
        "true voxels": joined.describe(args.all_truth),
    }
    folder = args.out or base / "report"
    with replacing(folder) as temporary:
        text = text_report(heading, joined.samples, args.threshold)
        (temporary / "report.txt").write_text(text)
        write_tables(temporary, joined.samples, args.threshold)
        if not args.no_pictures:
            from hpcreco.experiments.protodune.analysis.figures import write_figures

            write_figures(temporary, joined.samples, args.threshold, _training(base))
    print(f"{text}\nwritten to {folder}")
    return 0


def _choose(run: Path, epoch: int | None) -> tuple[int, list[Path]]:
    """The epoch to report on and its yinf files."""
    if not run.exists():
        raise JoinError(f"there is no {run}")
    found = find_yinf(run)
    if not found:
        raise JoinError(f"{run} holds no yinf files (epoch<e>-..._yinf....h5); run `hpcreco infer` first")
    if epoch is not None and epoch not in found:
        raise JoinError(
            f"{run} holds no yinf files of epoch {epoch}; there are epochs {', '.join(map(str, sorted(found)))}"
        )
    chosen = max(found) if epoch is None else epoch
    return chosen, found[chosen]


@dataclass
class Joined:
    """Samples by event type, and what their truth means."""

    samples: list[Sample]
    checkpoints: set[str]
    cuts: set[str]

    def describe(self, all_truth: bool) -> str:
        """Which voxels count as true."""
        if not self.cuts:
            return "unknown: data without truth"
        whole = "all true voxels" if all_truth else "the true ones among the candidates"
        return f"{', '.join(sorted(self.cuts))}; efficiency of {whole}"


def join(paths: Sequence[Path], xy_folders: Sequence[Path], cut: Cut | None, all_truth: bool) -> Joined:
    """Read yinf files with their xy shards, event by event. Without `cut` each file's own threshold holds."""
    samples: dict[str, Sample] = {}
    joined = Joined([], set(), set())
    seen: dict[Path, Path] = {}
    for path in paths:
        with opened(path, xy_folders) as (yinf, xy):
            source = xy.path.resolve()
            if source in seen:
                raise JoinError(
                    f"{seen[source]} and {path} are both of {source}: its events would count twice; "
                    "give the folder of one"
                )
            seen[source] = path
            own = cut or Cut(float(yinf.attributes.get("threshold") or 0.0))
            name = xy.attributes["event_type"]
            label = label_of(xy)
            if label is None:
                name = f"{name} (no truth)"
            else:
                joined.cuts.add(_meaning(own, label))
            joined.checkpoints.add(str(yinf.attributes["checkpoint_digest"])[:12])
            features = tuple(xy.attributes["feature_names"])
            sample = samples.setdefault(name, Sample(name, features, comp_true=all_truth))
            order = _order(sample.feature_names, features, path)
            for event in scored_events(yinf, xy, own):
                sample.add(event.reordered(order))
    joined.samples = [samples[name] for name in sorted(samples)]
    return joined


def _order(planes: tuple[str, ...], features: tuple[str, ...], path: Path) -> list[int]:
    """Columns of `features` in the order of `planes`: the two faces of an APA have V, X, U and U, X, V."""
    if sorted(planes) != sorted(features):
        raise JoinError(
            f"{path}: its xy file has features {features}, others of the same event type {planes}"
        )
    return [features.index(plane) for plane in planes]


def _meaning(cut: Cut, label: Label) -> str:
    text = f"{cut.against(label):g} {label.unit}"
    return f"label > {text}" if cut.unit is None or str(cut) == text else f"label > {text} ({cut})"


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `folder` at the end, or vanishes on an exception."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.part-{os.getpid()}")
    temporary.mkdir()
    try:
        yield temporary
        _replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`, which is kept if that fails; only a former report is replaced."""
    if not folder.exists():
        new.rename(folder)
        return
    if any(folder.iterdir()) and not (folder / "report.txt").is_file():
        raise JoinError(f"{folder} exists and is no report; choose another folder with --out")
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)


def _training(folder: Path) -> list[dict[str, float]]:
    """Rows of the run's summaries, if it was trained here."""
    from hpcreco.train.summary import read

    path = folder / "summaries.csv"
    return read(path) if path.is_file() else []
