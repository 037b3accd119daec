/* The whole life of a connection, over and over: connect, upgrade, one message, its answer,
 * Close(1000), the server's Close, EOF. The latency is that of the whole cycle.
 *
 * The server closes the TCP connection first, as RFC 6455 §7.1.1 asks, so TIME_WAIT stays on its
 * side; the client uses neither SO_LINGER 0 nor a reset. A server that keeps the connection
 * open for HALF_CLOSE_NS after its Close gets a half-close, as that section lets a client do.
 */
#include <stdio.h>
#include <sys/socket.h>

#include "modes.h"

#define HALF_CLOSE_NS 1000000000ull
#define DRAIN_NS 3000000000ull

enum step { STEP_SENT = 1, STEP_CLOSE_SENT, STEP_CLOSE_RECEIVED, STEP_HALF_CLOSED };

static const struct options *options;
static uint8_t *frame, *close_frame;
static size_t frame_length, close_length;
static uint64_t half_closes;
static int in_flight;
static bool draining, drained; /* after the window: let the cycles end, start none */

static void start(struct conn *c) {
    c->started_at = now_ns();
    in_flight++;
    conn_open(c, options->path);
}

static void on_opened(struct conn *c) {
    c->step = STEP_SENT;
    conn_send(c, frame, frame_length);
}

static void on_message(struct conn *c) {
    if (c->step != STEP_SENT) return; /* a message that crossed our Close */
    if (!answer_is_expected(options, c->head, c->head_length)) {
        engine_note_error("an answer that does not begin with --expect");
    }
    c->step = STEP_CLOSE_SENT;
    conn_send(c, close_frame, close_length);
}

static void on_closing(struct conn *c, int code) {
    if (c->step != STEP_CLOSE_SENT) engine_note_error("the server sent Close first");
    else if (code != 1000) engine_note_error("a Close with a code other than 1000");
    c->step = STEP_CLOSE_RECEIVED;
    c->sent_at = now_ns();
}

static void on_ended(struct conn *c, const char *why) {
    drained = --in_flight == 0 && draining;
    if (why || draining) return; /* on_tick starts a failed one again: a refusing server has rest */
    window_count(c->started_at);
    start(c);
}

static void on_tick(void) {
    uint64_t now = now_ns(), limit_ns = (uint64_t)(options->timeout_s * 1e9);
    for (int i = 0; i < options->clients; i++) {
        struct conn *c = &conns[i];
        if (c->phase == PHASE_ENDING && c->step == STEP_CLOSE_RECEIVED &&
            now - c->sent_at > HALF_CLOSE_NS) {
            c->step = STEP_HALF_CLOSED;
            half_closes++;
            shutdown(c->fd, SHUT_WR);
        }
        if (c->phase != PHASE_FREE && now - c->started_at > limit_ns) {
            engine_note_error("a cycle took longer than --timeout-s");
            conn_drop(c);
            drained = --in_flight == 0 && draining;
        }
        if (c->phase == PHASE_FREE && !draining) start(c);
    }
}

int mode_connect(const struct options *o) {
    static const struct events events = {.opened = on_opened, .message = on_message,
                                         .closing = on_closing, .ended = on_ended,
                                         .tick = on_tick};
    static const uint8_t code_1000[2] = {1000 >> 8, 1000 & 0xff};
    options = o;
    frame = frame_build_text(o->size, &frame_length);
    close_frame = frame_build(0x8, code_1000, 2, &close_length);
    engine_init(o, &events, o->clients);
    window_run(o);
    draining = true;
    drained = in_flight == 0;
    engine_run(now_ns() + DRAIN_NS, &drained);
    char extra[64];
    snprintf(extra, sizeof extra, "\"half_closes\":%llu,", (unsigned long long)half_closes);
    return window_report(o, "connect", "cycles", o->clients, extra);
}
