#include "frames.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The sample handshake of RFC 6455 §1.3: a fixed key has a fixed answer, so no SHA-1 here. */
#define SAMPLE_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define SAMPLE_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

/* RFC 6455 §5.3 wants a fresh mask for each frame; against a load generator that buys nothing,
 * and a non-zero constant costs the server exactly the same work. */
static const uint8_t MASK[4] = {0x37, 0xfa, 0x21, 0x3d};

size_t upgrade_request(const struct options *o, const char *path, char *to, size_t size) {
    int length = snprintf(to, size,
                          "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\n"
                          "Connection: Upgrade\r\nSec-WebSocket-Key: " SAMPLE_KEY "\r\n"
                          "Sec-WebSocket-Version: 13\r\n\r\n",
                          path, o->host, o->port);
    return length > 0 && (size_t)length < size ? (size_t)length : 0;
}

static bool header_is(const char *head, const char *name, const char *wanted) {
    size_t name_length = strlen(name), wanted_length = strlen(wanted);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, name_length) || line[name_length] != ':') continue;
        const char *value = line + name_length + 1;
        while (*value == ' ' || *value == '\t') value++;
        return !strncasecmp(value, wanted, wanted_length) && value[wanted_length] == '\r';
    }
    return false;
}

const char *upgrade_check(const char *head) {
    if (strncmp(head, "HTTP/1.1 101", 12)) return "the upgrade was not answered with 101";
    if (!header_is(head, "Upgrade", "websocket")) return "101 without Upgrade: websocket";
    if (!header_is(head, "Connection", "Upgrade")) return "101 without Connection: Upgrade";
    if (!header_is(head, "Sec-WebSocket-Accept", SAMPLE_ACCEPT)) return "wrong Sec-WebSocket-Accept";
    return NULL;
}

uint8_t *frame_build(int opcode, const uint8_t *payload, size_t size, size_t *length) {
    uint8_t *frame = malloc(size + 14), *p = frame;
    if (!frame) abort();
    *p++ = (uint8_t)(0x80 | opcode);
    if (size < 126) {
        *p++ = (uint8_t)(0x80 | size);
    } else {
        int width = size < 65536 ? 2 : 8;
        *p++ = (uint8_t)(0x80 | (width == 2 ? 126 : 127));
        for (int i = width - 1; i >= 0; i--) *p++ = (uint8_t)((uint64_t)size >> (8 * i));
    }
    memcpy(p, MASK, 4);
    p += 4;
    for (size_t i = 0; i < size; i++) p[i] = payload[i] ^ MASK[i & 3];
    *length = (size_t)(p - frame) + size;
    return frame;
}

uint8_t *frame_build_text(size_t size, size_t *length) {
    uint8_t *text = malloc(size + 1);
    if (!text) abort();
    for (size_t i = 0; i < size; i++) text[i] = (uint8_t)('a' + i % 26);
    uint8_t *frame = frame_build(0x1, text, size, length);
    free(text);
    return frame;
}

/* A ping is answered after whatever message is being written (RFC 6455 §5.5.2). */
static void answer_ping(struct conn *c) {
    size_t length;
    uint8_t *frame = frame_build(0xA, c->control, c->control_length, &length);
    memcpy(c->pong, frame, length);
    free(frame);
    c->pong_length = c->pong_left = (uint8_t)length;
    conn_send(c, NULL, 0);
}

/* How many bytes the header takes, once its first two are known. */
static unsigned header_bytes(const uint8_t *header) {
    unsigned code = header[1] & 0x7f;
    return code == 126 ? 4 : code == 127 ? 10 : 2;
}

static const char *begin_payload(struct conn *c) {
    uint64_t size = c->header[1] & 0x7f;
    if (size >= 126) {
        unsigned width = header_bytes(c->header) - 2;
        size = 0;
        for (unsigned i = 0; i < width; i++) size = size << 8 | c->header[2 + i];
    }
    if (c->header[0] & 0x70) return "a frame with reserved bits (no extension was offered)";
    if (c->header[1] & 0x80) return "a masked frame from the server";
    c->fin = c->header[0] & 0x80;
    c->opcode = c->header[0] & 0x0f;
    c->payload_left = size;
    c->in_payload = true;
    if (c->opcode >= 8) {
        if (size > 125 || !c->fin) return "a control frame that is too long or fragmented";
        c->control_length = 0;
    } else if (c->opcode == 1 || c->opcode == 2) {
        c->head_length = 0;
    } else if (c->opcode != 0) {
        return "a frame with an unknown opcode";
    }
    return NULL;
}

static void keep(struct conn *c, const uint8_t *data, size_t length) {
    if (c->opcode >= 8) {
        memcpy(c->control + c->control_length, data, length);
        c->control_length = (uint8_t)(c->control_length + length);
        return;
    }
    size_t room = HEAD_BYTES - c->head_length;
    if (length < room) room = length;
    memcpy(c->head + c->head_length, data, room);
    c->head_length += room;
}

static void end_frame(struct conn *c, const struct events *events) {
    c->in_payload = false;
    c->header_length = 0;
    if (c->opcode == 0x8) {
        int code = c->control_length >= 2 ? c->control[0] << 8 | c->control[1] : 1005;
        c->phase = PHASE_ENDING;
        events->closing(c, code);
    } else if (c->opcode == 0x9) {
        answer_ping(c);
    } else if (c->opcode < 8 && c->fin) {
        events->message(c);
    }
}

const char *frames_feed(struct conn *c, const struct events *events, const uint8_t *data,
                        size_t length) {
    const uint8_t *end = data + length;
    unsigned life = c->life;
    for (;;) {
        if (!c->in_payload) {
            while (c->header_length < 2 || c->header_length < header_bytes(c->header)) {
                if (data == end) return NULL;
                if (c->phase == PHASE_ENDING) return "bytes after the Close frame";
                c->header[c->header_length++] = *data++;
            }
            const char *wrong = begin_payload(c);
            if (wrong) return wrong;
        }
        size_t take = (size_t)(end - data);
        if (c->payload_left < take) take = (size_t)c->payload_left;
        keep(c, data, take);
        data += take;
        c->payload_left -= take;
        if (c->payload_left) return NULL;
        end_frame(c, events);
        if (c->life != life) return NULL;
    }
}

bool answer_is_expected(const struct options *o, const uint8_t *head, size_t length) {
    if (!o->expect) return true;
    size_t wanted = strlen(o->expect);
    return length >= wanted && !memcmp(head, o->expect, wanted);
}
