"""Say what a run's inference is worth: purity and efficiency, counts, and what one would get without a network.

RUN is a run's output_dir, a folder of yinf files or one yinf file. Scores are joined with the xy files they were made
from, and refused if these were made again since. Writes report.html, which holds everything, report.txt, and a CSV
file behind every picture and table to RUN/report. What was counted in a file is kept in RUN/statistics and used again
until a file or an option changes; under mpiexec or srun, ranks share out the files.

auc_pe is the area under the purity-efficiency curve (not the ROC area, which ghosts make high for any network); the
break-even is where purity equals efficiency. Data without truth get counts and score histograms.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hpcreco.experiments.protodune.analysis.cut import parse_cut
from hpcreco.experiments.protodune.analysis.join import JoinError, find_yinf
from hpcreco.world import detect

if TYPE_CHECKING:
    from hpcreco.experiments.protodune.analysis.collect import Collected, Inputs

EPILOG = """\
examples:
  hpcreco report runs/ghost3d_tiny
  hpcreco report runs/ghost3d --epoch 24 --true-cut 0.17MeV     the cut of the published figures
  hpcreco report runs/ghost3d runs/ghost_schedule               runs side by side
  hpcreco report runs/ghost3d@9 runs/ghost3d@24                 epochs side by side
  hpcreco report runs/charge --mask runs/ghost3d                charge of the voxels that the ghost net keeps
  hpcreco report runs/ghost3d --compare parsed/*_wirecell-*     with another reconstruction of the same events
  hpcreco report runs/ghost3d --true-cut 5000e --all-truth      charge lost in tiling counts against the efficiency
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = EPILOG
    _add_runs(parser)
    _add_judgement(parser)
    _add_comparison(parser)


def _add_runs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "run",
        nargs="+",
        metavar="RUN",
        help="output_dir of a run, a folder of yinf files, or a yinf file; RUN@EPOCH for one epoch of it; several are "
        "compared",
    )
    add("--epoch", type=int, help="report on this epoch's inference (default: the last one found)")
    add(
        "--xy",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="where the xy files are, if they were moved",
    )
    add("-o", "--out", type=Path, help="folder to write (default: RUN/report)")
    add("--force", action="store_true", help="compute the statistics of all files again")
    add("--no-pictures", action="store_true", help="only text and tables")


def _add_judgement(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what counts as true, and what as kept").add_argument
    add(
        "--true-cut",
        metavar="CUT",
        help="voxels with more than this are true: 0.17MeV, 5000e, or a number in the labels' unit "
        "(default: data.threshold of the run)",
    )
    add(
        "--all-truth",
        action="store_true",
        help="efficiency of all true voxels; by default of those that tiling made candidates",
    )
    add("--threshold", type=float, help="score of the working point (default: largest purity + efficiency)")
    add("--mask", type=Path, metavar="RUN", help="of charge, count only voxels that this run's scores keep")
    add(
        "--mask-threshold",
        type=float,
        default=0.35,
        metavar="P",
        help="such scores are above (default: 0.35)",
    )


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what else to look at").add_argument
    add(
        "--particles",
        type=Path,
        metavar="DIR",
        help="folder of the mcbeamcosmic files (default: of the parsed files)",
    )
    add(
        "--compare",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="parsed spacepoint or wirecell files of the same events, to be judged by the same truth",
    )
    add(
        "--compare-shift",
        type=int,
        metavar="N",
        help="fine cells to add to their x (default: 500 for spacepoint, which carries no time shift, else 0)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the report and print its text."""
    from hpcreco.experiments.protodune.analysis.collect import Inputs, collect
    from hpcreco.experiments.protodune.analysis.statistics import Options

    options = Options(
        parse_cut(args.true_cut) if args.true_cut else None, args.all_truth, args.mask_threshold
    )
    inputs = [
        Inputs(path, epoch if epoch is not None else args.epoch, tuple(args.xy), args.mask, args.particles)
        for path, epoch in map(_with_epoch, args.run)
    ]
    if len(inputs) == 1 and _only_trained(inputs[0].run):
        return _training_report(inputs[0].run, args)
    collected = [collect(each, options, args.force) for each in inputs]
    if any(each is None for each in collected):
        print("report: statistics of some files are missing; run the command again when all are made")
        return 1
    if detect().rank != 0:  # the ranks shared out the files; one report is enough
        return 0
    found = [each for each in collected if each is not None]
    text, folder = (_one if len(inputs) == 1 else _several)(inputs, found, args)
    print(f"{text}\nwritten to {folder}")
    return 0


def _one(inputs: list[Inputs], collected: list[Collected], args: argparse.Namespace) -> tuple[str, Path]:
    """The report of one run."""
    from hpcreco.experiments.protodune.analysis.collect import choose
    from hpcreco.experiments.protodune.analysis.compare import against_truth
    from hpcreco.experiments.protodune.analysis.writing import write
    from hpcreco.pages import training

    source, made = inputs[0], collected[0]
    heading = {
        "run": source.run,
        "epoch": made.epoch,
        "checkpoint": ", ".join(sorted(made.checkpoints)),
        "yinf files": made.files,
        "true voxels": made.describe(args.all_truth),
    }
    if all(each.kind == "solved" for each in made.samples):
        heading = {"run": source.run, "solved by": heading["checkpoint"], "files": made.files}
    if args.mask:
        heading["ghost mask"] = f"probability > {args.mask_threshold:g} of {args.mask}"
    compared = []
    if args.compare:
        paths = choose(source.run, source.epoch)[1]
        cut = parse_cut(args.true_cut) if args.true_cut else None
        compared = against_truth(paths, args.compare, cut, args.xy, args.compare_shift)
    folder = args.out or source.base / "report"
    trained = training.runs_with_summaries({source.base.name: source.base})
    text = write(folder, heading, made.samples, args.threshold, trained, compared, not args.no_pictures)
    return text, folder


def _several(inputs: list[Inputs], collected: list[Collected], args: argparse.Namespace) -> tuple[str, Path]:
    """Runs, or epochs of one, side by side."""
    from hpcreco.experiments.protodune.analysis.comparison import write

    names = _short_names([f"{i.run}" + (f"@{i.epoch}" if i.epoch is not None else "") for i in inputs])
    folder = args.out or inputs[0].base / "comparison"
    runs = dict(zip(names, collected, strict=True))
    folders = {name: i.base for name, i in zip(names, inputs, strict=True)}
    return write(folder, runs, folders, args.threshold, not args.no_pictures), folder


def _with_epoch(text: str) -> tuple[Path, int | None]:
    """RUN or RUN@EPOCH."""
    run, mark, epoch = text.rpartition("@")
    if mark and epoch.isdigit() and not Path(text).exists():
        return Path(run), int(epoch)
    return Path(text), None


def _short_names(texts: list[str]) -> list[str]:
    """The last parts of paths, as many as it takes to tell them apart."""
    parts = [Path(text).parts for text in texts]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    raise JoinError(f"{texts[0]} is named twice; write RUN@EPOCH to compare epochs of one run")


def _only_trained(run: Path) -> bool:
    """Is this a run that has not inferred yet?"""
    return run.is_dir() and (run / "summaries.csv").is_file() and not find_yinf(run)


def _training_report(run: Path, args: argparse.Namespace) -> int:
    """Nothing but the training, of a run without inference."""
    from hpcreco.pages import training

    if detect().rank != 0:
        return 0
    folder = args.out or run / "report"
    text = training.write(folder, training.runs_with_summaries({run.name: run}))
    print(f"{text}\nno inference yet: run `hpcreco infer` for purity and efficiency\nwritten to {folder}")
    return 0
