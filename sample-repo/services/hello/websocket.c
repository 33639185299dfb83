/* The websocket of hello (RFC 6455): upgrade, echo, ping, close. No extensions, no subprotocols, frames up to 64 KiB. */
#include "hello.h"

#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { CONTINUATION, TEXT, BINARY, CLOSE = 8, PING, PONG };
enum { GOING_AWAY = 1001, PROTOCOL_ERROR = 1002, TOO_BIG = 1009 };
#define LARGEST 65536

/* SHA-1 (RFC 3174) of a text of at most 119 bytes: two blocks, which a key with its GUID never exceeds. */
static void sha1(const char *text, unsigned char digest[20]) {
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    unsigned char message[128] = {0};
    size_t size = strlen(text), end = size < 56 ? 64 : 128;
    memcpy(message, text, size);
    message[size] = 0x80;
    message[end - 2] = (unsigned char)(size >> 5); /* the length in bits */
    message[end - 1] = (unsigned char)(size << 3);
    for (size_t block = 0; block < end; block += 64) {
        uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 80; i++) {
            const unsigned char *p = message + block + 4 * (i & 15);
            uint32_t x = i < 16 ? 0 : w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16];
            w[i] = i < 16 ? (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3] : x << 1 | x >> 31;
        }
        for (int i = 0; i < 80; i++) {
            uint32_t f = i < 20   ? ((b & c) | (~b & d)) + 0x5A827999
                         : i < 40 ? (b ^ c ^ d) + 0x6ED9EBA1
                         : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDC
                                  : (b ^ c ^ d) + 0xCA62C1D6;
            uint32_t next = (a << 5 | a >> 27) + f + e + w[i];
            e = d, d = c, c = b << 30 | b >> 2, b = a, a = next;
        }
        h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
    }
    for (int i = 0; i < 20; i++) digest[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
}

/* Base64 (RFC 4648) of the 20 bytes of a digest: 27 letters and one sign of padding. */
static void base64(const unsigned char digest[20], char text[29]) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0, at = 0; i < 20; i += 3) {
        unsigned long three = (unsigned long)digest[i] << 16 | digest[i + 1] << 8 | (i + 2 < 20 ? digest[i + 2] : 0);
        for (int shift = 18; shift >= 0; shift -= 6) text[at++] = letters[three >> shift & 63];
    }
    text[27] = '=';
    text[28] = 0;
}

struct talk {
    int fd;
    const unsigned char *early; /* what came together with the request */
    size_t have;
    long ends; /* when the grace after SIGTERM ends; -1: never, or no SIGTERM yet */
    unsigned char out[LARGEST + 32]; /* a frame, and a Close behind it */
};

static int take(struct talk *it, unsigned char *into, size_t size) {
    for (size_t done = 0; done < size;) {
        size_t step = it->have < size - done ? it->have : size - done;
        if (step) {
            memcpy(into + done, it->early, step);
            it->early += step, it->have -= step, done += step;
            continue;
        }
        ssize_t got = recv(it->fd, into + done, size - done, 0);
        if (got <= 0) return -1;
        done += (size_t)got;
    }
    return 0;
}

/* Writes one frame at `at`, whose size is returned. The server's frames are not masked. */
static size_t frame(unsigned char *at, int first, const unsigned char *content, size_t size) {
    size_t head = size < 126 ? 2 : size < 65536 ? 4 : 10;
    memset(at, 0, head);
    at[0] = (unsigned char)first;
    at[1] = head == 2 ? (unsigned char)size : head == 4 ? 126 : 127;
    for (size_t i = 0; head > 2 && i < 4 && i < head - 2; i++) at[head - 1 - i] = (unsigned char)(size >> (8 * i));
    memmove(at + head, content, size);
    return head + size;
}

static size_t goodbye(unsigned char *at, int code) {
    const unsigned char reason[2] = {(unsigned char)(code >> 8), (unsigned char)code};
    return frame(at, 0x80 | CLOSE, reason, 2);
}

