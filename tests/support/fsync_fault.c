/* Preloaded into a process: fsync and fdatasync fail with EIO, after the data was written, while a flag file exists. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_broken(void)
{
    const char *flag = getenv("FSYNC_FAULT_FLAG");
    return flag != NULL && access(flag, F_OK) == 0;
}

int fsync(int fd)
{
    if (is_broken()) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    if (is_broken()) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}
