#include "options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char USAGE[] =
    "usage: load MODE [options]\n"
    "\n"
    "modes (each prints one JSON object on stdout):\n"
    "  echo        every client sends one text message and waits for one whole answer\n"
    "  connect     connect, upgrade, send, read the answer, Close(1000), read Close and EOF; repeat\n"
    "  idle        open the clients, print `ready`, hold them until stdin ends or SIGTERM\n"
    "  broadcast   one member of each room sends; when all members have it, the next one does\n"
    "  http        keep-alive requests, one in flight on each connection\n"
    "\n"
    "options:\n"
    "  --host A              numeric IPv4 address (127.0.0.1)\n"
    "  --port N              1..65535, required\n"
    "  --path P              request target (/websocket; broadcast: /room/%d; http: /)\n"
    "  --path-template P     the same as --path\n"
    "  --expect PREFIX       every answer must begin with it, else it counts as an error\n"
    "  --clients N           connections at once (64)\n"
    "  --size BYTES          payload of each message sent (32)\n"
    "  --rooms R             broadcast, echo, idle: %d in the path runs over 0..R-1 (1)\n"
    "  --members M           broadcast: clients in each room (100)\n"
    "  --method M --body B   http (GET, no body)\n"
    "  --keys N              http: %d in the path runs over 0..N-1 (1)\n"
    "  --warmup-s S          not counted (1)\n"
    "  --seconds S           counted (4)\n"
    "  --timeout-s S         bound on opening all clients, and on one connect cycle (30)\n"
    "  --greet               idle: exchange one message on each connection before `ready`\n"
    "\n"
    "stderr carries the lines `measuring` and `measured` at the edges of the counted time.\n";

void options_usage(int exit_code) {
    fputs(USAGE, exit_code ? stderr : stdout);
    exit(exit_code);
}

static void bad(const char *name, const char *value, const char *wanted) {
    fprintf(stderr, "load: %s %s: wanted %s\n", name, value, wanted);
    exit(2);
}

static double number(const char *name, const char *text, double low, double high) {
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (errno || end == text || *end || !(value >= low && value <= high)) {
        char wanted[64];
        snprintf(wanted, sizeof wanted, "a number in %.10g..%.10g", low, high);
        bad(name, text, wanted);
    }
    return value;
}

static int integer(const char *name, const char *text, int low, int high) {
    double value = number(name, text, low, high);
    if (value != (double)(int)value) bad(name, text, "a whole number");
    return (int)value;
}

/* A path goes into a request line and, with its one %d, through snprintf: refuse anything else. */
static void check_path(const char *path) {
    int conversions = 0;
    if (path[0] != '/' || strlen(path) > 512) bad("--path", path, "`/...` of at most 512 bytes");
    for (const char *p = path; *p; p++) {
        if ((unsigned char)*p <= ' ') bad("--path", path, "no spaces or control characters");
        if (*p != '%') continue;
        if (p[1] != 'd' || ++conversions > 1) bad("--path", path, "at most one %d, no other %");
    }
}

void options_parse(struct options *o, int argc, char **argv) {
    *o = (struct options){.host = "127.0.0.1", .method = "GET", .clients = 64, .rooms = 1,
                          .members = 100, .keys = 1, .size = 32, .warmup_s = 1, .seconds = 4,
                          .timeout_s = 30};
    for (int i = 2; i < argc; i++) {
        const char *name = argv[i];
        if (!strcmp(name, "--help")) options_usage(0);
        if (!strcmp(name, "--greet")) {
            o->greet = true;
            continue;
        }
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!value) bad(name, "", "a known option and its value");
        i++;
        if (!strcmp(name, "--host")) o->host = value;
        else if (!strcmp(name, "--path") || !strcmp(name, "--path-template")) o->path = value;
        else if (!strcmp(name, "--expect")) o->expect = value;
        else if (!strcmp(name, "--method")) o->method = value;
        else if (!strcmp(name, "--body")) o->body = value;
        else if (!strcmp(name, "--port")) o->port = integer(name, value, 1, 65535);
        else if (!strcmp(name, "--clients")) o->clients = integer(name, value, 1, 100000);
        else if (!strcmp(name, "--rooms")) o->rooms = integer(name, value, 1, 100000);
        else if (!strcmp(name, "--members")) o->members = integer(name, value, 1, 100000);
        else if (!strcmp(name, "--keys")) o->keys = integer(name, value, 1, 100000000);
        else if (!strcmp(name, "--size")) o->size = (size_t)integer(name, value, 0, 64 << 20);
        else if (!strcmp(name, "--warmup-s")) o->warmup_s = number(name, value, 0, 3600);
        else if (!strcmp(name, "--seconds")) o->seconds = number(name, value, 0.01, 3600);
        else if (!strcmp(name, "--timeout-s")) o->timeout_s = number(name, value, 0.01, 3600);
        else bad(name, value, "a known option (see load --help)");
    }
    if (o->port == 0) bad("--port", "", "a value");
    if (!o->path) {
        o->path = !strcmp(argv[1], "broadcast") ? "/room/%d" : !strcmp(argv[1], "http") ? "/" : "/websocket";
    }
    check_path(o->path);
    struct in_addr ignored;
    if (inet_pton(AF_INET, o->host, &ignored) != 1) bad("--host", o->host, "a numeric IPv4 address");
    if (o->expect && strlen(o->expect) > 100) bad("--expect", o->expect, "at most 100 bytes");
    for (const char *p = o->method; *p; p++) {
        if (*p < 'A' || *p > 'Z') bad("--method", o->method, "upper-case letters");
    }
}
