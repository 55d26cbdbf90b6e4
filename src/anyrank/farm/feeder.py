"""The feeder of a rank: takes tickets, sends tasks to the worker, records what ends, and tries again what failed."""

from __future__ import annotations

import heapq
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from anyrank.errors import AnyrankError
from anyrank.farm import tasks as t
from anyrank.farm.journal import Records
from anyrank.farm.lane import Lane, WorkerError
from anyrank.farm.plan import Plan, Policy
from anyrank.farm.tasks import Outcome, Record
from anyrank.farm.tickets import Tickets
from anyrank.farm.worker import Item, Job
from anyrank.runtime.callback import Callback
from anyrank.state import State

#: The worker has work for at least this time, in seconds, and gets at most this number of tasks at a time.
AHEAD, MOST = 0.01, 4096
#: Seconds between two looks at the worker's memory; the shortest and the longest wait for something to do; the longest
#: wait for the worker; and the longest wait of the rank with the counters, whose help ranks on other nodes may need.
MEMORY_EVERY, SHORT, LONG, ALONE, SERVING = 0.1, 0.0005, 0.02, 0.1, 0.001
#: An entry of the queue has the index of a task in its low bits, and the number of its attempts above.
_ATTEMPTS = 1 << 40
#: A task that will never run, because one that it needs has failed, has this number of needs less.
_NEVER = 1 << 50
#: A task whose worker died is tried at least this often.
DEATHS = 2
#: Seconds that a task may run over its time limit before its worker is ended; commands and coroutines end themselves.
GRACE = 2.0


