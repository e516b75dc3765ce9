/* The little that the fake engine reads of a request: its length, its key, and single values of a flat JSON body. */
#ifndef BENCH_HTTP_REQUEST_H
#define BENCH_HTTP_REQUEST_H

#include "bytes.h"
#include <strings.h>

/* The value after "name": in a flat JSON object, or NULL. */
static inline const char *value_of(const char *body, size_t size, const char *name) {
    char key[64];
    int n = snprintf(key, sizeof key, "\"%s\"", name);
    const char *p = memmem(body, size, key, (size_t)n), *end = body + size;
    if (!p) return NULL;
    for (p += n; p < end && (*p == ':' || *p == ' '); p++) {}
    return p < end ? p : NULL;
}

/* Whether the head carries `key` as a whole header value (Bearer or X-Api-Key); no key asked for admits all. */
static inline int has_key(const char *head, size_t size, const char *key) {
    size_t key_size = key ? strlen(key) : 0;
    if (!key_size) return 1;
    for (const char *p = head; (p = memmem(p, (size_t)(head + size - p), key, key_size)); p++)
        if ((p[-1] == ' ' || p[-1] == ':') && (p[key_size] == '\r' || p[key_size] == ' ')) return 1;
    return 0;
}

static inline size_t content_length(const char *head, size_t size) {
    static const char name[] = "content-length:";
    for (size_t i = 0; i + sizeof name < size; i++)
        if (head[i] == '\n' && !strncasecmp(head + i + 1, name, sizeof name - 1)) return strtoul(head + i + sizeof name, NULL, 10);
    return 0;
}

#endif
