/* Incremental parser of server frames (RFC 6455 §5) into the engine's events. */
#ifndef LIMPET_LOAD_FRAMES_H
#define LIMPET_LOAD_FRAMES_H

#include "engine.h"

/* Returns why the bytes are wrong, or NULL. Stops early where an event dropped the connection. */
const char *frames_feed(struct conn *c, const struct events *events, const uint8_t *data,
                        size_t length);

/* Checks a complete 101 response head against RFC 6455 §4.1. Returns what is wrong, or NULL. */
const char *upgrade_check(const char *head);

/* Writes the upgrade request into `to`; returns its length, or 0 where it does not fit. */
size_t upgrade_request(const struct options *o, const char *path, char *to, size_t size);

#endif
