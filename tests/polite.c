/* Makes an MPI that waits in a loop leave its core: for several hosts on one machine, which have no cores of their own.

   cc -shared -fPIC -O2 polite.c -o polite.so -ldl;  LD_PRELOAD=./polite.so
   UCX over TCP asks epoll_wait, with no time to wait, whether something has come. Whoever asks again and again at once,
   and is told no, waits for something: then the question may take a while, and is answered as soon as something comes.
   What else runs on the machine is none of the hosts' business: ranks come first (where the system lets them). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sched.h>
#include <sys/epoll.h>
#include <time.h>

/* Questions in a row that are taken for waiting, ns between two that are in a row, and ms that one may take then. */
enum { PATIENT = 30, AT_ONCE = 5000, LONGEST = 5 };

static long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

__attribute__((constructor)) static void come_first(void)
{
    sched_setscheduler(0, SCHED_RR, &(struct sched_param){.sched_priority = 1});
}

int epoll_wait(int file, struct epoll_event *events, int most, int timeout)
{
    static int (*real)(int, struct epoll_event *, int, int);
    static __thread int row;
    static __thread long answered;
    if (!real)
        real = (int (*)(int, struct epoll_event *, int, int))dlsym(RTLD_NEXT, "epoll_wait");
    if (timeout)
        return real(file, events, most, timeout);
    row = now() - answered < AT_ONCE ? row + 1 : 0;
    int found = real(file, events, most, row > PATIENT ? LONGEST : 0);
    if (found)
        row = 0;
    answered = now();
    return found;
}
