/* Checks one stream of the fake engine, event by event, in the engine's own dialect or in OrchQueue's.
 *
 * A stream is right when every token of its own tag comes once, in order, with its text intact, and one terminal event
 * with the right count comes last. What is wrong is kept as a fixed word; nothing after it is looked at. */
#ifndef BENCH_CHECKED_STREAM_H
#define BENCH_CHECKED_STREAM_H

#include "bytes.h"

enum dialect { LLAMACPP, ORCHQUEUE };

struct checked {
    enum dialect dialect;
    uint64_t tag;
    unsigned want, seen; /* tokens */
    int has_started, is_over;
    const char *wrong; /* NULL while all is right */
    void (*on_token)(void *owner, unsigned index, uint64_t sent_ns);
    void *owner;
};

static inline void wrong(struct checked *s, const char *what) {
    if (!s->wrong) s->wrong = what;
}

/* Moves *p past `text`, or returns 0. */
static inline int eat(const char **p, const char *end, const char *text) {
    size_t n = strlen(text);
    if ((size_t)(end - *p) < n || memcmp(*p, text, n)) return 0;
    *p += n;
    return 1;
}

static inline int eat_number(const char **p, const char *end, uint64_t *n) {
    const char *from = *p;
    for (*n = 0; *p < end && **p >= '0' && **p <= '9'; ++*p) *n = *n * 10 + (uint64_t)(**p - '0');
    return *p > from;
}

static inline int eat_expected(const char **p, const char *end, const char *before, uint64_t expected) {
    uint64_t n;
    return eat(p, end, before) && eat_number(p, end, &n) && n == expected;
}

static inline int has(const char *p, const char *end, const char *text) { return memmem(p, (size_t)(end - p), text, strlen(text)) != NULL; }

/* " TAG.INDEX@NS" followed by a quote. */
static inline int eat_token_text(struct checked *s, const char **p, const char *end, uint64_t *sent_ns) {
    if (!eat_expected(p, end, " ", s->tag)) return wrong(s, "foreign token"), 0;
    if (!eat_expected(p, end, ".", s->seen)) return wrong(s, "token out of order"), 0;
    if (!eat(p, end, "@") || !eat_number(p, end, sent_ns) || !eat(p, end, "\"")) return wrong(s, "token text damaged"), 0;
    return 1;
}

static inline void take_token(struct checked *s, uint64_t sent_ns) {
    if (s->seen >= s->want) return wrong(s, "too many tokens");
    s->on_token(s->owner, s->seen++, sent_ns);
}

static inline void check_llamacpp(struct checked *s, const char *p, const char *end) {
    uint64_t sent_ns;
    if (!eat(&p, end, "data: {\"index\":0,\"content\":\"")) return wrong(s, "not an event of the engine");
    if (eat(&p, end, "\",\"tokens\":[],\"id_slot\":")) {
        s->is_over = 1;
        if (s->seen != s->want || !has(p, end, "\"stop\":true")) wrong(s, "ended with tokens missing");
        return;
    }
    if (!eat_token_text(s, &p, end, &sent_ns)) return;
    if (!eat_expected(&p, end, ",\"tokens\":[504],\"stop\":false,\"id_slot\":-1,\"tokens_predicted\":", s->seen + 1ull))
        return wrong(s, "token event damaged");
    take_token(s, sent_ns);
}

static inline void check_end(struct checked *s, const char *p, const char *end, uint64_t id) {
    s->is_over = 1;
    if (id != s->want + 2ull) return wrong(s, "terminal id");
    if (s->seen != s->want || !eat_expected(&p, end, "{\"tokens_out\":", s->want)) return wrong(s, "ended with tokens missing");
    if (!has(p, end, "\"finish_reason\":\"length\"")) wrong(s, "finish reason");
}

/* id, event and data lines in this order, which is what the daemon sends; other orders count as wrong. */
static inline void check_orchqueue(struct checked *s, const char *p, const char *end) {
    uint64_t id, sent_ns;
    if (*p == ':') return;
    if (!eat(&p, end, "id: ") || !eat_number(&p, end, &id) || !eat(&p, end, "\nevent: ")) return wrong(s, "not an OrchQueue event");
    if (eat(&p, end, "token\ndata: {\"t\":\"")) {
        if (!s->has_started) return wrong(s, "token before started");
        if (!eat_token_text(s, &p, end, &sent_ns)) return;
        if (!eat_expected(&p, end, ",\"i\":", s->seen) || id != s->seen + 2ull) return wrong(s, "token index");
        return take_token(s, sent_ns);
    }
    if (eat(&p, end, "started\ndata: ")) {
        if (s->has_started++ || id != 1) wrong(s, "started twice");
    } else if (eat(&p, end, "end\ndata: ")) check_end(s, p, end, id);
    else if (!eat(&p, end, "metrics\ndata: ")) wrong(s, "error event");
}

/* Takes every complete event out of the body. */
static inline void check_events(struct checked *s, struct bytes *body) {
    while (!s->wrong && bytes_len(body)) {
        const char *p = bytes_at(body), *end = memmem(p, bytes_len(body), "\n\n", 2);
        if (!end) break;
        if (s->is_over) return wrong(s, "event after the end");
        if (s->dialect == LLAMACPP) check_llamacpp(s, p, end);
        else check_orchqueue(s, p, end);
        bytes_drop(body, (size_t)(end + 2 - p));
    }
}

#endif
