/* Preloaded into a process: writes down, in order, what it does to the files below POWER_FOLDER, into POWER_TRACE.
   A record: operation, inode, two numbers, lengths of a path and of data, then both. Nothing is altered. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { WRITE = 1, SYNC, CUT, RENAME, REMOVE };
enum { PATH_MAX_BYTES = 4096 };

struct record {
    uint64_t operation, inode, first, second, path_bytes, data_bytes;
};

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static int trace = -1;

static void note(uint64_t operation, uint64_t inode, uint64_t first, uint64_t second, const char *path,
                 const void *data, uint64_t data_bytes)
{
    struct record head = {operation, inode, first, second, strlen(path), data_bytes};
    pthread_mutex_lock(&turn);
    if (trace < 0)
        trace = open(getenv("POWER_TRACE"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    syscall(SYS_write, trace, &head, sizeof head);
    syscall(SYS_write, trace, path, head.path_bytes);
    syscall(SYS_write, trace, data, data_bytes);
    pthread_mutex_unlock(&turn);
}

static int is_below(const char *path)
{
    const char *folder = getenv("POWER_FOLDER");
    return folder != NULL && strncmp(path, folder, strlen(folder)) == 0;
}

/* Path and inode of a watched file; 0 for any other. */
static uint64_t watched(int fd, char *path)
{
    char link[64];
    struct stat found;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX_BYTES - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return is_below(path) && fstat(fd, &found) == 0 ? found.st_ino : 0;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    char path[PATH_MAX_BYTES];
    uint64_t inode = watched(fd, path);
    ssize_t done = syscall(SYS_pwrite64, fd, data, size, offset);
    if (inode && done > 0)
        note(WRITE, inode, (uint64_t)offset, 0, path, data, (uint64_t)done);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite64(fd, data, size, offset);
}

ssize_t write(int fd, const void *data, size_t size)
{
    char path[PATH_MAX_BYTES];
    uint64_t inode = watched(fd, path);
    off_t offset = inode ? lseek(fd, 0, fcntl(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR) : 0;
    ssize_t done = syscall(SYS_write, fd, data, size);
    if (inode && done > 0)
        note(WRITE, inode, (uint64_t)offset, 0, path, data, (uint64_t)done);
    return done;
}

/* Written down once it has come back: only then is anything promised. */
static int synced(int fd, int result)
{
    char path[PATH_MAX_BYTES];
    uint64_t inode = watched(fd, path);
    if (inode && result == 0)
        note(SYNC, inode, 0, 0, path, "", 0);
    return result;
}

int fsync(int fd)
{
    return synced(fd, (int)syscall(SYS_fsync, fd));
}

int fdatasync(int fd)
{
    return synced(fd, (int)syscall(SYS_fdatasync, fd));
}

int ftruncate64(int fd, off64_t size)
{
    char path[PATH_MAX_BYTES];
    uint64_t inode = watched(fd, path);
    int result = (int)syscall(SYS_ftruncate, fd, size);
    if (inode && result == 0)
        note(CUT, inode, (uint64_t)size, 0, path, "", 0);
    return result;
}

int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, size);
}

int rename(const char *from, const char *to)
{
    struct stat found;
    int is_ours = is_below(from) && stat(from, &found) == 0;
    int result = (int)syscall(SYS_rename, from, to);
    if (is_ours && result == 0)
        note(RENAME, found.st_ino, 0, 0, from, to, strlen(to));
    return result;
}

int unlink(const char *path)
{
    struct stat found;
    int is_ours = is_below(path) && stat(path, &found) == 0;
    int result = (int)syscall(SYS_unlink, path);
    if (is_ours && result == 0)
        note(REMOVE, found.st_ino, 0, 0, path, "", 0);
    return result;
}
