"""The command line: finds the verb's module, lets it parse, calls one function.

A verb's module offers ``add_arguments(parser)`` and ``run(args) -> exit code``; with ``PASSES_ON = True`` it finds what
stands behind ``--`` in ``args.passed``. Errors meant for the user are
exceptions with an `exit_code`; they are printed in one line, everything else keeps its traceback.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from hpcreco import caches, experiment, lean, leaving, version

#: verb -> (module, one line for --help); experiments add their own or take over those marked "by experiment"
CORE_VERBS = {
    "train": ("hpcreco.train.command", "train a network on xy shards: alone, under mpiexec or srun"),
    "infer": ("hpcreco.infer", "run a trained network over shards, one yinf file per shard"),
    "validate": ("hpcreco.validate", "check files: format, offsets, shapes, NaN, digest"),
    "plan": ("hpcreco.planning.command", "nodes, time and memory of a training, before its job is sent"),
    "submit": ("hpcreco.slurm.submit", "send a verb to Slurm as a job, after checking that it can run"),
    "status": ("hpcreco.slurm.status", "how a run is doing: job, epoch, rate, expected end, last error"),
    "config": ("hpcreco.show_config", "list, show or copy the configs that come with hpcreco"),
    "legacy": ("hpcreco.legacy", "scripts with the names of the original programs' commands"),
    "doctor": ("hpcreco.doctor", "what works on this machine, and what to do about what does not"),
}
#: verbs whose experiment is the first argument (simulate protodune ...)
BY_FIRST_ARGUMENT = {
    "simulate": "make parsed files from seeds alone",
}
#: verbs whose experiment follows from their file or run, unless it is the first argument
BY_FILE = {
    "convert": "legacy files <-> hpcreco's own, real and public detector files -> parsed",
    "report": "tables, curves and pictures of a run's inference",
    "display": "draw one event: three projections, 3-D, standalone HTML",
}
#: ProtoDUNE's own verbs that are at the top level as its users know them
TOP_LEVEL = {
    "tile": ("protodune", "parsed waveforms -> candidate voxels in xy shards"),
    "join-tpcs": ("protodune", "xy shards of several TPCs -> one image, truth likewise"),
    "solve": ("protodune", "charge of the cells that a network kept, from the waveforms"),
}

EPILOG = """\
the usual order, on a laptop or with mpiexec/srun in front of each:
  hpcreco simulate protodune --preset tiny --seed 1 --out parsed
  hpcreco tile -i parsed -o xy -t 1
  hpcreco train ghost3d_tiny
  hpcreco infer ghost_inf_tiny
  hpcreco report runs/ghost3d_tiny
  hpcreco display FILE --event 0

