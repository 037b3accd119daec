/* The command line, parsed once into one read-only struct. */
#ifndef LIMPET_LOAD_OPTIONS_H
#define LIMPET_LOAD_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

struct options {
    const char *host;      /* numeric IPv4 address */
    const char *path;      /* request target, or a template with one %d: not for `connect` */
    const char *expect;    /* what every answer must begin with; NULL: anything */
    const char *method;    /* http */
    const char *body;      /* http: request body; NULL: none */
    int port;
    int clients;           /* connections; for `connect` and `http`: how many at once */
    int rooms;             /* broadcast, echo, idle: the clients are spread over them */
    int members;           /* broadcast: of each room */
    int keys;              /* http: %d runs over 0..keys-1 */
    size_t size;           /* bytes of each WebSocket text message sent */
    bool greet;            /* idle: each client exchanges one message before `ready` */
    double warmup_s, seconds;
    double timeout_s;      /* bound on opening everything, and on one connect cycle */
};

/* Ends the process with a message and exit code 2 where the arguments do not fit. */
void options_parse(struct options *o, int argc, char **argv);

void options_usage(int exit_code) __attribute__((noreturn));

#endif
