/* Rooms in which every member gets every message. One member sends; when all members of its room
 * (itself included) have received it, the next member sends. The latency is from the send to
 * the last delivery; the counter counts deliveries. */
#include <stdio.h>
#include <stdlib.h>

#include "modes.h"

struct room {
    uint64_t sent_at;
    int missing; /* members that have not got the current message */
    int sender;  /* member whose turn it is */
};

static const struct options *options;
static struct room *rooms;
static uint8_t *frame;
static size_t frame_length;
static bool running;

static void send_next(struct room *room) {
    struct conn *sender = &conns[(room - rooms) * options->members + room->sender];
    room->sender = (room->sender + 1) % options->members;
    room->missing = options->members;
    if (sender->phase != PHASE_OPEN) return; /* its loss is counted; the room stands still */
    room->sent_at = now_ns();
    conn_send(sender, frame, frame_length);
}

static void on_opened(struct conn *c) {
    (void)c;
    engine_count_opened();
}

static void on_message(struct conn *c) {
    struct room *room = &rooms[c->room];
    if (!running || room->missing == 0) {
        engine_note_error("a message that nobody sent");
        return;
    }
    if (!answer_is_expected(options, c->head, c->head_length)) {
        engine_note_error("a message that does not begin with --expect");
    }
    window.count++;
    if (--room->missing == 0) {
        histogram_add(&window.latency, now_ns() - room->sent_at);
        send_next(room);
    }
}

static void on_closing(struct conn *c, int code) {
    (void)code;
    engine_note_error("the server sent Close");
    conn_drop(c);
}

static void on_ended(struct conn *c, const char *why) {
    (void)c, (void)why;
}

int mode_broadcast(const struct options *o) {
    static const struct events events = {
        .opened = on_opened, .message = on_message, .closing = on_closing, .ended = on_ended};
    options = o;
    frame = frame_build_text(o->size, &frame_length);
    rooms = calloc((size_t)o->rooms, sizeof *rooms);
    if (!rooms) abort();
    int clients = o->rooms * o->members;
    engine_init(o, &events, clients);
    for (int i = 0; i < clients; i++) conns[i].room = i / o->members;
    if (engine_open_all(clients, o->timeout_s)) {
        running = true;
        for (int i = 0; i < o->rooms; i++) send_next(&rooms[i]);
        window_run(o);
        for (int i = 0; i < o->rooms; i++) window_check_answered(rooms[i].sent_at);
    }
    char extra[96];
    snprintf(extra, sizeof extra, "\"rooms\":%d,\"members\":%d,", o->rooms, o->members);
    return window_report(o, "broadcast", "deliveries", clients, extra);
}
