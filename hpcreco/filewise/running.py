"""Do the jobs: plan on one state of the disk, share out, work, report."""

from __future__ import annotations

import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcreco import attempts, shards
from hpcreco import world as _world
from hpcreco.collective import Collective, connect
from hpcreco.filewise.jobs import FilewiseError, Job, check_distinct
from hpcreco.filewise.reporting import FORMAT, Progress, print_plan, print_summary, write_report
from hpcreco.filewise.signals import EXIT_STOPPED, Stopped, StopSignals
from hpcreco.filewise.splitting import contiguous, largest_first, split


@dataclass
class _Plan:
    """What this world (one array task, or all) does: reasons by job number, and the rank of each unfinished
    job.
    """

    mine: list[int]
    reasons: dict[int, str]
    by_rank: list[list[int]] = field(default_factory=list)


def run(
    jobs: Iterable[Job],
    work: Callable[[Job], dict[str, Any] | None],
    *,
    finished: Callable[[Job], str | None],
    title: str,
    schedule: str = "contiguous",
    dry_run: bool = False,
    force: bool = False,
    report: Path | None = None,
    run_report: Path | None = None,
    collective: Collective | None = None,
) -> int:
    """Do what is unfinished of `jobs`; every rank calls this with the same list and gets the same exit code.

    `finished(job)` is None when its outputs stand, or why not ("missing", "stale: ...", "broken: ...").
    `work(job)` makes them and may return numbers for the run report, which goes to `run_report` (the user's
    wish) or `report` (the verb's place). A job that raises fails alone. SIGTERM, SIGINT, SIGUSR1 and SIGUSR2
    abandon the file in work.

    Returns 0 when all went well, 1 when a job failed, 75 when stopped. Raises FilewiseError for two jobs with
    the same key or output, before any work.
    """
    collective = connect() if collective is None else collective
    try:
        # one list for all, should a folder have changed between two ranks' looks
        agreed: list[Job] = collective.broadcast(list(jobs))
        check_distinct(agreed)
        workers = _world.workers()
        mine = _part_of_array(agreed, schedule, workers.array_index, workers.array_count, collective.size)
        plan = _planned(agreed, mine, finished, force, schedule, collective)
        first_worker = workers.array_index * collective.size
        if dry_run:
            if collective.rank == 0:
                print_plan(title, agreed, plan.mine, plan.reasons, plan.by_rank, first_worker, schedule)
            return 0
        head = {
            "format": FORMAT,
            "title": title,
            "schedule": schedule,
            "workers": workers.array_count * collective.size,
            "array_task": workers.array_index,
            "array_tasks": workers.array_count,
        }
        return _carry_out(agreed, plan, work, collective, head, first_worker, run_report or report)
    except FilewiseError as error:
        vars(error).update(everywhere=True)
        raise
    except BaseException:  # also SystemExit: the other ranks would wait for this one for ever
        if collective.size > 1:
            traceback.print_exc()
            collective.abort(1)
        raise


def _carry_out(
    jobs: list[Job],
    plan: _Plan,
    work: Callable[[Job], dict[str, Any] | None],
    collective: Collective,
    head: dict[str, Any],
    first_worker: int,
    report: Path | None,
) -> int:
    """Work, gather what happened, report; the exit code, the same on every rank."""
    started = time.time()
    if collective.rank == 0:
        shards.remove_dead(output for number in plan.mine for output in jobs[number].outputs)
    record = _record_of_attempt(collective)
    if record:
        record.start(len(plan.mine) - len(plan.reasons))
    collective.barrier()
    with StopSignals() as signals:  # until the report stands: only the file in work is given up
        records = _work_through(jobs, plan, work, collective, head, first_worker, signals)
        gathered = collective.gather((records, signals.received))
        code = 0
        if gathered is not None:
            done = [record for part, _ in gathered for record in part]
            done += _unworked(jobs, plan, done)
            stops = sorted({signal for _, signal in gathered if signal})
            code = EXIT_STOPPED if stops else int(any(record["status"] == "failed" for record in done))
            content = head | {
                "stopped_by": stops,
                "exit_code": code,
                "seconds": round(time.time() - started, 3),
                "counts": dict(Counter(record["status"] for record in done)),
                "jobs": sorted(done, key=lambda record: record["key"]),
            }
            written = write_report(report, content)
            print_summary(content, written)
            code = code or int(report is not None and written is None)
            if record:
                _note_end(record, code, content)
        return collective.broadcast(code)


def _record_of_attempt(collective: Collective) -> attempts.Record | None:
    """Where rank 0 notes its start and end, if a job script wants to know; it decides by them about requeueing."""
    path = os.environ.get(attempts.VARIABLE)
    return attempts.Record(Path(path), collective.size) if path and collective.rank == 0 else None


