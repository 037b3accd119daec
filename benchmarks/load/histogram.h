/* A log-linear latency histogram: fixed memory, about 1.6 % relative error, no allocation. */
#ifndef LIMPET_LOAD_HISTOGRAM_H
#define LIMPET_LOAD_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_SUB_BITS 6 /* 64 linear steps in each power of two */
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS)

struct histogram {
    uint64_t count;
    uint64_t max_ns;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_reset(struct histogram *h);
void histogram_add(struct histogram *h, uint64_t ns);

/* The latency in ns that `fraction` (0..1) of the samples do not exceed; 0 without samples. */
uint64_t histogram_quantile(const struct histogram *h, double fraction);

/* Writes {"p50":…,"p90":…,"p99":…,"max":…} in microseconds. */
void histogram_print_json(const struct histogram *h, FILE *out);

#endif
