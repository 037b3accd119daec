#define _GNU_SOURCE
#include "engine.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "frames.h"

#define READ_BYTES (512 * 1024)
#define TEXT_BYTES 4096
#define BATCH 1024
#define TICK_NS 50000000ull
#define OPENING_AT_ONCE 64

/* All connections come from SOURCES loopback addresses in turn: each has its own range of
 * ephemeral ports, so tens of thousands of sockets in TIME_WAIT (60 s) do not exhaust them. */
#define SOURCES 64

struct conn *conns;
uint64_t engine_errors;
char engine_first_error[160];
volatile bool engine_stop;

static const struct options *options;
static const struct events *events;
static struct sockaddr_in server;
static int epoll_fd;
static uint8_t *read_buffer;
static unsigned opened_count, next_source;
static char stdin_mark; /* its address tells stdin's epoll event from a connection's */

uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

void engine_note_error(const char *what) {
    if (engine_errors++ == 0) snprintf(engine_first_error, sizeof engine_first_error, "%s", what);
}

static void on_signal(int number) {
    (void)number;
    engine_stop = true;
}

static void raise_file_limit(int conn_count) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit)) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < (rlim_t)conn_count + 16) {
        fprintf(stderr, "load: %d connections need more open files than the hard limit of %llu\n",
                conn_count, (unsigned long long)limit.rlim_max);
        exit(2);
    }
}

void engine_init(const struct options *o, const struct events *e, int conn_count) {
    options = o;
    events = e;
    raise_file_limit(conn_count);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)o->port);
    inet_pton(AF_INET, o->host, &server.sin_addr);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    read_buffer = malloc(READ_BYTES);
    conns = calloc((size_t)conn_count, sizeof *conns);
    if (epoll_fd < 0 || !read_buffer || !conns) abort();
    for (int i = 0; i < conn_count; i++) conns[i] = (struct conn){.fd = -1, .index = i};
}

void conn_drop(struct conn *c) {
    if (c->fd >= 0) close(c->fd);
    free(c->text);
    int index = c->index, room = c->room;
    unsigned life = c->life + 1;
    uint64_t started_at = c->started_at;
    *c = (struct conn){.fd = -1, .index = index, .room = room, .life = life,
                       .started_at = started_at};
}

static void conn_fail(struct conn *c, const char *why) {
    char text[160];
    snprintf(text, sizeof text, "%s", why);
    engine_note_error(text);
    conn_drop(c);
    events->ended(c, text);
}

static void conn_fail_errno(struct conn *c, const char *call, int number) {
    char text[160];
    snprintf(text, sizeof text, "%s: %s", call, strerror(number));
    conn_fail(c, text);
}

/* Only where the server itself is on 127.0.0.0/8 does another source address reach it. */
static void bind_source(int fd) {
    if ((ntohl(server.sin_addr.s_addr) >> 24) != 127) return;
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + next_source++ % SOURCES);
    int on = 1; /* the port is chosen at connect(), by the whole 4-tuple */
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    bind(fd, (struct sockaddr *)&source, sizeof source); /* if refused: the default address */
}

void conn_open(struct conn *c, const char *path) {
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        conn_fail_errno(c, "socket", errno);
        return;
    }
    int on = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    bind_source(c->fd);
    if (!events->bytes) {
        c->text = malloc(TEXT_BYTES);
        c->text_length = c->text ? upgrade_request(options, path, c->text, TEXT_BYTES) : 0;
        if (!c->text_length) abort();
    }
    c->phase = PHASE_CONNECTING;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.ptr = c};
    int failed = connect(c->fd, (struct sockaddr *)&server, sizeof server);
    if (failed && errno != EINPROGRESS) {
        conn_fail_errno(c, "connect", errno);
    } else if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event)) {
        conn_fail_errno(c, "epoll_ctl", errno);
    }
}

/* Writes what is left of the message, then of the pong. False where the connection is lost. */
static bool conn_flush(struct conn *c) {
    while (c->out_left || c->pong_left) {
        bool pong = !c->out_left;
        const uint8_t *from = pong ? c->pong + c->pong_length - c->pong_left : c->out;
        ssize_t sent = send(c->fd, from, pong ? c->pong_left : c->out_left, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EAGAIN) return true; /* EPOLLOUT will call again */
            conn_fail_errno(c, "send", errno);
            return false;
        }
        if (pong) {
            c->pong_left = (uint8_t)(c->pong_left - sent);
        } else {
            c->out += sent;
            c->out_left -= (size_t)sent;
        }
    }
    return true;
}

void conn_send(struct conn *c, const uint8_t *data, size_t length) {
    if (length) {
        c->out = data;
        c->out_left = length;
    }
    conn_flush(c);
}

