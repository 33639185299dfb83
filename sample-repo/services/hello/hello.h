/* What the parts of hello share: hello.c (the server), websocket.c (its /ws) and client.c (`hello get`). */
#ifndef HELLO_H
#define HELLO_H

#define _GNU_SOURCE
#include <stdatomic.h>
#include <stddef.h>

extern atomic_int stopping; /* SIGTERM came */
extern int bell;            /* becomes readable when SIGTERM comes, and stays so */
extern const char *version;

long now_ms(void); /* monotonic */
void sleep_ms(long ms);
long setting(const char *name, long otherwise); /* a number from the environment */
void on_term(int number);
int send_all(int fd, const void *content, size_t size); /* 0, or -1 when the other side is gone */

/* Answers the upgrade and echoes until one side closes. `key` is the client's Sec-WebSocket-Key, `have` bytes at
   `early` came after its request. */
void talk(int fd, const char *key, const unsigned char *early, size_t have);

/* The status of one GET, or -1 with the reason in `why`. */
int get(const char *host, int port, const char *path, char *body, size_t room, const char **why);
/* `count` GETs one after another, 0: until SIGTERM. The exit code. */
int ask(const char *host, int port, const char *path, long count);

#endif
