/* The client side of hello: `hello get` and `hello check`. One connection for each request, no retries. */
#include "hello.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Asks the container's own name server (RFC 1035): a static program has no resolver of its own to rely on. */
static int resolve(const char *name, struct in_addr *found) {
    if (inet_pton(AF_INET, name, found) == 1) return 0;
    char server[64] = "127.0.0.11", line[256];
    FILE *file = fopen("/etc/resolv.conf", "r");
    while (file && fgets(line, sizeof line, file)) if (sscanf(line, "nameserver %63s", server) == 1) break;
    if (file) fclose(file);
    unsigned char packet[512] = {0x12, 0x34, 1, 0, 0, 1};
    size_t at = 12;
    for (const char *label = name; *label;) {
        size_t size = strcspn(label, ".");
        if (size > 63 || at + size > 250) return -1;
        packet[at++] = (unsigned char)size;
        memcpy(packet + at, label, size);
        at += size;
        label += size + (label[size] == '.');
    }
    memcpy(packet + at, "\0\0\1\0\1", 5);
    at += 5;
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(53)};
    struct timeval patience = {2, 0};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    inet_pton(AF_INET, server, &there.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ssize_t size = -1;
    if (!connect(fd, (struct sockaddr *)&there, sizeof there) && send(fd, packet, at, 0) > 0)
        size = recv(fd, packet, sizeof packet, 0);
    close(fd);
    for (size_t i = at; size > 0 && i < (size_t)size;) { /* answers: name, type, class, ttl, length, content */
        while (i < (size_t)size && packet[i] && packet[i] < 0xC0) i += packet[i] + 1;
        i += i < (size_t)size && packet[i] ? 2 : 1;
        if (i + 10 > (size_t)size) break;
        unsigned length = packet[i + 8] << 8 | packet[i + 9];
        if (packet[i + 1] == 1 && length == 4 && i + 14 <= (size_t)size) return memcpy(found, packet + i + 10, 4), 0;
        i += 10 + length;
    }
    return -1;
}

/* The status of one GET, or -1 with the reason in `why`. */
int get(const char *host, int port, const char *path, char *body, size_t room, const char **why) {
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    struct timeval patience = {5, 0};
    char text[1024];
    size_t have = 0;
    int status = -1;
    if (resolve(host, &there.sin_addr)) return *why = "the name is not known", -1;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    const char *header = getenv("HOST_HEADER"); /* through a proxy: who is meant is not who is asked */
    if (!header || !*header) header = host;
    snprintf(text, sizeof text, "GET %.500s HTTP/1.1\r\nHost: %.100s\r\nConnection: close\r\n\r\n", path, header);
    if (connect(fd, (struct sockaddr *)&there, sizeof there) || send(fd, text, strlen(text), MSG_NOSIGNAL) < 0) {
        *why = strerror(errno);
    } else {
        for (ssize_t got; have < sizeof text - 1 && (got = recv(fd, text + have, sizeof text - 1 - have, 0)) > 0;) have += (size_t)got;
        text[have] = 0;
        if (sscanf(text, "HTTP/1.1 %d", &status) != 1) *why = "no answer";
        char *start = strstr(text, "\r\n\r\n");
        snprintf(body, room, "%s", start ? start + 4 : "");
        body[strcspn(body, "\n")] = 0;
    }
    close(fd);
    return status;
}

struct tally { char version[32]; long count; };

/* One line of totals. The versions follow in the order in which they were first met. */
static void summarise(long count, long good, long bad, const struct tally *met) {
    printf("%ld requests, %ld answered, %ld failed", count, good, bad);
    for (int i = 0; i < 16 && met[i].count; i++) printf("%s %s %ld", i ? "," : ":", met[i].version, met[i].count);
    printf("\n");
}

static void tell(struct tally *met, const char *body) {
    char name[32] = "";
    if (sscanf(body, "hello %31s", name) != 1) return;
    for (int i = 0; i < 16; i++) {
        if (met[i].count && strcmp(met[i].version, name)) continue;
        strcpy(met[i].version, name);
        met[i].count++;
        return;
    }
}

int ask(const char *host, int port, const char *path, long count) {
    long good = 0, bad = 0, i, told = 0;
    char body[256] = "", seen[256] = "";
    struct tally met[16] = {0}, none[16] = {0};
    struct sigaction term = {.sa_handler = on_term};
    sigaction(SIGTERM, &term, NULL);
    for (i = 0; (count == 0 || i < count) && !atomic_load(&stopping); i++) {
        const char *why = "";
        int status = get(host, port, path, body, sizeof body, &why);
        if (status >= 200 && status < 400) good++;
        else { bad++; printf("request %ld failed: %d %s\n", i + 1, status, why); }
        if (status == 200) tell(met, body);
        if (count && status == 200 && strcmp(body, seen)) { printf("%s\n", body); strcpy(seen, body); }
        if (!count && now_ms() - told >= 200) { summarise(i + 1, good, bad, met); told = now_ms(); }
        sleep_ms(5);
    }
    summarise(i, good, bad, count ? none : met);
    return bad ? 1 : 0;
}
