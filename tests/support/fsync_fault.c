/* Preloaded into a process: while a flag file exists, fsync and fdatasync fail with EIO although the data was written.
   After FSYNC_FAULTS_MAX failures (8 where it is not set) the flag is removed. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FAILURES_MAX = 8 };

static int failures_max(void)
{
    const char *text = getenv("FSYNC_FAULTS_MAX");
    return text == NULL ? FAILURES_MAX : atoi(text);
}

static int must_fail(void)
{
    static atomic_int failures;
    const char *flag = getenv("FSYNC_FAULT_FLAG");
    if (flag == NULL || access(flag, F_OK) != 0)
        return 0;
    if (atomic_fetch_add(&failures, 1) + 1 >= failures_max())
        unlink(flag);
    errno = EIO;
    return 1;
}

int fsync(int fd)
{
    return must_fail() ? -1 : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return must_fail() ? -1 : (int)syscall(SYS_fdatasync, fd);
}
