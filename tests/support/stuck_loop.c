/* Preloaded into a process: while the file STUCK_LOOP_FLAG exists, its main thread does not come back from waiting for
   events, as after a call that blocks. Every other thread runs on. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

static void stick(void)
{
    const char *path = getenv("STUCK_LOOP_FLAG");
    while (path != NULL && getpid() == gettid() && access(path, F_OK) == 0)
        usleep(10000);
}

int epoll_pwait(int epoll, struct epoll_event *events, int max, int timeout, const sigset_t *mask)
{
    stick();
    return (int)syscall(SYS_epoll_pwait, epoll, events, max, timeout, mask, _NSIG / 8);
}

int epoll_wait(int epoll, struct epoll_event *events, int max, int timeout)
{
    return epoll_pwait(epoll, events, max, timeout, NULL);
}
