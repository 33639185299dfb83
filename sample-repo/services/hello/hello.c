/*
 * hello: a small HTTP server whose behaviour is set by environment variables, for the sample and the tests.
 *
 *   hello                            serve
 *   hello check                      exit 0 if the server in this container answers /healthz with 200
 *   hello get HOST PORT PATH COUNT   COUNT requests, the name resolved for each; a line per failure, then a summary.
 *                                    COUNT 0: until SIGTERM, with a summary by version five times a second
 *
 * PORT (8080), VERSION, START_DELAY_MS, UNHEALTHY=1, UNHEALTHY_AFTER_MS, EXIT_AFTER_MS + EXIT_CODE, IGNORE_TERM=1,
 * ALLOCATE_MB, LOG_LINES. On SIGTERM it stops accepting, finishes the requests in flight and exits 0.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef DEFAULT_VERSION
#define DEFAULT_VERSION "dev"
#endif

static atomic_int in_flight, stopping;
static long born;
static const char *version;

static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000L + t.tv_nsec / 1000000L;
}
static void sleep_ms(long ms) {
    struct timespec t = {ms / 1000, (ms % 1000) * 1000000L};
    while (nanosleep(&t, &t) == -1 && errno == EINTR) {}
}
static long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtol(text, NULL, 10) : otherwise;
}
static void on_term(int number) { (void)number; atomic_store(&stopping, 1); }

static int healthy(void) {
    long after = setting("UNHEALTHY_AFTER_MS", -1);
    return !setting("UNHEALTHY", 0) && !(after >= 0 && now_ms() - born >= after);
}

/* One connection: requests one after another until the client closes, is silent for 30 s, or the server stops. */
static void *serve(void *argument) {
    int fd = (int)(long)argument;
    char request[4096], host[64] = "", body[256], answer[512];
    struct timeval patience = {30, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    gethostname(host, sizeof host - 1);
    for (;;) {
        size_t have = 0;
        ssize_t got = 0;
        request[0] = 0;
        while (!strstr(request, "\r\n\r\n") && have < sizeof request - 1) {
            got = recv(fd, request + have, sizeof request - 1 - have, 0);
            if (got <= 0) break;
            have += (size_t)got;
            request[have] = 0;
        }
        if (got <= 0 || !strstr(request, "\r\n\r\n")) break;
        atomic_fetch_add(&in_flight, 1);
        int status = 200;
        if (strncmp(request, "GET /healthz", 12) == 0) {
            status = healthy() ? 200 : 503;
            snprintf(body, sizeof body, "%s\n", status == 200 ? "ok" : "unhealthy");
        } else {
            if (strncmp(request, "GET /slow", 9) == 0) sleep_ms(1000);
            snprintf(body, sizeof body, "hello %s %s\n", version, host);
        }
        int last = atomic_load(&stopping) || strcasestr(request, "connection: close") != NULL;
        int size = snprintf(answer, sizeof answer,
                            "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: %s\r\n\r\n%s",
                            status, status == 200 ? "OK" : "Service Unavailable", strlen(body),
                            last ? "close" : "keep-alive", body);
        ssize_t sent = send(fd, answer, (size_t)size, MSG_NOSIGNAL);
        atomic_fetch_sub(&in_flight, 1);
        if (sent < 0 || last) break;
    }
    close(fd);
    return NULL;
}

static void *leave(void *argument) {
    sleep_ms((long)argument);
    fprintf(stderr, "leaving with exit code %ld\n", setting("EXIT_CODE", 1));
    _exit((int)setting("EXIT_CODE", 1));
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&here, sizeof here) || listen(fd, 512)) { perror("listen"); exit(1); }
    return fd;
}

static int run(void) {
    struct sigaction term = {.sa_handler = setting("IGNORE_TERM", 0) ? SIG_IGN : on_term};
    sigaction(SIGTERM, &term, NULL);
    pthread_attr_t detached;
    pthread_t thread;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, 128 * 1024);
    for (long i = 0; i < setting("LOG_LINES", 0); i++) printf("line %ld of hello %s\n", i + 1, version);
    long megabytes = setting("ALLOCATE_MB", 0);
    for (long i = 0; i < megabytes; i++) {
        char *block = malloc(1 << 20);
        if (block) memset(block, 1, 1 << 20);
    }
    long life = setting("EXIT_AFTER_MS", -1);
    if (life >= 0) pthread_create(&thread, &detached, leave, (void *)life);
    for (long left = setting("START_DELAY_MS", 0); left > 0 && !atomic_load(&stopping); left -= 20) sleep_ms(20);
    if (atomic_load(&stopping)) return 0;
    if (!healthy()) printf("hello %s will not become healthy: UNHEALTHY is set\n", version);
    int port = (int)setting("PORT", 8080), listener = listen_on(port);
    struct timeval tick = {0, 50000};
    setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &tick, sizeof tick); /* so that SIGTERM is seen without a race */
    printf("hello %s listens on %d\n", version, port);
    while (!atomic_load(&stopping)) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) continue;
        if (pthread_create(&thread, &detached, serve, (void *)(long)fd)) close(fd);
    }
    close(listener);
    while (atomic_load(&in_flight)) sleep_ms(10);
    printf("hello %s stopped\n", version);
    return 0;
}

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
static int get(const char *host, int port, const char *path, char *body, size_t room, const char **why) {
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    struct timeval patience = {5, 0};
    char text[1024];
    size_t have = 0;
    int status = -1;
    if (resolve(host, &there.sin_addr)) return *why = "the name is not known", -1;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    snprintf(text, sizeof text, "GET %.500s HTTP/1.1\r\nHost: %.100s\r\nConnection: close\r\n\r\n", path, host);
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

static int ask(const char *host, int port, const char *path, long count) {
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

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    born = now_ms();
    version = getenv("VERSION") ? getenv("VERSION") : DEFAULT_VERSION;
    if (argc == 2 && !strcmp(argv[1], "check")) {
        char body[256];
        const char *why = "";
        return get("127.0.0.1", (int)setting("PORT", 8080), "/healthz", body, sizeof body, &why) == 200 ? 0 : 1;
    }
    if (argc == 6 && !strcmp(argv[1], "get"))
        return ask(argv[2], atoi(argv[3]), argv[4], strtol(argv[5], NULL, 10));
    if (argc != 1) return fprintf(stderr, "usage: hello [check | get HOST PORT PATH COUNT]\n"), 2;
    return run();
}
