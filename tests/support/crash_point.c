/* Preloaded into a process: kills it at the n-th system call of a kind on files below a folder, or lets that call fail.
   Nothing happens until crash_arm() is called, or until the file that CRASH_CUE names is there: one line, `how kind
   number path`. Before the call: it never was. After it: its answer never came. In the middle of a write: half of it
   is there. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OFF, BEFORE, AFTER, HALF, FAIL };
enum { WRITE, SYNC, CUT, RENAME, REMOVE };
enum { PATH_MAX_BYTES = 4096 };

static atomic_int calls;
static int mode = OFF, kind, at, failures, fault;
static char folder[PATH_MAX_BYTES];

/* `length` failing calls from the n-th on, with this errno; both only for FAIL. */
void crash_arm(const char *below, int how, int what, int number, int length, int error)
{
    snprintf(folder, sizeof folder, "%s", below);
    atomic_store(&calls, 0);
    kind = what, at = number, failures = length, fault = error, mode = how;
}

int crash_calls(void)
{
    return atomic_load(&calls);
}

/* For a process that nobody can call into. */
static void heed_cue(void)
{
    static atomic_flag taken = ATOMIC_FLAG_INIT;
    const char *cue = getenv("CRASH_CUE");
    char line[PATH_MAX_BYTES + 64], path[PATH_MAX_BYTES];
    int how, what, number;
    if (mode != OFF || cue == NULL)
        return;
    int fd = open(cue, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t length = read(fd, line, sizeof line - 1);
    close(fd);
    line[length > 0 ? length : 0] = 0;
    if (sscanf(line, "%d %d %d %4095s", &how, &what, &number, path) == 4 && !atomic_flag_test_and_set(&taken))
        crash_arm(path, how, what, number, 0, 0);
}

static int is_below(const char *path)
{
    return strncmp(path, folder, strlen(folder)) == 0;
}

static int is_watched(int fd)
{
    char link[64], path[PATH_MAX_BYTES];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return is_below(path);
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* 1: the call must fail. */
static int enter(int *number)
{
    *number = atomic_fetch_add(&calls, 1) + 1;
    if (mode == BEFORE && *number == at)
        die();
    if (mode == FAIL && *number >= at && *number < at + failures) {
        errno = fault;
        return 1;
    }
    return 0;
}

static void leave(int number)
{
    if ((mode == AFTER || mode == HALF) && number == at)
        die();
}

#define WATCHED(what, is_ours, real, half)           \
    int number;                                      \
    heed_cue();                                      \
    if (mode == OFF || kind != what || !(is_ours))   \
        return real;                                 \
    if (enter(&number))                              \
        return -1;                                   \
    if (mode == HALF && number == at)                \
        half;                                        \
    __typeof__(real) result = real;                  \
    leave(number);                                   \
    return result

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    WATCHED(WRITE, is_watched(fd), syscall(SYS_pwrite64, fd, data, size, offset),
            (syscall(SYS_pwrite64, fd, data, size / 2, offset), die()));
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite64(fd, data, size, offset);
}

ssize_t write(int fd, const void *data, size_t size)
{
    WATCHED(WRITE, is_watched(fd), syscall(SYS_write, fd, data, size), (syscall(SYS_write, fd, data, size / 2), die()));
}

int fsync(int fd)
{
    WATCHED(SYNC, is_watched(fd), (int)syscall(SYS_fsync, fd), (void)0);
}

int fdatasync(int fd)
{
    WATCHED(SYNC, is_watched(fd), (int)syscall(SYS_fdatasync, fd), (void)0);
}

int ftruncate64(int fd, off64_t size)
{
    WATCHED(CUT, is_watched(fd), (int)syscall(SYS_ftruncate, fd, size), (void)0);
}

int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, size);
}

int rename(const char *from, const char *to)
{
    WATCHED(RENAME, is_below(from), (int)syscall(SYS_rename, from, to), (void)0);
}

int unlink(const char *path)
{
    WATCHED(REMOVE, is_below(path), (int)syscall(SYS_unlink, path), (void)0);
}
