/*
 * hello: a small HTTP server whose behaviour is set by environment variables, for the sample and the tests.
 *
 *   hello                            serve
 *   hello function                   serve as a function: POST answers with its body in upper case
 *   hello check                      exit 0 if the server in this container answers /healthz with 200
 *   hello get HOST PORT PATH COUNT   COUNT requests, the name resolved for each; a line per failure, then a summary.
 *                                    COUNT 0: until SIGTERM, with a summary by version five times a second
 *
 * README.md lists the paths and the variables. On SIGTERM it takes what is already at the door, answers the requests
 * in flight with `Connection: close`, closes idle connections, and exits 0 when the last request is done.
 */
#include "hello.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef DEFAULT_VERSION
#define DEFAULT_VERSION "dev"
#endif
#define LARGEST_BODY 65536
#define PATIENCE_MS 30000 /* for the next request of a connection, and for the rest of one that began */

atomic_int stopping;
int bell;
const char *version;
static atomic_int connections;
static atomic_long asked; /* requests other than /healthz, for FAIL_PERCENT and COLD_REQUESTS */
static long born;
static int function, rope;

long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000L + t.tv_nsec / 1000000L;
}
void sleep_ms(long ms) {
    struct timespec t = {ms / 1000, (ms % 1000) * 1000000L};
    while (ms > 0 && nanosleep(&t, &t) == -1 && errno == EINTR) {}
}
long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtol(text, NULL, 10) : otherwise;
}
void on_term(int number) {
    (void)number;
    int kept = errno;
    if (!atomic_exchange(&stopping, 1) && rope && write(rope, "", 1) < 0) {} /* wakes whoever polls the bell */
    errno = kept;
}
int send_all(int fd, const void *content, size_t size) {
    for (const char *at = content; size;) {
        ssize_t sent = send(fd, at, size, MSG_NOSIGNAL);
        if (sent <= 0) return -1;
        at += sent, size -= (size_t)sent;
    }
    return 0;
}

static int healthy(void) {
    long after = setting("UNHEALTHY_AFTER_MS", -1);
    return !setting("UNHEALTHY", 0) && !(after >= 0 && now_ms() - born >= after);
}

struct request {
    char text[8192]; /* the head, ended by 0, and behind `head` bytes whatever came with it */
    size_t head, have, length;
    char *body; /* `length` bytes */
    int last;   /* the connection ends with the answer */
    int served; /* not its first request */
};

/* The value of a header, copied. 0 if there is none. */
static int header(const struct request *it, const char *name, char *value, size_t room) {
    const char *at = strcasestr(it->text, name); /* `name` begins with \n and ends with a colon */
    if (!at) return 0;
    at += strlen(name);
    at += strspn(at, " \t");
    snprintf(value, room, "%.*s", (int)strcspn(at, "\r\n"), at);
    return 1;
}

/* Waits for more of a request. An idle connection gives up when SIGTERM comes; one that has begun a request, or has just
   been made for one, has a second more. */
static int more(int fd, int idle) {
    for (long until = now_ms() + PATIENCE_MS, left; (left = until - now_ms()) > 0;) {
        int told = atomic_load(&stopping);
        if (told) left = idle ? 0 : left < 1000 ? left : 1000;
        struct pollfd of[2] = {{.fd = fd, .events = POLLIN}, {.fd = told ? -1 : bell, .events = POLLIN}};
        int ready = poll(of, 2, (int)left);
        if (ready > 0 && of[0].revents) return 1;
        if (told && ready >= 0) return 0;
    }
    return 0;
}

