"""Commands of the original programs by their old names, for scripts and habits that know them.

``hpcreco legacy install DIR`` writes thin scripts that call hpcreco; ``hpcreco legacy list`` says which there are. A
script needs nothing but the Python that hpcreco is installed in.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from hpcreco import experiment

#: file name -> (what it was for, arguments of hpcreco before those of the command line)
Wrappers = Mapping[str, tuple[str, tuple[str, ...]]]

EPILOG = """\
examples:
  hpcreco legacy list
  hpcreco legacy install bin
  python bin/create_trafo_model.py CONFIG     is then  hpcreco icecube trafo CONFIG
  python bin/export_manager.py CONFIG -o DIR
"""

_SCRIPT = '''\
#!{python}
"""{summary}. Written by `hpcreco legacy install`; the same as `hpcreco {arguments} ...`."""

import sys

from hpcreco.cli import main

sys.exit(main([{quoted}, *sys.argv[1:]]))
'''


class LegacyError(RuntimeError):
    """A script cannot be written."""

    exit_code = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = EPILOG
    parser.add_argument("action", choices=("install", "list"))
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="where install writes")
    parser.add_argument("--force", action="store_true", help="replace files of these names")


def run(args: argparse.Namespace) -> int:
    """Write the scripts, or name them."""
    wrappers = known()
    if args.action == "list":
        for name, (summary, arguments) in wrappers.items():
            print(f"{name:24s} hpcreco {' '.join(arguments):16s} {summary}")
        return 0
    if args.folder is None:
        raise LegacyError("hpcreco legacy install DIR: name the folder to write to")
    install(args.folder, wrappers, args.force)
    return 0


def known() -> dict[str, tuple[str, tuple[str, ...]]]:
    """The scripts of all experiments, in the order of their names."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for one in experiment.installed():
        if one.legacy:
            found.update(one.load("legacy"))
    return dict(sorted(found.items()))


def install(folder: Path, wrappers: Wrappers, force: bool = False) -> None:
    """Write `wrappers` into `folder`, executable. Raises LegacyError for a file that is there, unless `force`."""
    there = sorted(name for name in wrappers if (folder / name).exists())
    if there and not force:
        raise LegacyError(
            f"{folder} has {', '.join(there)} already; replace with --force, or choose another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, (summary, arguments) in wrappers.items():
        path = folder / name
        path.write_text(
            _SCRIPT.format(
                python=sys.executable,
                summary=summary[0].upper() + summary[1:],
                arguments=" ".join(arguments),
                quoted=", ".join(f'"{argument}"' for argument in arguments),
            )
        )
        path.chmod(0o755)
        print(path)
