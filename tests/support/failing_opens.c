/* Preloaded into a process: what opens something fails there, as often as a file says while the process runs.
 *
 * OPENS_FILE names a file of three ints that is mapped: how many of a hundred calls fail, with which errno, and how many
 * have failed so far. The process's own children are left alone.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SHARE, ERRNO, FAILED };

static volatile int *orders;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("OPENS_FILE");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *mapped = mmap(NULL, 3 * sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED) orders = mapped;
    unsetenv("LD_PRELOAD");
}

static int fails(void) {
    static __thread unsigned seed;
    if (!orders || !orders[SHARE]) return 0;
    if (!seed) seed = (unsigned)(size_t)&seed | 1;
    if (rand_r(&seed) % 100 >= orders[SHARE]) return 0;
    __sync_fetch_and_add(&orders[FAILED], 1);
    errno = orders[ERRNO];
    return 1;
}

#define MODE                          \
    int mode = 0;                     \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list rest;                 \
        va_start(rest, flags);        \
        mode = va_arg(rest, int);     \
        va_end(rest);                 \
    }

#define OPEN(name)                                                         \
    int name(const char *path, int flags, ...) {                           \
        static int (*real)(const char *, int, int);                        \
        MODE if (fails()) return -1;                                       \
        if (!real) real = dlsym(RTLD_NEXT, #name);                         \
        return real(path, flags, mode);                                    \
    }

#define OPENAT(name)                                                       \
    int name(int folder, const char *path, int flags, ...) {               \
        static int (*real)(int, const char *, int, int);                   \
        MODE if (fails()) return -1;                                       \
        if (!real) real = dlsym(RTLD_NEXT, #name);                         \
        return real(folder, path, flags, mode);                            \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

DIR *opendir(const char *path) {
    static DIR *(*real)(const char *);
    if (fails()) return NULL;
    if (!real) real = dlsym(RTLD_NEXT, "opendir");
    return real(path);
}

int socket(int domain, int type, int protocol) {
    static int (*real)(int, int, int);
    if (fails()) return -1;
    if (!real) real = dlsym(RTLD_NEXT, "socket");
    return real(domain, type, protocol);
}
