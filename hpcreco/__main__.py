"""Run as `python -m hpcreco`."""

import sys

from hpcreco.cli import main

sys.exit(main())