exit codes: 0 done, 1 failed, 2 wrong usage or config, 75 stopped early and can be resumed
"""


def _table() -> dict[str, tuple[str, str]]:
    """Every top-level verb: name -> (module or "", help)."""
    verbs = dict(CORE_VERBS)
    for verb, help_ in BY_FIRST_ARGUMENT.items():
        verbs[verb] = ("", help_)
    for verb, help_ in BY_FILE.items():
        verbs[verb] = ("", help_)
    for verb, (_, help_) in TOP_LEVEL.items():
        verbs[verb] = ("", help_)
    return verbs


def _overview() -> str:
    order = [
        "simulate",
        "convert",
        "tile",
        "join-tpcs",
        "train",
        "infer",
        "solve",
        "report",
        "display",
        "validate",
        "plan",
        "submit",
        "status",
        "config",
        "legacy",
        "doctor",
    ]
    verbs = _table()
    lines = [f"  {verb:10s} {verbs[verb][1]}" for verb in order]
    for found in experiment.installed():
        own = sorted(set(found.verbs) - set(verbs))
        lines.append(
            f"  {found.name:10s} {found.summary}" + (f" (own verbs: {', '.join(own)})" if own else "")
        )
    return (
        "usage: hpcreco VERB ...\n\ntrain and run particle-physics reconstruction networks on HPC systems\n\n"
        "verbs (hpcreco VERB --help says more):\n" + "\n".join(lines) + "\n\n" + EPILOG
    )


class _UsageError(Exception):
    exit_code = 2


def _verb_of(found: experiment.Experiment, verb: str) -> str:
    if verb not in found.verbs:
        known = ", ".join(sorted(found.verbs))
        raise _UsageError(f"{found.name} has no verb {verb!r}; it has: {known}")
    return found.verbs[verb]


def _by_file(verb: str, rest: list[str]) -> tuple[str, str, list[str]]:
    """Like `_find_module` for a verb whose experiment is its first argument or follows from its files."""
    if rest and rest[0] in (found.name for found in experiment.installed()):
        return f"{verb} {rest[0]}", _verb_of(experiment.find(rest[0]), verb), rest[1:]
    words = [a for a in rest if not a.startswith("-")]
    paths = [Path(a) for a in words if Path(a).exists()]
    if words and not paths:
        named = next((a for a in words if Path(a).suffix or "/" in a), words[0])
        raise _UsageError(f"there is no file or folder {named}")
    return verb, _verb_of(experiment.of_paths(paths), verb), rest


def _helps_of_all(verb: str) -> str:
    """The help of a verb in every experiment that has it."""
    having = [found for found in experiment.installed() if verb in found.verbs]
    heading = (
        f"hpcreco {verb}: {BY_FILE[verb]}.\n"
        "The experiment follows from the files, or name it first: "
        + ", ".join(f"hpcreco {verb} {found.name} ..." for found in having)
    )
    helps = [
        _parser(f"{verb} {found.name}", importlib.import_module(found.verbs[verb])).format_help()
        for found in having
    ]
    return "\n\n".join([heading, *helps])


def _find_module(arguments: Sequence[str]) -> tuple[str, str, list[str]]:
    """Program name, module and remaining arguments for a command line."""
    verb, rest = arguments[0], list(arguments[1:])
    if verb in CORE_VERBS:
        return verb, CORE_VERBS[verb][0], rest
    if verb in TOP_LEVEL:
        return verb, _verb_of(experiment.find(TOP_LEVEL[verb][0]), verb), rest
    names = [found.name for found in experiment.installed()]
    if verb in BY_FIRST_ARGUMENT:
        if not rest or rest[0].startswith("-"):
            raise _UsageError(f"hpcreco {verb} EXPERIMENT ...: name one of {', '.join(names)}")
        return f"{verb} {rest[0]}", _verb_of(experiment.find(rest[0]), verb), rest[1:]
    if verb in BY_FILE:
        return _by_file(verb, rest)
    if verb in names:
        if not rest or rest[0].startswith("-"):
            raise _UsageError(f"hpcreco {verb} VERB ...: {', '.join(sorted(experiment.find(verb).verbs))}")
        return f"{verb} {rest[0]}", _verb_of(experiment.find(verb), rest[0]), rest[1:]
    from hpcreco.config import nearest

    close = nearest(verb, [*_table(), *names])
    raise _UsageError(
        f"there is no verb {verb!r}" + (f"; did you mean {close!r}?" if close else "; see hpcreco --help")
    )


def _parser(program: str, module: ModuleType) -> argparse.ArgumentParser:
    """The parser of a verb's module."""
    parser = argparse.ArgumentParser(
        prog=f"hpcreco {program}",
        description=textwrap.dedent(module.__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return parser


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """A verb's own arguments, and those behind ``--`` that it passes on to another."""
    if "--" not in arguments:
        return arguments, []
    place = arguments.index("--")
    return arguments[:place], arguments[place + 1 :]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run hpcreco; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview(), end="")
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"hpcreco {version.described()}")
        return 0
    caches.settle()
    lean.without_scans()
    try:
        if arguments[0] in BY_FILE and set(arguments[1:]) in ({"-h"}, {"--help"}):
            print(_helps_of_all(arguments[0]), end="")
            sys.exit(0)  # as --help of any other verb does
        program, module_name, rest = _find_module(arguments)
        module = importlib.import_module(module_name)
        parser = _parser(program, module)
        own, passed = _split(rest) if getattr(module, "PASSES_ON", False) else (rest, [])
        args = parser.parse_args(own, argparse.Namespace(passed=passed))
        return leaving.agreed(int(module.run(args)))
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None:
            raise
        if not getattr(error, "quiet", False):  # another rank has printed it
            print(f"hpcreco: error: {error}", file=sys.stderr)
        return leaving.refused(error, int(code))
    except KeyboardInterrupt:
        print("hpcreco: interrupted", file=sys.stderr)
        return 130


def entry() -> NoReturn:
    """The process of a command: what it has to say is its exit code."""
    try:
        try:
            code = main()
        finally:
            print(end="", flush=True)  # where there is an output at all
    except BrokenPipeError:
        if not leaving.unread():
            raise
        code = 1
    leaving.deafen()
    sys.exit(code)


if __name__ == "__main__":
    entry()
