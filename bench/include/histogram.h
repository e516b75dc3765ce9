/* A log-linear histogram of nanoseconds: 64 steps per octave, so a percentile is at most 1.6 % off; constant size. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

enum { STEPS = 64, STEP_BITS = 6, BUCKETS = (64 - STEP_BITS + 1) * STEPS };

struct histogram {
    uint64_t count, sum_ns, max_ns;
    uint64_t bucket[BUCKETS];
};

static inline unsigned bucket_of(uint64_t ns) {
    if (ns < STEPS) return (unsigned)ns;
    unsigned octave = 63u - (unsigned)__builtin_clzll(ns) - STEP_BITS;
    return (octave + 1) * STEPS + (unsigned)((ns >> octave) - STEPS);
}

/* The upper edge of a bucket: a percentile is never told lower than it was. */
static inline uint64_t bucket_top_ns(unsigned index) {
    if (index < STEPS) return index;
    unsigned octave = index / STEPS - 1;
    return ((uint64_t)(index % STEPS + STEPS + 1) << octave) - 1;
}

static inline void histogram_add(struct histogram *h, uint64_t ns) {
    h->count++;
    h->sum_ns += ns;
    if (ns > h->max_ns) h->max_ns = ns;
    h->bucket[bucket_of(ns)]++;
}

static inline double histogram_ms(const struct histogram *h, double quantile) {
    uint64_t seen = 0, rank = (uint64_t)(quantile * (double)h->count + 0.999999);
    if (!h->count) return 0;
    if (rank < 1) rank = 1;
    for (unsigned i = 0; i < BUCKETS; i++)
        if ((seen += h->bucket[i]) >= rank) {
            uint64_t top = bucket_top_ns(i);
            return (double)(top < h->max_ns ? top : h->max_ns) / 1e6;
        }
    return (double)h->max_ns / 1e6;
}

/* One JSON member; milliseconds. */
static inline void histogram_print(FILE *out, const char *name, const struct histogram *h) {
    fprintf(out, "\"%s\":{\"count\":%llu,\"mean\":%.4f,\"p50\":%.4f,\"p90\":%.4f,\"p99\":%.4f,\"p999\":%.4f,\"max\":%.4f}",
            name, (unsigned long long)h->count, h->count ? (double)h->sum_ns / (double)h->count / 1e6 : 0,
            histogram_ms(h, 0.5), histogram_ms(h, 0.9), histogram_ms(h, 0.99), histogram_ms(h, 0.999),
            (double)h->max_ns / 1e6);
}

#endif
