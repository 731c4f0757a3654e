"""Commands of the original programs by their old names, for scripts and habits that know them.

``hpcreco legacy install DIR`` writes thin scripts that call hpcreco, and the configs that their documents name;
``hpcreco legacy list`` says which there are. A script needs nothing but the Python that hpcreco is installed in.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcreco import config, experiment
from hpcreco.slurm.scripts import shipped_jobs

EPILOG = """\
examples:
  hpcreco legacy list
  hpcreco legacy install bin
  python bin/create_trafo_model.py CONFIG     is then  hpcreco icecube trafo CONFIG
  bin/scripts/train_local.sh bin/configs/ghost3d.yaml --resume -v
  sbatch -N 5 -t 60 bin/scripts/train_cori.sh bin/configs/ghost3d.yaml
"""


@dataclass(frozen=True)
class Script:
    """One script of an original program.

    arguments: of hpcreco, in front of those of the command line. translate: ``module:function``, old arguments -> those
    of hpcreco, in the place of `arguments`. text: a shell script instead, in which ``{bin}`` is the folder of hpcreco's
    Python and ``{jobs}`` that of the job scripts.
    """

    summary: str
    arguments: tuple[str, ...] = ()
    translate: str = ""
    text: str = ""


@dataclass(frozen=True)
class Wrappers:
    """What an experiment installs: scripts by their path below DIR, and its shipped configs into DIR/configs."""

    scripts: Mapping[str, Script]
    configs: str = ""


_SCRIPT = '''\
#!{python}
"""{summary}. Written by `hpcreco legacy install`; {same}."""

import sys

{imports}

sys.exit(main({arguments}))
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
        for name, script in sorted(scripts_of(wrappers).items()):
            print(f"{name:28s} {script.summary}")
        return 0
    if args.folder is None:
        raise LegacyError("hpcreco legacy install DIR: name the folder to write to")
    install(args.folder, wrappers, args.force)
    return 0


def known() -> list[Wrappers]:
    """What the installed experiments have."""
    return [one.load("legacy") for one in experiment.installed() if one.legacy]


def scripts_of(wrappers: list[Wrappers]) -> dict[str, Script]:
    """All scripts by their path."""
    return {name: script for one in wrappers for name, script in one.scripts.items()}


def install(folder: Path, wrappers: list[Wrappers], force: bool = False) -> None:
    """Write `wrappers` into `folder`, scripts executable; configs that are there already stay as they are.

    Raises LegacyError for a script that is there, unless `force`.
    """
    scripts = scripts_of(wrappers)
    there = sorted(name for name in scripts if (folder / name).exists())
    if there and not force:
        raise LegacyError(
            f"{folder} has {', '.join(there)} already; replace with --force, or choose another folder"
        )
    for name, script in scripts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text_of(script))
        path.chmod(0o755)
        print(path)
    for one in wrappers:
        if one.configs:
            _copy_configs(config.shipped_configs() / one.configs, folder / "configs")


def text_of(script: Script) -> str:
    """The whole script."""
    here = Path(sys.executable).parent
    if script.text:
        return script.text.replace("{bin}", str(here)).replace("{jobs}", str(shipped_jobs()))
    imports = "from hpcreco.cli import main"
    if script.translate:
        module, _, function = script.translate.partition(":")
        imports += f"\nfrom {module} import {function}"
        arguments, same = f"{function}(sys.argv[1:])", "it calls hpcreco"
    else:
        quoted = ", ".join(f'"{argument}"' for argument in script.arguments)
        arguments, same = (
            f"[{quoted}, *sys.argv[1:]]",
            f"the same as `hpcreco {' '.join(script.arguments)} ...`",
        )
    summary = script.summary[0].upper() + script.summary[1:]
    return _SCRIPT.format(
        python=sys.executable, summary=summary, same=same, imports=imports, arguments=arguments
    )


def _copy_configs(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.yaml")):
        if not (target / path.name).exists():
            shutil.copyfile(path, target / path.name)
    print(f"{target}: configs to edit")
