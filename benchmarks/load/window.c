#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "modes.h"

struct window window;

static double own_cpu_s(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* The runner samples the servers' CPU when it reads these lines. */
static void mark(const char *line) {
    fprintf(stderr, "%s\n", line);
    fflush(stderr);
}

void window_run(const struct options *o) {
    engine_run(now_ns() + (uint64_t)(o->warmup_s * 1e9), NULL);
    window.count = 0;
    histogram_reset(&window.latency);
    mark("measuring");
    double cpu_before_s = own_cpu_s();
    window.began_at = now_ns();
    engine_run(window.began_at + (uint64_t)(o->seconds * 1e9), NULL);
    window.ended_at = now_ns();
    window.cpu_s = own_cpu_s() - cpu_before_s;
    mark("measured");
}

void window_count(uint64_t began_ns) {
    window.count++;
    histogram_add(&window.latency, now_ns() - began_ns);
}

void window_check_answered(uint64_t began_ns) {
    if (began_ns < window.began_at && window.ended_at - window.began_at >= 1000000000ull) {
        engine_note_error("no answer during the whole counted time");
    }
}

static void print_string(const char *text) {
    putchar('"');
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '"' || *p == '\\') printf("\\%c", *p);
        else if (*p < 0x20) printf("\\u%04x", *p);
        else putchar(*p);
    }
    putchar('"');
}

int window_report(const struct options *o, const char *mode, const char *unit, int clients,
                  const char *extra_json) {
    double seconds = (double)(window.ended_at - window.began_at) / 1e9;
    printf("{\"mode\":\"%s\",\"clients\":%d,\"size\":%zu,%s", mode, clients, o->size, extra_json);
    printf("\"%s\":%llu,\"seconds\":%.6f,\"per_second\":%.1f,\"latency_us\":", unit,
           (unsigned long long)window.count, seconds,
           seconds > 0 ? (double)window.count / seconds : 0.0);
    histogram_print_json(&window.latency, stdout);
    printf(",\"generator_cpu_share\":%.3f,\"errors\":%llu,\"first_error\":",
           seconds > 0 ? window.cpu_s / seconds : 0.0, (unsigned long long)engine_errors);
    if (engine_errors) print_string(engine_first_error);
    else printf("null");
    printf("}\n");
    return 0;
}
