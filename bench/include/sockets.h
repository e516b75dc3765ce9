/* Clocks and sockets for the bench tools: everything non-blocking, TCP_NODELAY set, errors end the program. */
#ifndef BENCH_SOCKETS_H
#define BENCH_SOCKETS_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull

/* Both ends run on one host, so CLOCK_MONOTONIC gives one-way latencies. */
static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static inline _Noreturn void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, errno ? strerror(errno) : "failed");
    exit(1);
}

/* Keeps this process on one CPU, off the one that is measured. */
static inline void pin_to(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set)) die("cpu");
}

static inline void *grow(void *old, size_t size) {
    void *p = realloc(old, size);
    if (!p) die("memory");
    return p;
}

static inline void tune(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* fails on Unix sockets, which need it not */
}

struct address {
    union {
        struct sockaddr any;
        struct sockaddr_in tcp;
        struct sockaddr_un local;
    };
    socklen_t size;
};

/* `path` for a Unix socket, else 127.0.0.1:`port`. */
static inline struct address address_of(const char *path, int port) {
    struct address a;
    memset(&a, 0, sizeof a);
    if (path) {
        if (strlen(path) >= sizeof a.local.sun_path) die("socket path too long");
        a.local.sun_family = AF_UNIX;
        strcpy(a.local.sun_path, path);
        a.size = sizeof a.local;
    } else {
        a.tcp.sin_family = AF_INET;
        a.tcp.sin_port = htons((uint16_t)port);
        a.tcp.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        a.size = sizeof a.tcp;
    }
    return a;
}

static inline int open_listener(const char *path, int port) {
    struct address a = address_of(path, port);
    int one = 1, fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    if (path) unlink(path);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, &a.any, a.size) || listen(fd, 4096)) die("listen");
    return fd;
}

/* Connects on loopback, where it completes at once, and makes the socket non-blocking. -1 when refused. */
static inline int open_connection(const char *path, int port) {
    struct address a = address_of(path, port);
    int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    if (connect(fd, &a.any, a.size)) {
        close(fd);
        return -1;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    tune(fd);
    return fd;
}

#endif
