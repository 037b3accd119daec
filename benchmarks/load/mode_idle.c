/* Opens the clients, says so, and holds them (answering pings) until stdin ends or SIGTERM. */
#include <stdio.h>

#include "modes.h"

static const struct options *options;
static uint8_t *frame;
static size_t frame_length;

static void on_opened(struct conn *c) {
    if (options->greet) conn_send(c, frame, frame_length);
    else engine_count_opened();
}

static void on_message(struct conn *c) {
    if (!answer_is_expected(options, c->head, c->head_length)) {
        engine_note_error("an answer that does not begin with --expect");
    }
    if (c->step++ == 0 && options->greet) engine_count_opened();
}

static void on_closing(struct conn *c, int code) {
    (void)c, (void)code;
    engine_note_error("the server sent Close");
}

static void on_ended(struct conn *c, const char *why) {
    (void)c, (void)why;
}

static int held(void) {
    int count = 0;
    for (int i = 0; i < options->clients; i++) count += conns[i].phase == PHASE_OPEN;
    return count;
}

int mode_idle(const struct options *o) {
    static const struct events events = {
        .opened = on_opened, .message = on_message, .closing = on_closing, .ended = on_ended};
    options = o;
    frame = frame_build_text(o->size, &frame_length);
    engine_init(o, &events, o->clients);
    for (int i = 0; i < o->clients; i++) conns[i].room = i % o->rooms;
    engine_watch_stdin();
    bool complete = engine_open_all(o->clients, o->timeout_s);
    printf("{\"mode\":\"idle\",\"event\":\"ready\",\"clients\":%d,\"held\":%d,\"errors\":%llu,",
           o->clients, held(), (unsigned long long)engine_errors);
    printf(engine_errors ? "\"first_error\":\"%s\"}\n" : "\"first_error\":null}\n",
           engine_first_error);
    fflush(stdout);
    if (!complete) return 1;
    engine_run(UINT64_MAX, NULL);
    fprintf(stderr, "held %d of %d to the end\n", held(), o->clients);
    return held() == o->clients ? 0 : 1;
}
