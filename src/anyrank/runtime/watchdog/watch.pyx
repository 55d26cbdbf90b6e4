"""The watchdog's own thread, which needs no GIL: it is in watch.h. There is one in a process."""

from libc.stdint cimport int64_t, uintptr_t
from libc.string cimport strdup


cdef extern from "watch.h":
    struct Watch:
        int64_t *place
        int target
        double delay
        const char *head
        const char *tail
        const char *python
        const char *facts
        const char *claim
    Watch watch
    void watch_beat(int64_t step)
    int watch_start(double seconds, double grace)
    void watch_stop()


def beat(int64_t step):
    """This process has got on, to this step."""
    watch_beat(step)


def place(uintptr_t address):
    """Keep the step at this address, too, until `stop`."""
    watch.place = <int64_t *>address


def aim(int target, double delay, bytes head, bytes tail, bytes python=b"", bytes facts=b"", bytes claim=b""):
    """Stacks go to the descriptor, between head (and the step) and tail; a report, if any, is made `delay` s later."""
    watch.target, watch.delay, watch.head, watch.tail = target, delay, strdup(head), strdup(tail)
    watch.python, watch.facts, watch.claim = strdup(python), strdup(facts), strdup(claim)


def start(double seconds, double grace):
    """Watch the calling thread; the signal to register with faulthandler. OSError where that cannot be."""
    number = watch_start(seconds, grace)
    if not number:
        raise OSError("no real-time signal or no thread is left")
    return number


def stop():
    """Watch no more."""
    watch_stop()
