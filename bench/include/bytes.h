/* A growable byte buffer with a read offset, and the few appends that rendering needs. */
#ifndef BENCH_BYTES_H
#define BENCH_BYTES_H

#include "sockets.h"

struct bytes {
    char *data;
    size_t from, to, cap; /* the content is data[from .. to) */
};

static inline size_t bytes_len(const struct bytes *b) { return b->to - b->from; }
static inline char *bytes_at(const struct bytes *b) { return b->data + b->from; }
static inline void bytes_clear(struct bytes *b) { b->from = b->to = 0; }

static inline void bytes_drop(struct bytes *b, size_t n) {
    b->from += n;
    if (b->from == b->to) bytes_clear(b);
}

/* Room for n more bytes at the end; moves the content down before it grows. */
static inline char *bytes_room(struct bytes *b, size_t n) {
    if (b->cap - b->to < n && b->from) {
        memmove(b->data, bytes_at(b), bytes_len(b));
        b->to -= b->from;
        b->from = 0;
    }
    if (b->cap - b->to < n) {
        while (b->cap - b->to < n) b->cap = b->cap ? b->cap * 2 : 1024;
        b->data = grow(b->data, b->cap);
    }
    return b->data + b->to;
}

static inline void bytes_put(struct bytes *b, const char *p, size_t n) {
    memcpy(bytes_room(b, n), p, n);
    b->to += n;
}

static inline void bytes_text(struct bytes *b, const char *text) { bytes_put(b, text, strlen(text)); }

static inline void bytes_number(struct bytes *b, uint64_t n) {
    char digits[20], *p = digits + sizeof digits;
    do *--p = (char)('0' + n % 10);
    while (n /= 10);
    bytes_put(b, p, (size_t)(digits + sizeof digits - p));
}

static inline void bytes_hex(struct bytes *b, uint64_t n) {
    char digits[16], *p = digits + sizeof digits;
    do *--p = "0123456789abcdef"[n % 16];
    while (n /= 16);
    bytes_put(b, p, (size_t)(digits + sizeof digits - p));
}

#endif