class Feeder:
    """Works on the tasks of a plan together with the feeders of the other ranks. The constructor is collective."""

    def __init__(
        self,
        plan: Plan,
        items: Callable[[Sequence[tuple[int, int]]], list[Item]],
        records: Records,
        tickets: Tickets,
        job: Job,
        policy: Policy,
        active: bool,
        growing: bool = False,
    ):
        self.plan, self.records, self.tickets, self.policy = plan, records, tickets, policy
        self._items, self._job = items, job
        #: Whether this rank works on tasks: not if its core is for the ranks of a task of another.
        self._active = active
        #: Whether tasks arrive while the farm runs.
        self._growing = growing
        #: The encoded records of tasks that have ended since they were last asked for; None if nobody asks.
        self.fresh: list[bytes] | None = None
        self._lane: Lane | None = None
        #: Tasks that this rank will send next, as (index, attempt), and those that wait until a time.
        self._ready: deque[tuple[int, int]] = deque()
        self._delayed: list[tuple[float, int, int]] = []
        #: Groups of tasks that ran together when a worker died, which are sent without others, and whether one runs.
        self._suspects: deque[list[tuple[int, int]]] = deque()
        self._apart = False
        #: The first and the end of the tickets that are not used, and the number of tickets taken when last known.
        self._ticket, self._ticket_end, self._taken = 0, 0, 0
        #: The place in the queue for which this rank has a ticket.
        self._place: int | None = None
        self._mean = 0.0
        self._memory_at = 0.0
        #: The number of tasks that have ended, and that have failed: those that were skipped or expired have not.
        self.ended = self.failed = 0
        #: The time at which the first of them failed, and its identifier and error.
        self.first_failure = (math.inf, "")

    def work(self, until: float) -> None:
        """Work until this time of the monotonic clock, or until all tasks of all ranks have ended. Not collective."""
        pause, serves = SHORT, self.tickets.serves_nodes
        while time.monotonic() < until:
            before = self.ended
            ended = self._receive()
            self._watch()
            sent = self._feed() or self.ended > before  # tasks may expire in place of being sent
            self.tickets.progress()
            busy = self._lane is not None and self._lane.pending  # then not all have ended
            if not (sent or ended or busy) and self.tickets.ended() >= self.plan.total:
                return
            pause = SHORT if ended or sent else min(2 * pause, SERVING if serves else LONG)
            if self._lane is None:
                time.sleep(pause)
            elif self._mean < AHEAD / 4 and len(self._lane.pending) > 1:
                time.sleep(AHEAD / 4)  # receive many records at once
            else:
                longest = SERVING if serves else ALONE
                self._lane.wait(min(longest, max(0.0, until - time.monotonic())) if self._lane.pending else pause)

    def _receive(self) -> int:
        """Record the tasks that have ended; returns their number."""
        if self._lane is None:
            return 0
        try:
            got = self._lane.receive()
        except WorkerError as failure:
            raise AnyrankError(f"the worker cannot load the function. Fix this error:\n{failure}") from None
        count = len(got.done) + len(got.others)
        if count:
            seconds = got.seconds + sum(record.seconds for record in got.others)
            mean, share = seconds / count / self._job.concurrency, 1 - 0.9**count
            self._mean = mean if self._mean == 0 else self._mean + share * (mean - self._mean)
        if got.done:
            self._note_ends(got.parts, got.done, [])
        if got.others:
            self._end(got.others)
        return count

    def _end(self, records: list[Record]) -> None:
        """Try again the tasks that failed and may be tried again; write the last records of the others."""
        final = [record for record in records if not self._try_again(record)]
        if final:
            self._note_ends([record.encode() for record in final], [], final)

    def _note_ends(self, parts: list[bytes], done: list[int], failed: list[Record]) -> None:
        """Write the records of tasks that have ended, and release or skip those that need them."""
        place = self.records.write(b"".join(parts))
        skipped: list[Record] = []
        if self.plan.needed_by:
            if self.tickets.several_nodes:
                self.records.sync()  # the next task reads the value, perhaps on another node
            for task, part in zip(done, parts, strict=False):
                self._release(task, place)
                place += len(part)
            for record in failed:
                self._skip_all(record, skipped)
        more = [record.encode() for record in skipped]
        if more:
            self.records.write(b"".join(more))
        if self.fresh is not None:
            self.fresh += parts + more
        count = len(done) + len(failed) + len(skipped)
        self.ended += count
        failures = [record for record in failed if record.status != t.EXPIRED]
        if failures and not self.failed:
            first = failures[0]
            self.first_failure = (first.start + first.seconds, f"{self._name(first.task)}: {first.outcome().error}")
        self.failed += len(failures)
        self.tickets.end(count, len(failures))

    def _release(self, done: int, place: int) -> None:
        """Offer the tasks that need no other one after this one is done, whose record is at this place."""
        needed_by = self.plan.needed_by.get(done, ())
        if needed_by:
            self.tickets.put_place(done, place)
        for task in needed_by:
            if self.tickets.meet(task) == 0 and not self.tickets.offer(task):
                self._ready.append((task, 1))

    def _skip_all(self, failed: Record, skipped: list[Record]) -> None:
        """Skip the tasks that need one that has failed, and those that need them."""
        causes = [failed]
        while causes:
            cause = causes.pop()
            for task in self.plan.needed_by.get(cause.task, ()):
                if self.tickets.meet(task, _NEVER) + _NEVER > 0:  # no other task that it needs has failed before
                    causes.append(self._skip(cause, task))
                    skipped.append(causes[-1])

    def _skip(self, cause: Record, task: int) -> Record:
        how = "was skipped" if cause.status == t.SKIPPED else t.STATUSES[cause.status]
        error = f"needs {self._name(cause.task)}, which {how}"
        return Record(task, 0, t.SKIPPED, time.time(), 0.0, Outcome(error=error).encode())

    def _name(self, task: int) -> str:
        return self._items([(task, 1)])[0].id

    def _try_again(self, record: Record) -> bool:
        """Try a task again later, on this rank, or on another if its worker died; returns False if it has ended."""
        most = max(self.policy.attempts, DEATHS) if record.status == t.DIED else self.policy.attempts
        if record.attempts >= most or record.status == t.EXPIRED:
            return False
        again = record.attempts + 1
        if record.status != t.DIED or not self.tickets.offer(record.task + again * _ATTEMPTS):
            # The pauses of different tasks differ, so that they do not all ask a busy service again at once.
            jitter = 0.5 + (record.task * 2654435761 % 2**32) / 2**32
            pause = self.policy.backoff * 2 ** (record.attempts - 1) * jitter
            heapq.heappush(self._delayed, (time.monotonic() + pause, record.task, again))
        return True

    def _watch(self) -> None:
        """End the worker if a task takes too long or too much memory; start another if it has ended."""
        lane = self._lane
        if lane is None:
            return
        if how := lane.ended():
            self._receive()
            suspects = [*lane.running()]
            if not lane.ready:
                raise AnyrankError(f"the worker ended with {how} before its first task; see {self._job.log}.")
            why = f"ended its worker with {how}"
            why += " (perhaps the system ran out of memory)" if how.endswith("SIGKILL") else ""
            self._blame(suspects, t.DIED, why)
            return
        now, limit = time.monotonic(), self.policy.timeout + (GRACE if self._is_patient else 0.0)
        late = [index for index, since in lane.running().items() if now - since > limit]
        if late:
            why = f"took longer than --task-timeout {self.policy.timeout:g}"
            self._replace(dict.fromkeys(late, (t.TIMED_OUT, why)))
        elif self.policy.memory < math.inf and now - self._memory_at > MEMORY_EVERY and lane.pending:
            self._memory_at = now
            if (used := lane.memory()) > self.policy.memory:
                why = f"took {used / 1e6:.0f} MB of memory, and --task-memory is {self.policy.memory / 1e6:g} MB"
                self._blame([*lane.running()], t.OUT_OF_MEMORY, why)

    @property
    def _is_patient(self) -> bool:
        return bool(self._job.command or self._job.program) or self._job.concurrency > 1

    def _blame(self, suspects: list[int], status: int, why: str) -> None:
        """End the worker because of one of these tasks. If they are several, each half of them is tried again apart.

        Thus the one that did it is found, and the attempt does not count for the others.
        """
        half = len(suspects) // 2
        if not half:
            self._replace(dict.fromkeys(suspects, (status, why)))
            return
        assert self._lane is not None
        for group in (suspects[half:], suspects[:half]):
            items = [self._lane.pending.pop(index) for index in group]
            self._suspects.appendleft([(item.task, item.attempt) for item in items])
        self._replace({})

    def _replace(self, guilty: dict[int, tuple[int, str]]) -> None:
        """End the worker; the tasks in `guilty` have ended, and the others that it had are sent to the next one."""
        lane, self._lane = self._lane, None
        assert lane is not None
        running, now = lane.running(), time.monotonic()
        lane.close()
        ends = []
        for index, (status, why) in guilty.items():
            item = lane.pending.pop(index)
            seconds = now - running.get(index, now)
            body = Outcome(error=why).encode()
            ends.append(Record(index, item.attempt, status, time.time() - seconds, seconds, body))
        self._ready.extendleft((item.task, item.attempt) for item in reversed([*lane.pending.values()]))
        self._end(ends)

    def _feed(self) -> int:
        """Send tasks to the worker, if it has too little to do; returns their number."""
        lane, now = self._lane, time.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            self._ready.append(heapq.heappop(self._delayed)[1:])
        pending = len(lane.pending) if lane else 0
        apart = bool(pending and (self._apart or self._suspects))
        if pending >= self._job.concurrency or apart:
            self._pass_on()
        ahead = 0.0 if self.plan.needed_by else AHEAD  # what waits behind a long task would make others wait
        if apart or (pending >= self._job.concurrency and (pending - self._job.concurrency + 1) * self._mean >= ahead):
            return 0
        if pending and self._mean == 0 and pending >= self._job.concurrency:
            return 0  # the length of tasks is not known yet
        if self.policy.most_failures < math.inf and self.tickets.failed() > self.policy.most_failures:
            return 0
        self._apart = bool(self._suspects)
        if self._apart:
            items = self._not_expired(self._items(self._suspects.popleft()))
        else:
            items = self._next(self._wanted(pending), self._job.concurrency - pending) if self._active else []
        if items:
            if lane is None:
                self._lane = lane = Lane(self._job)
            lane.send(items)
        return len(items)

    def _wanted(self, pending: int) -> int:
        """Return the number of tasks to send: enough for a while, but no more than a small share of those left."""
        if time.time() >= self.policy.expires:
            return MOST  # no worker waits for their ends
        free = max(1, self._job.concurrency - pending)
        if self._mean == 0 or self.plan.needed_by:
            return free
        if self._growing:
            self._taken = max(self._taken, self.tickets.taken())
        left = max(0, self.plan.count - self._taken)
        fair = max(free, left // (4 * self.tickets.ranks))
        return max(free, min(math.ceil(2 * AHEAD / self._mean), fair, MOST))

    def _next(self, count: int, free: int) -> list[Item]:
        """Return at most `count` tasks whose time has come; those of the queue only for `free` places of the worker.

        A task of the queue behind a long one would wait, although another rank may be idle.
        """
        chosen: list[tuple[int, int]] = []
        while len(chosen) < count:
            tasks = self._own(count - len(chosen)) or (self._queued() if len(chosen) < free else [])
            if not tasks:
                break
            chosen += tasks
        return self._not_expired(self._items(chosen)) if chosen else []

    def _own(self, count: int) -> list[tuple[int, int]]:
        """Return tasks that this rank has already, or takes tickets for."""
        if self._ready:
            return [self._ready.popleft() for _ in range(min(count, len(self._ready)))]
        known = self.plan.count
        if self._ticket == self._ticket_end and self._taken < known:
            self._ticket = self.tickets.take(count)
            self._taken = self._ticket_end = self._ticket + count
        # Tickets beyond the known tasks are for those that will arrive, if any do.
        first, self._ticket = self._ticket, max(self._ticket, min(self._ticket + count, self._ticket_end, known))
        return [(index, 1) for index in self.plan.ready(first, self._ticket)]

    def _pass_on(self) -> None:
        """Offer the tasks that have come for this rank, while it is busy, to others."""
        came = self._queued() if self._place is not None else []
        if self._ticket < min(self._ticket_end, self.plan.count):
            came += self._own(self._ticket_end - self._ticket)
        for index, attempt in came:
            if not self.tickets.offer(index + attempt * _ATTEMPTS):
                self._ready.append((index, attempt))

    def _queued(self) -> list[tuple[int, int]]:
        """Return the task of this rank's ticket of the queue, if it is there."""
        if self._place is None:
            self._place = self.tickets.wait_in_queue()
        entry = self.tickets.entry(self._place)
        if entry is None:
            return []
        self._place = None
        return [(entry % _ATTEMPTS, max(1, entry // _ATTEMPTS))]

    def _not_expired(self, items: list[Item]) -> list[Item]:
        if not items or time.time() < self.policy.expires:
            return items
        body = Outcome(error="did not start before --expires").encode()
        self._end([Record(item.task, item.attempt - 1, t.EXPIRED, time.time(), 0.0, body) for item in items])
        return []

    def close(self) -> None:
        """End the worker; the tasks that it works on will be done when the farm is resumed. Not collective."""
        lane, self._lane = self._lane, None
        if lane is not None:
            with suppress(OSError, WorkerError):  # what is not recorded is done when the farm is resumed
                got = lane.receive()
                if got.done:
                    self._note_ends(got.parts, got.done, [])
            lane.close()
        self.records.close()


class EndWorker(Callback):
    """Ends the worker, and frees the counters."""

    def __init__(self, program: Any):
        self._program = program

    def on_end(self, state: State) -> None:
        """See `Callback`."""
        self._program.feeder.close()
        self._program.feeder.tickets.close()

    def close(self) -> None:
        """See `Callback`."""
        if hasattr(self._program, "feeder"):
            self._program.feeder.close()
            self._program.shared_inputs.close()
