"""Every file-wise job: inputs minus finished outputs, shared over workers, each file failing alone.

A verb makes a list of `Job`s, a function that does one, and one that says whether a job's outputs are already
there and right; `run` does the rest, the same alone, under mpiexec or srun, and as Slurm array tasks.

Array tasks run at different times, so what they share out must not depend on what is finished: the whole list
is split over array tasks first, and each task shares what is unfinished of its part over its ranks.
"""

from hpcreco.filewise.finished import fingerprint, unfinished
from hpcreco.filewise.flags import add_filewise_arguments, options, positive
from hpcreco.filewise.jobs import FilewiseError, Job
from hpcreco.filewise.running import run
from hpcreco.filewise.splitting import SCHEDULES, by_size, contiguous

__all__ = [
    "SCHEDULES",
    "FilewiseError",
    "Job",
    "add_filewise_arguments",
    "by_size",
    "contiguous",
    "fingerprint",
    "options",
    "positive",
    "run",
    "unfinished",
]
