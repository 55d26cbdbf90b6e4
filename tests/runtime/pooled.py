"""A program whose steps start processes, for tests."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from typing import Literal

from anyrank import Program, State, param


class Pooled(Program):
    """Each step gets a number from child processes; the last step leaves some processes behind."""

    steps: int = param(20, "time steps", ge=0)
    how: Literal["pool", "process", "subprocess", "signals", "exit", "fail", "return"] = param(
        "pool", "how each step starts them"
    )
    end: Literal["well", "error", "hang", "kill", "leave"] = param(
        "well", "how the last step ends, beside processes that wait"
    )

    def declare(self, state: State) -> None:
        state.scalar("total", 0)

    def step(self, state: State) -> None:
        state.total += getattr(self, f"by_{self.how}")()
        if state.step == self.steps - 1 and self.end != "well":
            self.leave(state)

    def by_pool(self) -> int:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return sum(pool.map(abs, range(5)))

    def by_process(self) -> int:
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join()
        return 10 if child.exitcode == -signal.SIGTERM else 0

    def by_subprocess(self) -> int:
        return int(subprocess.run([sys.executable, "-c", "print(10)"], capture_output=True, check=True).stdout)

    def by_signals(self) -> int:
        """A child that survives the signals that ask its rank to stop, as a terminal sends them to the child too."""
        child = os.fork()
        if child == 0:
            for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGQUIT):
                os.kill(os.getpid(), number)
            os._exit(10)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def by_exit(self) -> int:
        """A child that ends with sys.exit."""
        child = os.fork()
        if child == 0:
            sys.exit(10)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def by_fail(self) -> int:
        child = os.fork()
        if child == 0:
            raise ValueError("only the child fails")
        return 10 * os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def by_return(self) -> int:
        """A child that returns without ending."""
        child = os.fork()
        return 10 if child == 0 else 10 + os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def leave(self, state: State) -> None:
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        child.start()
        process = subprocess.Popen(["sleep", "600"])
        (state.folder / f"left-{state.world.rank}").write_text(f"{child.pid} {process.pid}")
        if self.end == "leave":
            child.terminate()
            return
        while self.end == "hang":
            pass
        if self.end == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("it ends early")

    def result(self, state: State) -> dict:
        return {"total": state.total}
