/* Keep-alive HTTP/1.1 requests, one in flight on each connection. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "modes.h"

#define RESPONSE_BYTES 65536
#define REQUEST_BYTES 2048

/* A connection's request text and the response collected so far; parallel to conns[]. */
struct exchange {
    char request[REQUEST_BYTES];
    size_t length;
    char response[RESPONSE_BYTES];
};

static const struct options *options;
static struct exchange *exchanges;
static int next_key;

static void send_request(struct conn *c) {
    struct exchange *x = &exchanges[c->index];
    const char *body = options->body ? options->body : "";
    const char *hole = strstr(options->path, "%d");
    char path[640], entity[64] = "";
    if (hole) {
        snprintf(path, sizeof path, "%.*s%d%s", (int)(hole - options->path), options->path, next_key,
                 hole + 2);
        next_key = (next_key + 1) % options->keys;
    } else {
        snprintf(path, sizeof path, "%s", options->path);
    }
    if (options->body) snprintf(entity, sizeof entity, "Content-Length: %zu\r\n", strlen(body));
    int length = snprintf(x->request, sizeof x->request, "%s %s HTTP/1.1\r\nHost: %s:%d\r\n%s\r\n%s",
                          options->method, path, options->host, options->port, entity, body);
    x->length = 0;
    c->sent_at = now_ns();
    conn_send(c, (const uint8_t *)x->request, (size_t)length);
}

static const char *header_value(const char *head, const char *end, const char *name) {
    size_t length = strlen(name);
    for (const char *line = head; line < end; line++) {
        line = memmem(line, (size_t)(end - line), "\r\n", 2);
        if (!line) return NULL;
        line += 2;
        if ((size_t)(end - line) > length && !strncasecmp(line, name, length)) return line + length;
        line--;
    }
    return NULL;
}

/* 1: the body is whole; 0: more is to come; -1: not a chunked body. */
static int chunks_complete(const char *p, const char *end) {
    for (;;) {
        char *after;
        const char *line_end = memmem(p, (size_t)(end - p), "\r\n", 2);
        if (!line_end) return 0;
        unsigned long size = strtoul(p, &after, 16);
        if (after == p || size > RESPONSE_BYTES) return -1;
        p = line_end + 2;
        if ((size_t)(end - p) < size + 2) return 0;
        if (size == 0) return 1; /* trailers are not expected */
        p += size + 2;
    }
}

static const char *on_bytes(struct conn *c, const uint8_t *data, size_t length) {
    struct exchange *x = &exchanges[c->index];
    if (x->length + length > RESPONSE_BYTES - 1) return "a response over 64 KiB";
    memcpy(x->response + x->length, data, length);
    x->length += length;
    x->response[x->length] = 0;
    const char *end = x->response + x->length;
    const char *head_end = memmem(x->response, x->length, "\r\n\r\n", 4);
    if (!head_end) return NULL;
    const char *body = head_end + 4;
    if (strncmp(x->response, "HTTP/1.1 2", 10)) {
        static char why[64];
        snprintf(why, sizeof why, "answered %.24s", x->response);
        why[strcspn(why, "\r\n")] = 0;
        return why;
    }
    const char *size = header_value(x->response, body, "Content-Length:");
    const char *coding = header_value(x->response, body, "Transfer-Encoding:");
    if (coding) {
        int state = chunks_complete(body, end);
        if (state <= 0) return state ? "a malformed chunked body" : NULL;
    } else if (size) {
        unsigned long wanted = strtoul(size, NULL, 10);
        if ((size_t)(end - body) < wanted) return NULL;
        if ((size_t)(end - body) > wanted) return "more bytes than Content-Length";
    } else if (strncmp(x->response, "HTTP/1.1 204", 12)) {
        return "a response of unknown length";
    }
    if (!coding && !answer_is_expected(options, (const uint8_t *)body, (size_t)(end - body))) {
        return "a body that does not begin with --expect";
    }
    window_count(c->sent_at);
    send_request(c);
    return NULL;
}

static void on_ended(struct conn *c, const char *why) {
    (void)c, (void)why;
}

/* A connection that was lost is opened again, its loss counted. */
static void on_tick(void) {
    for (int i = 0; i < options->clients; i++) {
        if (conns[i].phase == PHASE_FREE) conn_open(&conns[i], options->path);
    }
}

int mode_http(const struct options *o) {
    static const struct events events = {
        .opened = send_request, .ended = on_ended, .bytes = on_bytes, .tick = on_tick};
    options = o;
    if (o->body && strlen(o->body) > REQUEST_BYTES / 2) {
        fprintf(stderr, "load: --body: wanted at most %d bytes\n", REQUEST_BYTES / 2);
        return 2;
    }
    exchanges = calloc((size_t)o->clients, sizeof *exchanges);
    if (!exchanges) abort();
    engine_init(o, &events, o->clients);
    window_run(o);
    for (int i = 0; i < o->clients; i++) {
        if (conns[i].phase == PHASE_OPEN) window_check_answered(conns[i].sent_at);
    }
    return window_report(o, "http", "requests", o->clients, "");
}
