/* The watchdog's thread. It needs neither the GIL nor anything of the thread that it watches, which may hold any
   lock: it never calls Python and allocates no memory. No thread waits for it: it ends with the process, and uses
   only the data in this file. */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static struct Watch {
    int64_t own_step;            /* the target of step_copy when there is no file */
    volatile int64_t *step_copy; /* where other processes read the step: a mapped file, which outlives the process */
    volatile int64_t step, beats, number;
    double seconds, grace, delay;
    int signal, target;
    const char *head, *tail;               /* texts before and after the stacks */
    const char *python, *metadata, *claim; /* interpreter and input of the report, and the file that claims it */
    pthread_t watched;
    volatile sig_atomic_t written;
} watch = {.step_copy = &watch.own_step, .target = STDERR_FILENO, .head = "", .tail = "", .claim = ""};

static inline void watch_beat(int64_t step)
{
    *watch.step_copy = watch.step = step;
    watch.beats++; /* a repeated step is progress, too */
}

static void pause_for(double seconds) { usleep((useconds_t)(1e6 * seconds)); }

/* Kill the process after `seconds`, even if it gets stuck, for example in a lost file system. */
static void die_after(double seconds)
{
    struct sigevent how = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
    const struct itimerspec when = {.it_value = {.tv_sec = (time_t)seconds}};
    timer_t timer;
    if (timer_create(CLOCK_MONOTONIC, &how, &timer) == 0)
        timer_settime(timer, 0, &when, NULL);
}

/* faulthandler calls this in the watched thread after it has written the stacks. */
static void stacks_written(int signal)
{
    const int before = errno;
    watch.written = write(watch.target, watch.tail, strlen(watch.tail)) >= 0 && signal;
    errno = before;
}

static void write_stacks(void)
{
    dprintf(watch.target, "%s%lld\n", watch.head, (long long)watch.step);
    pthread_kill(watch.watched, watch.signal);
    for (int tries = 0; tries < 200 && !watch.written; tries++)
        pause_for(0.01);
    fsync(watch.target); /* other hosts read the file */
}

/* Start the process that makes the report and wait for it; return whether it was made. One per host suffices. */
static int reported(void)
{
    char *const words[] = {(char *)watch.python, "-m", "anyrank.runtime.watchdog.report", (char *)watch.metadata, NULL};
    pid_t child;
    int status = 1;
    if ((watch.delay > 0 && access(watch.claim, F_OK) == 0) ||
        posix_spawn(&child, watch.python, NULL, NULL, words, environ))
        return 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return status == 0;
}

/* Kill the processes that the main thread has started, such as a process pool, which would wait for work for ever. */
static void end_children(void)
{
    char text[8192], *next = text, *last;
    snprintf(text, sizeof text, "/proc/self/task/%d/children", (int)getpid());
    const int file = open(text, O_RDONLY | O_CLOEXEC);
    const ssize_t size = file < 0 ? 0 : read(file, text, sizeof text - 1);
    text[size > 0 ? size : 0] = 0;
    for (long child; (child = strtol(next, &last, 10)) > 0; next = last)
        kill((pid_t)child, SIGKILL);
}

/* Does not return. An exit ends all ranks, so a process that does not start the report waits until it is made. */
static void hang(void)
{
    const int early = watch.claim[0] == 0; /* there is no run folder yet */
    die_after(2 * watch.grace + 30);
    write_stacks();
    pause_for(early ? watch.grace : watch.delay);
    if (!early && !reported()) {
        struct stat made;
        if (watch.delay == 0 && (stat(watch.claim, &made) || made.st_size == 0))
            dprintf(STDERR_FILENO, "anyrank: hung; there is no report, but stacks in the run folder's log\n");
        pause_for(watch.grace + 20);
    }
    end_children();
    _exit(1);
}

static void *keep_watch(void *number)
{
    const double interval = watch.seconds < 2 ? watch.seconds / 8 : 0.25;
    struct timespec last, now;
    double idle = 0;
    int64_t seen = watch.beats;
    clock_gettime(CLOCK_MONOTONIC, &last);
    while (pause_for(interval), watch.number == (intptr_t)number) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        const double since = (double)(now.tv_sec - last.tv_sec) + 1e-9 * (double)(now.tv_nsec - last.tv_nsec);
        /* A process that was suspended for an hour has not been idle for an hour. */
        idle = watch.beats != seen ? 0 : idle + (since < 4 * interval ? since : 4 * interval);
        seen = watch.beats;
        last = now;
        if (idle >= watch.seconds)
            hang();
    }
    return NULL;
}

/* Reserve an unused real-time signal and unblock it in the calling thread; 0 if there is none. */
static int take_signal(void)
{
    const struct sigaction ours = {.sa_handler = stacks_written, .sa_flags = SA_RESTART};
    struct sigaction theirs;
    sigset_t it;
    for (int signal = SIGRTMAX - 1; signal > SIGRTMIN; signal--)
        if (sigaction(signal, NULL, &theirs) == 0 && theirs.sa_handler == SIG_DFL && !sigaction(signal, &ours, NULL)) {
            sigemptyset(&it);
            sigaddset(&it, signal);
            pthread_sigmask(SIG_UNBLOCK, &it, NULL);
            return signal;
        }
    return 0;
}

static void watch_stop(void)
{
    watch.number++; /* the thread with the former number ends */
    watch.step_copy = &watch.own_step;
    watch.target = STDERR_FILENO;
    if (watch.signal)
        signal(watch.signal, SIG_DFL);
    watch.signal = 0;
}

/* Watch the calling thread; return the signal that makes it write its stacks, 0 if it cannot be watched. */
static int watch_start(double seconds, double grace)
{
    pthread_t thread;
    sigset_t all, before;
    watch.seconds = seconds;
    watch.grace = grace;
    watch.number++;
    watch.watched = pthread_self();
    watch.signal = take_signal();
    sigfillset(&all); /* the new thread receives no signals */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (!watch.signal || pthread_create(&thread, NULL, keep_watch, (void *)(intptr_t)watch.number))
        watch_stop();
    else
        pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return watch.signal;
}