def _note_end(record: attempts.Record, code: int, content: dict[str, Any]) -> None:
    counts = Counter(content["counts"])
    finished = counts["done"] + counts["skipped"]
    if code == EXIT_STOPPED:
        record.end("stopped", finished, ", ".join(content["stopped_by"]))
    elif code == 0:
        record.end("done", finished)
    else:
        record.end("failed", finished, f"{counts['failed']} files failed")


def _part_of_array(jobs: list[Job], schedule: str, task: int, tasks: int, ranks: int) -> list[int]:
    """The jobs of all ranks of one array task, by number; it depends on the list alone."""
    workers = range(task * ranks, (task + 1) * ranks)
    shares = split([job.size for job in jobs], tasks * ranks, schedule)
    return sorted(number for worker in workers for number in shares[worker])


def _planned(
    jobs: list[Job],
    mine: list[int],
    finished: Callable[[Job], str | None],
    force: bool,
    schedule: str,
    collective: Collective,
) -> _Plan:
    """Every rank looks at its share of the outputs; rank 0 decides, so that all ranks act on one state of the
    disk.
    """
    looked_at = [mine[i] for i in contiguous(len(mine), collective.size)[collective.rank]]
    reasons = {number: "forced" if force else _reason(jobs[number], finished) for number in looked_at}
    gathered = collective.gather({number: reason for number, reason in reasons.items() if reason is not None})
    plan = None
    if gathered is not None:
        todo = {number: reason for part in gathered for number, reason in part.items()}
        numbers = sorted(todo)
        shares = split([jobs[number].size for number in numbers], collective.size, schedule)
        plan = _Plan(mine, todo, [[numbers[i] for i in share] for share in shares])
    return collective.broadcast(plan)


def _reason(job: Job, finished: Callable[[Job], str | None]) -> str | None:
    try:
        return finished(job)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with an output, it has to be made again
        return f"broken: {error}"


def _work_through(
    jobs: list[Job],
    plan: _Plan,
    work: Callable[[Job], dict[str, Any] | None],
    collective: Collective,
    head: dict[str, Any],
    first_worker: int,
    signals: StopSignals,
) -> list[dict[str, Any]]:
    """Records of this rank's files, until they are done or a signal comes."""
    worker = first_worker + collective.rank
    records: list[dict[str, Any]] = []
    title, schedule = head["title"], head["schedule"]
    queue = _queue(jobs, plan, schedule, collective)
    expected = None if schedule == "dynamic" and collective.size > 1 else len(plan.by_rank[collective.rank])
    with closing(queue), Progress(title, expected, worker, collective) as progress:
        for number in queue:
            if signals.received:
                break
            record = _do(jobs[number], work, signals)
            record |= {"worker": worker, "reason": plan.reasons[number]}
            records.append(record)
            progress.advance(record)
            if signals.received:
                break
    return records


def _queue(jobs: list[Job], plan: _Plan, schedule: str, collective: Collective) -> Generator[int, None, None]:
    if schedule != "dynamic":
        yield from plan.by_rank[collective.rank]
        return
    numbers = sorted(plan.reasons)
    order = largest_first([jobs[number].size for number in numbers])
    with closing(collective.take(len(order))) as taken:
        for turn in taken:
            yield numbers[order[turn]]


def _do(job: Job, work: Callable[[Job], dict[str, Any] | None], signals: StopSignals) -> dict[str, Any]:
    started = time.perf_counter()
    record = _record(job, "done")
    try:
        with signals.interrupting():
            result = work(job)
        absent = [str(output) for output in job.outputs if not output.exists()]
        if absent:
            raise RuntimeError(f"no output {absent[0]} was made")
        if result is not None:
            record["result"] = result
    except Stopped as stop:
        record |= {"status": "stopped", "error": str(stop)}
    except Exception as error:  # noqa: BLE001 - one bad file fails alone
        message = str(error) or type(error).__name__
        expected = hasattr(error, "exit_code")
        record |= {
            "status": "failed",
            "error": message if expected else f"{type(error).__name__}: {message}",
            "traceback": traceback.format_exc(),
        }
    record["seconds"] = round(time.perf_counter() - started, 3)
    return record


def _record(job: Job, status: str) -> dict[str, Any]:
    return {
        "key": job.key,
        "status": status,
        "bytes": job.size,
        "inputs": [str(path) for path in job.inputs],
        "outputs": [str(path) for path in job.outputs],
    }


def _unworked(jobs: list[Job], plan: _Plan, done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records of the files nobody touched: finished before, or left when the work was stopped."""
    touched = {record["key"] for record in done}
    records = []
    for number in plan.mine:
        if jobs[number].key not in touched:
            reason = plan.reasons.get(number)
            status = (
                {"status": "left", "reason": reason}
                if reason
                else {"status": "skipped", "reason": "finished"}
            )
            records.append(_record(jobs[number], "skipped") | status)
    return records
