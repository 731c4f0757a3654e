"""Run as `python -m hpcreco`."""

from hpcreco.cli import entry

entry()