/* Reads the next request with its body. 200, 0 when the connection is over, or the status of the refusal. */
static int receive(int fd, struct request *it) {
    const char *end;
    char value[64];
    memmove(it->text, it->text + it->head, it->have -= it->head); /* what came behind the one before */
    it->head = it->length = 0;
    it->text[it->have] = 0;
    while (!(end = strstr(it->text, "\r\n\r\n"))) {
        if (it->have == sizeof it->text - 1) return 431;
        if (!more(fd, it->served && it->have == 0)) return 0;
        ssize_t got = recv(fd, it->text + it->have, sizeof it->text - 1 - it->have, 0);
        if (got <= 0) return 0;
        it->text[it->have += (size_t)got] = 0;
    }
    it->head = (size_t)(end - it->text) + 4;
    it->text[it->head - 1] = 0; /* the head alone is searched from here on */
    it->last = strstr(it->text, " HTTP/1.0\r") != NULL;
    if (header(it, "\nConnection:", value, sizeof value)) it->last = it->last || strcasestr(value, "close") != NULL;
    if (header(it, "\nTransfer-Encoding:", value, sizeof value)) return 411;
    if (!header(it, "\nContent-Length:", value, sizeof value)) return 200;
    it->length = strtoul(value, NULL, 10);
    if (it->length > LARGEST_BODY || !(it->body = malloc(it->length + 1))) return it->length = 0, 413;
    size_t here = it->have - it->head < it->length ? it->have - it->head : it->length;
    memcpy(it->body, it->text + it->head, here);
    memmove(it->text + it->head, it->text + it->head + here, it->have -= it->head + here);
    it->have += it->head;
    for (ssize_t got; here < it->length; here += (size_t)got)
        if (!more(fd, 0) || (got = recv(fd, it->body + here, it->length - here, 0)) <= 0) return 0;
    return 200;
}

static int reply(int fd, struct request *it, int status, const char *body, size_t size) {
    char text[1024];
    const char *reason = status == 200 ? "OK" : status == 503 ? "Service Unavailable" : status == 500 ? "Failed" : "Refused";
    int head = snprintf(text, 512,
                        "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nX-Version: %.100s\r\n"
                        "Connection: %s\r\n\r\n", status, reason, size, version, it->last ? "close" : "keep-alive");
    if (strncmp(it->text, "HEAD ", 5) == 0) size = 0;
    if (size <= 512) { /* one write, one packet */
        memcpy(text + head, body, size);
        return send_all(fd, text, (size_t)head + size);
    }
    return send_all(fd, text, (size_t)head) || send_all(fd, body, size);
}

/* One chunk each 100 ms: for `ms`, then an end; or, if it is -1, until the client closes. */
static int stream(int fd, const struct request *it, long ms) {
    char text[512];
    long began = now_ms();
    int size = snprintf(text, sizeof text,
                        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\nX-Version: %.100s\r\n"
                        "Connection: %s\r\n\r\n", version, it->last ? "close" : "keep-alive");
    while (!send_all(fd, text, (size_t)size)) {
        if (ms >= 0 && now_ms() - began >= ms) return send_all(fd, "0\r\n\r\n", 5);
        char line[160];
        int bytes = snprintf(line, sizeof line, "hello %.100s\n", version);
        size = snprintf(text, sizeof text, "%x\r\n%s\r\n", (unsigned)bytes, line);
        long left = ms < 0 ? 100 : began + ms - now_ms();
        sleep_ms(left < 100 ? left : 100);
    }
    return -1;
}

/* The failures on demand: waits as told, and says whether this request is to fail. */
static int trouble(void) {
    const char *percent = getenv("FAIL_PERCENT");
    double share = percent ? strtod(percent, NULL) / 100 : 0;
    long number = atomic_fetch_add(&asked, 1) + 1;
    if (number <= setting("COLD_REQUESTS", 0)) sleep_ms(setting("COLD_MS", 0));
    return (long)((double)number * share + 1e-9) > (long)((double)(number - 1) * share + 1e-9); /* evenly spread */
}

