/* One epoll loop over many non-blocking client connections.
 *
 * A mode opens connections and reacts through `struct events`; it never sees a socket call.
 * Epoll is edge-triggered for reading and writing at once, so a connection costs one epoll_ctl
 * in its life. Reads go into one big shared buffer; a connection keeps only what it must
 * remember of a message that is not complete (the frame header and the first bytes).
 */
#ifndef LIMPET_LOAD_ENGINE_H
#define LIMPET_LOAD_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "options.h"

#define HEAD_BYTES 128 /* how much of each message is kept, for --expect, Close and Ping */

enum phase {
    PHASE_FREE,       /* no socket */
    PHASE_CONNECTING, /* TCP handshake under way */
    PHASE_RESPONSE,   /* request sent, HTTP response head not complete */
    PHASE_OPEN,       /* WebSocket open, or HTTP response body under way */
    PHASE_ENDING,     /* Close received: only EOF may follow */
};

struct conn {
    int fd;
    int index;
    int room;
    enum phase phase;
    unsigned life; /* rises whenever the socket is closed: tells a callback's caller to stop */

    const uint8_t *out; /* the rest of the message being written; owned by the mode */
    size_t out_left;
    uint8_t pong[6 + 125];
    uint8_t pong_left, pong_length;

    char *text;         /* request, then response head, while PHASE_RESPONSE; NULL otherwise */
    size_t text_length;

    uint8_t header[10]; /* server frames carry no mask: 2, 4 or 10 bytes (RFC 6455 §5.2) */
    uint8_t header_length;
    bool in_payload, fin;
    uint8_t opcode;
    uint64_t payload_left;
    uint8_t head[HEAD_BYTES]; /* beginning of the data message */
    size_t head_length;
    uint8_t control[125];
    uint8_t control_length;

    uint64_t started_at, sent_at; /* ns, monotonic; set by the mode */
    int step;                     /* the mode's own */
};

struct events {
    void (*opened)(struct conn *c);          /* 101 checked, ready to send */
    void (*message)(struct conn *c);         /* one whole text or binary message has arrived */
    void (*closing)(struct conn *c, int code); /* a Close frame has arrived */
    /* The socket is gone (phase is PHASE_FREE again). why is NULL for EOF after Close. */
    void (*ended)(struct conn *c, const char *why);
    /* Raw mode (http): bytes arrived instead of frames. Returns why they are wrong, or NULL. */
    const char *(*bytes)(struct conn *c, const uint8_t *data, size_t length);
    void (*tick)(void); /* about every 50 ms; may be NULL */
};

extern struct conn *conns;
extern uint64_t engine_errors;
extern char engine_first_error[160];
extern volatile bool engine_stop; /* set by SIGTERM, SIGINT */

uint64_t now_ns(void);
void engine_init(const struct options *o, const struct events *events, int conn_count);
void engine_note_error(const char *what);

/* Starts a TCP connection to host:port; in frame mode the upgrade of `path` follows by itself. */
void conn_open(struct conn *c, const char *path);
void conn_send(struct conn *c, const uint8_t *data, size_t length);
void conn_drop(struct conn *c); /* closes without an `ended` event */

/* Handles events until `until_ns` or until `*done` becomes true. */
void engine_run(uint64_t until_ns, const bool *done);

/* Opens conns[0..count) over time, at most 64 handshakes under way; false at the timeout. */
bool engine_open_all(int count, double timeout_s);
void engine_count_opened(void); /* a mode's `opened` calls it during engine_open_all */
bool engine_watch_stdin(void);  /* engine_stop at EOF of stdin */

/* A masked text (or other) frame, malloc'ed: every client sends the same bytes. */
uint8_t *frame_build(int opcode, const uint8_t *payload, size_t size, size_t *length);
uint8_t *frame_build_text(size_t size, size_t *length);

bool answer_is_expected(const struct options *o, const uint8_t *head, size_t length);

#endif
