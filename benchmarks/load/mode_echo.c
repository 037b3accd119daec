/* Closed loop: each client sends a text message and waits for one whole answer, of any size. */
#include "modes.h"

static const struct options *options;
static uint8_t *frame;
static size_t frame_length;
static bool running;

static void send_one(struct conn *c) {
    c->sent_at = now_ns();
    conn_send(c, frame, frame_length);
}

static void on_opened(struct conn *c) {
    (void)c;
    engine_count_opened();
}

static void on_message(struct conn *c) {
    if (!running) {
        engine_note_error("a message that no client asked for");
        return;
    }
    if (c->out_left) engine_note_error("an answer before the whole message was sent");
    if (!answer_is_expected(options, c->head, c->head_length)) {
        engine_note_error("an answer that does not begin with --expect");
    }
    window_count(c->sent_at);
    send_one(c);
}

static void on_closing(struct conn *c, int code) {
    (void)code;
    engine_note_error("the server sent Close");
    conn_drop(c);
}

static void on_ended(struct conn *c, const char *why) {
    (void)c, (void)why;
}

int mode_echo(const struct options *o) {
    static const struct events events = {
        .opened = on_opened, .message = on_message, .closing = on_closing, .ended = on_ended};
    options = o;
    frame = frame_build_text(o->size, &frame_length);
    engine_init(o, &events, o->clients);
    for (int i = 0; i < o->clients; i++) conns[i].room = i % o->rooms;
    if (engine_open_all(o->clients, o->timeout_s)) {
        running = true;
        for (int i = 0; i < o->clients; i++) {
            if (conns[i].phase == PHASE_OPEN) send_one(&conns[i]);
        }
        window_run(o);
        for (int i = 0; i < o->clients; i++) {
            if (conns[i].phase == PHASE_OPEN) window_check_answered(conns[i].sent_at);
        }
    }
    return window_report(o, "echo", "messages", o->clients, "");
}
