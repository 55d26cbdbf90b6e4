"""The watchdog's thread, which needs no GIL (watch.h). There is one per process."""

from libc.stdint cimport int64_t, uintptr_t
from libc.string cimport strdup


cdef extern from "watch.h":
    struct Watch:
        int64_t *step_copy
        int target
        double delay
        const char *head
        const char *tail
        const char *python
        const char *metadata
        const char *claim
    Watch watch
    void watch_beat(int64_t step)
    int watch_start(double seconds, double grace)
    void watch_stop()


def beat(int64_t step):
    """This process has made progress and has done `step` steps."""
    watch_beat(step)


def store_step_at(uintptr_t address):
    """Store the step also at this address, until `stop`."""
    watch.step_copy = <int64_t *>address


def set_output(int target, double delay, bytes head, bytes tail, bytes python=b"", bytes metadata=b"", bytes claim=b""):
    """Write stacks to the descriptor `target`, between head with the step and tail; make a report `delay` s later."""
    watch.target, watch.delay, watch.head, watch.tail = target, delay, strdup(head), strdup(tail)
    watch.python, watch.metadata, watch.claim = strdup(python), strdup(metadata), strdup(claim)


def start(double seconds, double grace):
    """Watch the calling thread; return the signal to register with faulthandler. OSError if that fails."""
    number = watch_start(seconds, grace)
    if not number:
        raise OSError("no real-time signal or no thread is available")
    return number


def stop():
    """Stop watching."""
    watch_stop()
