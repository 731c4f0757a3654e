"""The arguments of every verb that takes a config, and the `Run` they describe."""

from __future__ import annotations

import argparse

from hpcreco import config, experiment


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every verb that takes a config."""
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or the name of a shipped config")
    parser.add_argument(
        "--set", metavar="a.b=c", action="append", default=[], help="override a key; may be repeated"
    )
    parser.add_argument(
        "--lenient", action="store_true", help="unknown keys and changed settings warn instead of failing"
    )
    parser.add_argument(
        "-d",
        "--backend",
        choices=["serial", "horovod", "ddp", "mpi", "nccl", "gloo"],
        help="how ranks add gradients (default: serial alone, horovod or else ddp when launched with several ranks)",
    )
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], help="where to compute (default: a GPU if there is one)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log every step")


def load_run(args: argparse.Namespace) -> tuple[config.Run, experiment.Experiment]:
    """The `Run` that the config and the flags describe, and its experiment."""
    raw = config.load(args.config, args.set)
    found = experiment.recognise(raw)
    run = found.load("normalise")(raw, args.lenient)
    changes = {name: getattr(args, name) for name in ("backend", "device") if getattr(args, name, None)}
    return (run.model_copy(update=changes) if changes else run), found