/* Waits for a frame. 1: one is there; 0: the grace is over. SIGTERM starts the grace, if one is set. */
static int await(struct talk *it) {
    long grace = setting("WS_GRACE_MS", -1);
    if (it->have) return 1;
    for (;;) {
        int told = atomic_load(&stopping);
        if (told && grace >= 0 && it->ends < 0) it->ends = now_ms() + grace;
        long left = it->ends < 0 ? -1 : it->ends - now_ms();
        if (it->ends >= 0 && left <= 0) return 0;
        struct pollfd of[2] = {{.fd = it->fd, .events = POLLIN}, {.fd = told ? -1 : bell, .events = POLLIN}};
        poll(of, 2, (int)left);
        if (of[0].revents) return 1;
    }
}

/* True from half of the grace on: the Close then goes out together with an echo, in one write. A client that waits for
   its echo before it says more loses nothing; at the end of the grace the Close goes out at any rate. */
static int waning(const struct talk *it) {
    return it->ends >= 0 && now_ms() >= it->ends - setting("WS_GRACE_MS", 0) / 2;
}

enum outcome { GO_ON, GONE, SAID_CLOSE };

/* One frame is read and answered. */
static enum outcome answer(struct talk *it, unsigned char *content) {
    unsigned char head[2], wide[8], mask[4];
    if (take(it, head, 2)) return GONE;
    int opcode = head[0] & 15, bad = 0;
    uint64_t size = head[1] & 127;
    if (!(head[1] & 128) || head[0] & 0x70 || (opcode > BINARY && opcode < CLOSE) || opcode > PONG) bad = PROTOCOL_ERROR;
    if (opcode >= CLOSE && (size > 125 || !(head[0] & 128))) bad = PROTOCOL_ERROR;
    if (!bad && size >= 126) {
        int count = size == 126 ? 2 : 8;
        if (take(it, wide, (size_t)count)) return GONE;
        size = 0;
        for (int i = 0; i < count; i++) size = size << 8 | wide[i];
        if (size > LARGEST) bad = TOO_BIG;
    }
    if (bad) return send_all(it->fd, it->out, goodbye(it->out, bad)) ? GONE : SAID_CLOSE;
    if (take(it, mask, 4) || take(it, content, size)) return GONE;
    for (uint64_t i = 0; i < size; i++) content[i] ^= mask[i & 3];
    if (opcode == PONG) return GO_ON;
    if (opcode == CLOSE) {
        send_all(it->fd, it->out, frame(it->out, head[0], content, size < 2 ? 0 : 2));
        return GONE;
    }
    int last = opcode < CLOSE && head[0] & 128 && waning(it);
    size_t out = frame(it->out, opcode == PING ? 0x80 | PONG : head[0], content, size);
    if (last) out += goodbye(it->out + out, GOING_AWAY);
    return send_all(it->fd, it->out, out) ? GONE : last ? SAID_CLOSE : GO_ON;
}

/* After a Close of ours: the client's own is awaited for a second, so that the end is no reset. */
static void await_close(struct talk *it) {
    shutdown(it->fd, SHUT_WR);
    for (long until = now_ms() + 1000, left; (left = until - now_ms()) > 0;) {
        struct pollfd of = {.fd = it->fd, .events = POLLIN};
        if (poll(&of, 1, (int)left) <= 0 || recv(it->fd, it->out, sizeof it->out, 0) <= 0) return;
    }
}

void talk(int fd, const char *key, const unsigned char *early, size_t have) {
    struct talk *it = malloc(sizeof *it);
    unsigned char *content = malloc(LARGEST), digest[20];
    char text[128], accept[29];
    enum outcome outcome = GO_ON;
    snprintf(text, sizeof text, "%.60s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    sha1(text, digest);
    base64(digest, accept);
    if (it && content) {
        *it = (struct talk){.fd = fd, .early = early, .have = have, .ends = -1};
        int size = snprintf((char *)it->out, sizeof it->out,
                            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                            "Sec-WebSocket-Accept: %s\r\nX-Version: %s\r\n\r\n", accept, version);
        if (send_all(fd, it->out, (size_t)size)) outcome = GONE;
        while (outcome == GO_ON && await(it)) outcome = answer(it, content);
        if (outcome == GO_ON && !send_all(fd, it->out, goodbye(it->out, GOING_AWAY))) outcome = SAID_CLOSE;
        if (outcome == SAID_CLOSE) await_close(it);
    }
    free(content);
    free(it);
}
