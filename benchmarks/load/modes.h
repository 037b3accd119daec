/* The modes of the load generator. Each runs to its end and returns the exit code. */
#ifndef LIMPET_LOAD_MODES_H
#define LIMPET_LOAD_MODES_H

#include "engine.h"
#include "histogram.h"

int mode_echo(const struct options *o);
int mode_connect(const struct options *o);
int mode_idle(const struct options *o);
int mode_broadcast(const struct options *o);
int mode_http(const struct options *o);

/* What every mode that counts shares: one window of time, one counter, one histogram. */
struct window {
    uint64_t count;
    struct histogram latency;
    uint64_t began_at, ended_at; /* ns */
    double cpu_s;                /* of this process within the window */
};

extern struct window window;

/* Runs the warm-up and then the counted window, with the marker lines on stderr. */
void window_run(const struct options *o);

/* Notes an error where what began at began_ns is still unanswered after a whole window of at
 * least one second: the message or its answer is lost, or somebody starves. */
void window_check_answered(uint64_t began_ns);

/* Counts one operation that began at began_ns and ends now. */
void window_count(uint64_t began_ns);

/* Prints the result; `unit` names the counter in the JSON. Returns the exit code. */
int window_report(const struct options *o, const char *mode, const char *unit, int clients,
                  const char *extra_json);

#endif
