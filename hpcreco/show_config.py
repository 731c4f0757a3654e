"""The configs that come with hpcreco: list them, show one as it would run, or copy one to edit.

`show` prints the config with everything it extends and all overrides applied; with --typed it prints the `Run` that
training would see, every default filled in.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import yaml

from hpcreco import config, experiment

EPILOG = """\
examples:
  hpcreco config list
  hpcreco config show ghost3d_tiny
  hpcreco config show ghost3d_tiny --typed --set optimizer.lr=0.001
  hpcreco config copy ghost3d_tiny my.yaml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.epilog = EPILOG
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|show|copy")
    actions.add_parser("list", help="name the shipped configs, one line each")
    show = actions.add_parser("show", help="print a config with everything it extends")
    copy = actions.add_parser("copy", help="copy a shipped config to a file of your own")
    for action in (show, copy):
        action.add_argument("config", metavar="CONFIG", help="a YAML file, or the name of a shipped config")
    show.add_argument(
        "--set", metavar="a.b=c", action="append", default=[], help="override a key; may be repeated"
    )
    show.add_argument("--typed", action="store_true", help="the Run that training would see")
    show.add_argument("--lenient", action="store_true", help="unknown keys warn instead of failing")
    copy.add_argument("target", type=Path, metavar="FILE", help="where the copy goes; never overwritten")


def run(args: argparse.Namespace) -> int:
    """List, show or copy."""
    if args.action == "list":
        _list()
    elif args.action == "show":
        _show(args)
    else:
        _copy(config.find(args.config), args.target)
    return 0


def _list() -> None:
    folder = config.shipped_configs()
    paths = sorted(folder.rglob("*.yaml"))
    width = max((len(str(path.relative_to(folder))) for path in paths), default=0)
    for path in paths:
        print(f"{path.relative_to(folder).with_suffix('')!s:{width}s}  {_headline(path)}")


def _headline(path: Path) -> str:
    """The first comment line of a config says what it is for."""
    first = path.read_text().partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""


def _show(args: argparse.Namespace) -> None:
    if not args.typed:
        print(
            yaml.safe_dump(config.override(config.read(config.find(args.config)), args.set), sort_keys=False),
            end="",
        )
        return
    raw = config.load(args.config, args.set)
    run = experiment.recognise(raw).load("normalise")(raw, args.lenient)
    print(yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False), end="")


def _copy(source: Path, target: Path) -> None:
    if target.exists():
        raise config.ConfigError(f"{target} exists; choose another name")
    shutil.copyfile(source, target)
    print(f"{target}: edit it, then hpcreco train {target}")
