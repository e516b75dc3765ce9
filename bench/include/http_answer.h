/* Reads HTTP/1.1 answers from bytes in any pieces: the head, then a body by length, in chunks, or up to the end. */
#ifndef BENCH_HTTP_ANSWER_H
#define BENCH_HTTP_ANSWER_H

#include "bytes.h"
#include <strings.h>

enum { HEAD_BYTES_MAX = 16384 };

enum reading { READ_HEAD, READ_SIZED, READ_CHUNK_SIZE, READ_CHUNK, READ_CHUNK_END, READ_TRAILER, READ_TO_EOF, READ_DONE, READ_BAD };

struct answer {
    enum reading reading;
    int status, closes; /* closes: the peer will not take another request on this connection */
    uint64_t left;      /* bytes left of the sized body or of the chunk */
    int has_digits, line_bytes;
    struct bytes head, body;
};

static inline void answer_reset(struct answer *a) {
    a->reading = READ_HEAD;
    a->status = a->closes = a->has_digits = a->line_bytes = 0;
    a->left = 0;
    bytes_clear(&a->head);
    bytes_clear(&a->body);
}

/* The value of a header, by its lower- or upper-case name with the colon; NULL without one. */
static inline const char *header_of(const struct answer *a, const char *name) {
    size_t n = strlen(name);
    for (const char *p = bytes_at(&a->head); (p = strchr(p, '\n')); )
        if (!strncasecmp(++p, name, n)) return p + n + strspn(p + n, " ");
    return NULL;
}

static inline void answer_head_done(struct answer *a) {
    bytes_put(&a->head, "", 1);
    const char *length = header_of(a, "content-length:"), *coding = header_of(a, "transfer-encoding:");
    const char *connection = header_of(a, "connection:");
    a->status = !strncmp(bytes_at(&a->head), "HTTP/1.1 ", 9) ? atoi(bytes_at(&a->head) + 9) : 0;
    a->closes = connection && !strncasecmp(connection, "close", 5);
    a->reading = a->status < 200 ? READ_BAD : READ_TO_EOF;
    if (a->reading == READ_BAD) return;
    if (a->status == 204) a->reading = READ_DONE;
    else if (coding && !strncasecmp(coding, "chunked", 7)) a->reading = READ_CHUNK_SIZE;
    else if (length) {
        a->left = strtoull(length, NULL, 10);
        a->reading = a->left ? READ_SIZED : READ_DONE;
    }
}

static inline void answer_head_byte(struct answer *a, char c) {
    bytes_put(&a->head, &c, 1);
    size_t n = bytes_len(&a->head);
    if (n >= 4 && !memcmp(bytes_at(&a->head) + n - 4, "\r\n\r\n", 4)) answer_head_done(a);
    else if (n > HEAD_BYTES_MAX) a->reading = READ_BAD;
}

/* Chunk sizes and the CRLFs around them; extensions are not sent by anything measured here. */
static inline void answer_frame_byte(struct answer *a, char c) {
    const char *hex = "0123456789abcdef", *digit;
    if (a->reading == READ_CHUNK_SIZE) {
        if (c == '\r') return;
        if (c == '\n') a->reading = !a->has_digits ? READ_BAD : a->left ? READ_CHUNK : READ_TRAILER;
        else if ((digit = strchr(hex, c | 0x20)) && a->has_digits++ < 15) a->left = a->left * 16 + (uint64_t)(digit - hex);
        else a->reading = READ_BAD;
    } else if (a->reading == READ_CHUNK_END) {
        if (c == '\n') a->reading = READ_CHUNK_SIZE, a->has_digits = 0, a->left = 0;
        else if (c != '\r') a->reading = READ_BAD;
    } else if (c == '\n') {
        if (!a->line_bytes) a->reading = READ_DONE;
        a->line_bytes = 0;
    } else if (c != '\r') a->line_bytes++;
}

/* Takes bytes up to the end of this answer; returns how many it took. Body bytes are appended to `body`. */
static inline size_t answer_feed(struct answer *a, const char *p, size_t size) {
    size_t i = 0;
    while (i < size && a->reading != READ_DONE && a->reading != READ_BAD) {
        if (a->reading == READ_HEAD) answer_head_byte(a, p[i++]);
        else if (a->reading == READ_SIZED || a->reading == READ_CHUNK || a->reading == READ_TO_EOF) {
            size_t n = size - i;
            if (a->reading != READ_TO_EOF && n > a->left) n = a->left;
            bytes_put(&a->body, p + i, n);
            i += n;
            a->left -= a->reading == READ_TO_EOF ? 0 : n;
            if (a->reading != READ_TO_EOF && !a->left) a->reading = a->reading == READ_SIZED ? READ_DONE : READ_CHUNK_END;
        } else answer_frame_byte(a, p[i++]);
    }
    return i;
}

/* The peer closed. Only a body without a length may end like this. */
static inline void answer_eof(struct answer *a) {
    a->closes = 1;
    a->reading = a->reading == READ_TO_EOF || a->reading == READ_DONE ? READ_DONE : READ_BAD;
}

#endif
