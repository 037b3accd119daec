/* A load generator for WebSocket and HTTP servers: one thread, epoll, no dependencies.
 *
 * It must never be the bottleneck: frames are built and masked once, a message is one send(), reads
 * come in batches, and nothing is allocated after the connections are open. Its own share of a
 * core is in the result (`generator_cpu_share`): a figure near 1 means the generator was full.
 *
 * Build: cc -O2 -o load *.c     Run: load --help
 */
#include <stdio.h>
#include <string.h>

#include "modes.h"

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(const struct options *);
    } modes[] = {{"echo", mode_echo},
                 {"connect", mode_connect},
                 {"idle", mode_idle},
                 {"broadcast", mode_broadcast},
                 {"http", mode_http}};
    if (argc < 2) options_usage(2);
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) options_usage(0);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (strcmp(argv[1], modes[i].name)) continue;
        struct options options;
        options_parse(&options, argc, argv);
        return modes[i].run(&options);
    }
    fprintf(stderr, "load: unknown mode %s\n", argv[1]);
    options_usage(2);
}
