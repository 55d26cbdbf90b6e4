"""Many small tasks with Celery and RQ on Redis, and commands with HyperQueue: peers of benchmarks/peers/farm.py.

Each function returns the seconds for a number of tasks, with two workers that have started. Redis writes no files.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

#: The tasks, and the application of Celery.
TASKS = """
import os
def same(x):
    return x
if "FARM_REDIS" in os.environ:
    from celery import Celery
    app = Celery("broker_tasks", broker=os.environ["FARM_REDIS"], backend=os.environ["FARM_REDIS"])
    app.conf.worker_prefetch_multiplier = 64
    celery_same = app.task(same)
"""
RQ = "import sys; from rq.cli import main; sys.exit(main())"


@contextmanager
def started(*words: object, folder: Path, **variables: str) -> Iterator[None]:
    """Run a process in a folder while the block runs."""
    env, quiet = {**os.environ, **variables}, subprocess.DEVNULL
    process = subprocess.Popen([str(word) for word in words], cwd=folder, env=env, stdout=quiet, stderr=quiet)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def redis(folder: Path) -> Iterator[int]:
    """Run a Redis without files; yields its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with started("redis-server", "--port", port, "--save", "", "--appendonly", "no", folder=folder):
        until(lambda: not socket.socket().connect_ex(("127.0.0.1", port)))
        yield port


def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    while not holds():
        time.sleep(0.005)


def by_celery(folder: Path, tasks: int, chunk: int) -> float:
    """Return the seconds of Celery, with the tasks alone or in chunks."""
    (folder / "broker_tasks.py").write_text(TASKS)
    with redis(folder) as port:
        url = f"redis://127.0.0.1:{port}/0"
        words = ("-m", "celery", "-A", "broker_tasks", "worker", "-c", 2, "--loglevel", "CRITICAL")
        with started(sys.executable, *words, folder=folder, FARM_REDIS=url):
            script = CELERY.format(tasks=tasks, chunk=chunk)
            return seconds_of(script, folder, FARM_REDIS=url)


CELERY = """
import time
from celery import group
from broker_tasks import celery_same as same
group(same.s(x) for x in range(100)).apply_async().get()
began = time.perf_counter()
if {chunk} > 1:
    same.chunks(zip(range({tasks})), {chunk})().get()
else:
    [result.get() for result in [same.delay(x) for x in range({tasks})]]
print(time.perf_counter() - began)
"""
ENQUEUE = """
import time
from redis import Redis
from rq import Queue
from broker_tasks import same
queue = Queue(connection=Redis(port={port}), is_async=True)
def run(tasks):
    before = queue.finished_job_registry.count
    queue.enqueue_many([Queue.prepare_data(same, args=(x,)) for x in range(tasks)])
    while queue.finished_job_registry.count < before + tasks:
        time.sleep(0.005)
run(20)
began = time.perf_counter()
run({tasks})
print(time.perf_counter() - began)
"""


def by_rq(folder: Path, tasks: int, worker: str) -> float:
    """Return the seconds of RQ; `Worker` starts a process for each task, and `SimpleWorker` does not."""
    (folder / "broker_tasks.py").write_text(TASKS)
    with ExitStack() as stack:
        port = stack.enter_context(redis(folder))
        words = ("worker", "--url", f"redis://127.0.0.1:{port}/0", "--worker-class", f"rq.{worker}", "--quiet")
        for _ in range(2):
            stack.enter_context(started(sys.executable, "-c", RQ, *words, folder=folder))
        return seconds_of(ENQUEUE.format(port=port, tasks=tasks), folder)


def seconds_of(script: str, folder: Path, **variables: str) -> float:
    """Return the number that a script prints."""
    env = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


HYPERQUEUE = """
import time
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
with LocalCluster(worker_config=WorkerConfig(cores=2)) as cluster:
    client = cluster.client()
    for commands in (20, {commands}):
        began = time.perf_counter()
        job = Job()
        for _ in range(commands):
            job.program(["true"], stdout=None, stderr=None)
        client.wait_for_jobs([client.submit(job)])
    print(time.perf_counter() - began)
"""


def by_hyperqueue(folder: Path, commands: int) -> float:
    """Return the seconds of HyperQueue for commands."""
    return seconds_of(HYPERQUEUE.format(commands=commands), folder)


def cases(folder: Path, tasks: int, commands: int) -> dict[str, tuple[int, Callable[[], float]]]:
    """Return the number of tasks and the function of each measurement that is possible here, by name."""
    found: dict[str, tuple[int, Callable[[], float]]] = {}
    few = max(1000, tasks // 200)
    if shutil.which("redis-server") and find_spec("celery"):
        found["Celery, Redis"] = (few, lambda: by_celery(folder, few, 1))
        found["Celery, Redis, chunks of 1000"] = (tasks, lambda: by_celery(folder, tasks, 1000))
    if shutil.which("redis-server") and find_spec("rq"):
        found["RQ, Redis"] = (few // 10, lambda: by_rq(folder, few // 10, "Worker"))
        found["RQ, Redis, without a process for each task"] = (few, lambda: by_rq(folder, few, "SimpleWorker"))
    if find_spec("hyperqueue"):
        found["HyperQueue, commands"] = (commands, lambda: by_hyperqueue(folder, commands))
    return found
