#include "histogram.h"

#include <string.h>

static unsigned bucket_of(uint64_t ns) {
    if (ns < (1u << HISTOGRAM_SUB_BITS)) return (unsigned)ns;
    unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - HISTOGRAM_SUB_BITS;
    return ((shift + 1) << HISTOGRAM_SUB_BITS) +
           (unsigned)((ns >> shift) & ((1u << HISTOGRAM_SUB_BITS) - 1));
}

/* The middle of a bucket, so that quantiles are unbiased. */
static uint64_t middle_of(unsigned bucket) {
    if (bucket < (1u << HISTOGRAM_SUB_BITS)) return bucket;
    unsigned shift = (bucket >> HISTOGRAM_SUB_BITS) - 1;
    uint64_t mantissa = (bucket & ((1u << HISTOGRAM_SUB_BITS) - 1)) | (1u << HISTOGRAM_SUB_BITS);
    return (mantissa << shift) + ((1ull << shift) >> 1);
}

void histogram_reset(struct histogram *h) { memset(h, 0, sizeof *h); }

void histogram_add(struct histogram *h, uint64_t ns) {
    h->count++;
    if (ns > h->max_ns) h->max_ns = ns;
    h->buckets[bucket_of(ns)]++;
}

uint64_t histogram_quantile(const struct histogram *h, double fraction) {
    if (h->count == 0) return 0;
    uint64_t rank = (uint64_t)(fraction * (double)h->count);
    if (rank >= h->count) rank = h->count - 1;
    uint64_t seen = 0;
    for (unsigned bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        seen += h->buckets[bucket];
        if (seen > rank) {
            uint64_t ns = middle_of(bucket);
            return ns < h->max_ns ? ns : h->max_ns;
        }
    }
    return h->max_ns;
}

void histogram_print_json(const struct histogram *h, FILE *out) {
    fprintf(out, "{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%.1f}",
            (double)histogram_quantile(h, 0.50) / 1e3, (double)histogram_quantile(h, 0.90) / 1e3,
            (double)histogram_quantile(h, 0.99) / 1e3, (double)h->max_ns / 1e3);
}