static void on_connected(struct conn *c) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        conn_fail_errno(c, "connect", error);
    } else if (events->bytes) {
        c->phase = PHASE_OPEN;
        events->opened(c);
    } else {
        c->phase = PHASE_RESPONSE; /* the request is far smaller than an empty socket buffer */
        ssize_t sent = send(c->fd, c->text, c->text_length, MSG_NOSIGNAL);
        if (sent != (ssize_t)c->text_length) conn_fail_errno(c, "send", sent < 0 ? errno : EAGAIN);
        c->text_length = 0;
    }
}

/* Collects the response head; what follows it belongs to the frames. */
static const char *on_response(struct conn *c, const uint8_t *data, size_t length) {
    while (length && c->text_length < TEXT_BYTES - 1) {
        c->text[c->text_length++] = (char)*data++;
        length--;
        if (c->text_length >= 4 && !memcmp(c->text + c->text_length - 4, "\r\n\r\n", 4)) {
            c->text[c->text_length] = 0;
            const char *wrong = upgrade_check(c->text);
            if (wrong) return wrong;
            free(c->text);
            c->text = NULL;
            c->phase = PHASE_OPEN;
            unsigned life = c->life;
            events->opened(c);
            return c->life == life ? frames_feed(c, events, data, length) : NULL;
        }
    }
    return length ? "a response head that is too long" : NULL;
}

static void on_eof(struct conn *c) {
    if (c->phase != PHASE_ENDING) {
        conn_fail(c, "the server closed the connection unasked");
        return;
    }
    conn_drop(c);
    events->ended(c, NULL);
}

/* Reads until the socket is empty, which edge-triggered epoll demands. */
static void on_readable(struct conn *c, bool eof_follows) {
    unsigned life = c->life;
    for (;;) {
        ssize_t got = recv(c->fd, read_buffer, READ_BYTES, 0);
        if (got < 0) {
            if (errno != EAGAIN) conn_fail_errno(c, "recv", errno);
            return;
        }
        if (got == 0) {
            on_eof(c);
            return;
        }
        size_t length = (size_t)got;
        const char *wrong = events->bytes ? events->bytes(c, read_buffer, length)
                            : c->phase == PHASE_RESPONSE ? on_response(c, read_buffer, length)
                                                         : frames_feed(c, events, read_buffer, length);
        if (wrong) {
            conn_fail(c, wrong);
            return;
        }
        if (c->life != life || (length < READ_BYTES && !eof_follows)) return;
    }
}

static void on_event(struct conn *c, uint32_t what) {
    if (c->fd < 0) return; /* dropped earlier in this batch */
    unsigned life = c->life;
    if (c->phase == PHASE_CONNECTING && (what & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
        on_connected(c);
        if (c->life != life) return;
    }
    if ((what & EPOLLOUT) && (c->out_left || c->pong_left) && !conn_flush(c)) return;
    if (what & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        on_readable(c, what & (EPOLLRDHUP | EPOLLHUP | EPOLLERR));
    }
}

static void on_stdin(void) {
    char ignored[256];
    ssize_t got = read(STDIN_FILENO, ignored, sizeof ignored);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) engine_stop = true;
}

void engine_run(uint64_t until_ns, const bool *done) {
    static struct epoll_event batch[BATCH];
    static uint64_t ticked_at;
    for (uint64_t now = now_ns(); now < until_ns && !engine_stop && !(done && *done);
         now = now_ns()) {
        if (now - ticked_at >= TICK_NS) {
            ticked_at = now;
            if (events->tick) events->tick();
        }
        uint64_t left = until_ns - now;
        int wait_ms = left < TICK_NS ? (int)(left / 1000000) : (int)(TICK_NS / 1000000);
        int count = epoll_wait(epoll_fd, batch, BATCH, wait_ms);
        for (int i = 0; i < count; i++) {
            if (batch[i].data.ptr == &stdin_mark) on_stdin();
            else on_event(batch[i].data.ptr, batch[i].events);
        }
    }
}

bool engine_watch_stdin(void) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLHUP, .data.ptr = &stdin_mark};
    return !epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event);
}

void engine_count_opened(void) { opened_count++; }

static void path_of(const struct conn *c, char *to, size_t size) {
    const char *hole = strstr(options->path, "%d");
    if (!hole) snprintf(to, size, "%s", options->path);
    else snprintf(to, size, "%.*s%d%s", (int)(hole - options->path), options->path, c->room, hole + 2);
}

bool engine_open_all(int count, double timeout_s) {
    uint64_t until = now_ns() + (uint64_t)(timeout_s * 1e9);
    char path[640];
    int asked = 0;
    while (opened_count < (unsigned)count && now_ns() < until && !engine_stop && !engine_errors) {
        while (asked < count && asked - (int)opened_count < OPENING_AT_ONCE) {
            path_of(&conns[asked], path, sizeof path);
            conn_open(&conns[asked++], path);
        }
        engine_run(now_ns() + 2000000, NULL);
    }
    if (opened_count < (unsigned)count && !engine_errors) {
        engine_note_error("not all clients could be opened in time");
    }
    return opened_count == (unsigned)count;
}