/* Answers one request. 0: the connection goes on; 1: it is over. */
static int handle(int fd, struct request *it, const char *host) {
    char body[256], method[16] = "", target[256] = "", key[64];
    sscanf(it->text, "%15s %255s", method, target);
    const char *query = strchr(target, '?'), *found = query ? strstr(query, "ms=") : NULL;
    size_t path = query ? (size_t)(query - target) : strlen(target);
    long ms = found ? strtol(found + 3, NULL, 10) : -1;
    if (atomic_load(&stopping)) it->last = 1;
    sleep_ms(setting("DELAY_MS", 0));
    if (path == 8 && !strncmp(target, "/healthz", path)) {
        int good = healthy();
        return reply(fd, it, good ? 200 : 503, good ? "ok\n" : "unhealthy\n", good ? 3 : 10) || it->last;
    }
    if (trouble()) return reply(fd, it, 500, "failing on demand\n", 18) || it->last;
    if (path == 3 && !strncmp(target, "/ws", path) && header(it, "\nSec-WebSocket-Key:", key, sizeof key))
        return talk(fd, key, (unsigned char *)it->text + it->head, it->have - it->head), 1;
    if (path == 8 && !strncmp(target, "/endless", path)) return stream(fd, it, ms) || it->last;
    if (path == 5 && !strncmp(target, "/slow", path)) sleep_ms(ms < 0 ? 1000 : ms);
    if (atomic_load(&stopping)) it->last = 1;
    if (function && !strcmp(method, "POST")) {
        for (size_t i = 0; i < it->length; i++) it->body[i] = (char)toupper((unsigned char)it->body[i]);
        return reply(fd, it, 200, it->body ? it->body : "", it->length) || it->last;
    }
    int size = snprintf(body, sizeof body, "hello %.100s %s\n", version, host);
    return reply(fd, it, 200, body, (size_t)size) || it->last;
}

/* One connection: requests one after another until the client closes, is silent for 30 s, or the server stops. */
static void *serve(void *argument) {
    int fd = (int)(long)argument, yes = 1, over = 0;
    struct timeval patience = {PATIENCE_MS / 1000, 0};
    struct request it = {0};
    char host[64] = "";
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    gethostname(host, sizeof host - 1);
    while (!over) {
        int status = receive(fd, &it);
        if (status == 0) break;
        if (status != 200) it.last = 1;
        over = status == 200 ? handle(fd, &it, host) : (reply(fd, &it, status, "refused\n", 8), 1);
        free(it.body);
        it.body = NULL;
        it.served = 1;
    }
    free(it.body);
    close(fd);
    atomic_fetch_sub(&connections, 1);
    return NULL;
}

static void *leave(void *argument) {
    sleep_ms((long)argument);
    fprintf(stderr, "leaving with exit code %ld\n", setting("EXIT_CODE", 1));
    _exit((int)setting("EXIT_CODE", 1));
}

/* Listens on the port, and tells which one it became: 0 stands for any free one. */
static int listen_on(int *port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((unsigned short)*port)};
    socklen_t size = sizeof here;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&here, sizeof here) || listen(fd, 512)) { perror("listen"); exit(1); }
    if (!getsockname(fd, (struct sockaddr *)&here, &size)) *port = ntohs(here.sin_port);
    return fd;
}

/* Everything at the door is let in; also after SIGTERM, before the door is shut: those connections are made already. */
static void let_in(int listener, const pthread_attr_t *detached) {
    pthread_t thread;
    for (int fd; (fd = accept(listener, NULL, NULL)) >= 0;) {
        atomic_fetch_add(&connections, 1);
        if (!pthread_create(&thread, detached, serve, (void *)(long)fd)) continue;
        atomic_fetch_sub(&connections, 1);
        close(fd);
    }
}

static int run(void) {
    int pipe_ends[2];
    if (pipe(pipe_ends)) { perror("pipe"); return 1; }
    bell = pipe_ends[0], rope = pipe_ends[1];
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
    int port = (int)setting("PORT", 8080), listener = listen_on(&port);
    printf("hello %s listens on %d\n", version, port);
    while (!atomic_load(&stopping)) {
        struct pollfd of[2] = {{.fd = listener, .events = POLLIN}, {.fd = bell, .events = POLLIN}};
        if (poll(of, 2, -1) > 0) let_in(listener, &detached);
    }
    let_in(listener, &detached);
    close(listener);
    while (atomic_load(&connections)) sleep_ms(10);
    printf("hello %s stopped\n", version);
    return 0;
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
    function = argc == 2 && !strcmp(argv[1], "function");
    if (argc != 1 && !function) return fprintf(stderr, "usage: hello [function | check | get HOST PORT PATH COUNT]\n"), 2;
    return run();
}
