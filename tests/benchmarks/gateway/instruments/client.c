/* A load client that reads whole answers, plain or streamed, and counts what it was given.
 *
 * CONCURRENCY connections each send the request again and again. None is sent after SECONDS, nor
 * more than REQUESTS in all (0: no bound); those under way are then read to their end, so that what
 * is counted is exactly what was answered. Rates are of what arrived before the time was up.
 *
 * Usage: client PORT PATH CONCURRENCY SECONDS REQUESTS BODYFILE ["Header: value" ...]
 * Prints one line `RESULT name=value ...`; times in microseconds:
 *   ok        answers of status 200 that were complete (a stream: that ended with [DONE])
 *   refused   other statuses; cut: connections that ended within an answer; lost: neither came
 *   rate      complete answers per second; events: server-sent events per second
 *   per_stream  events per complete answer; first_p50, first_p99: to an answer's first byte
 *   whole_p50, whole_p99: to its last */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 65536
#define SAMPLES_MAX 4000000
#define HEAD_BYTES_MAX 4096
#define OPENING_MAX 256 /* connections that wait for their first answer while others are opened */
#define DRAIN_S 60.0
static const char TAIL[] = "data: [DONE]\n\n";
#define TAIL_BYTES ((int)sizeof TAIL - 1)

enum reading { HEAD, LENGTH, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, COMPLETE };
struct connection {
    enum reading reading;
    double sent_at, first_at;
    char head[HEAD_BYTES_MAX], tail[32];
    int head_used, tail_used, status, newline_before;
    long left, events;
};

static struct connection *connections;
static char request[1 << 20];
static int request_bytes, port, poller, opened, under_way, unanswered;
static long sent, requests_max, ok, refused, cut, lost, ok_events, ok_in_time, events_in_time;
static float *first_us, *whole_us;
static double stop_at;

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

static int may_send(void) { return now() < stop_at && (!requests_max || sent < requests_max); }

static void send_request(int fd) {
    struct connection *c = &connections[fd];
    c->reading = HEAD;
    c->head_used = c->tail_used = c->status = c->newline_before = 0;
    c->events = 0;
    c->first_at = 0;
    c->sent_at = now();
    sent++;
    under_way++;
    unanswered++;
    if (write(fd, request, request_bytes) != request_bytes) shutdown(fd, SHUT_RDWR);
}

static int open_connection(void) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || fd >= CONNECTIONS_MAX || connect(fd, (void *)&to, sizeof to)) {
        if (fd >= 0) close(fd);
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    return fd;
}

/* The head is complete: what kind of body follows. */
static void read_head(struct connection *c) {
    c->head[c->head_used] = 0;
    c->status = atoi(c->head + 9);
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    if (strcasestr(c->head, "\r\ntransfer-encoding: chunked")) {
        c->reading = CHUNK_SIZE;
        c->head_used = 0; /* the buffer now holds chunk sizes */
    } else {
        c->left = length ? atol(length + 17) : 0;
        c->reading = c->left ? LENGTH : COMPLETE;
    }
}

/* Part of a body: count its events (they end with an empty line) and keep its end. */
static void read_body(struct connection *c, const char *bytes, int length, double at) {
    const char *end = bytes + length, *from = bytes, *found;
    if (c->newline_before && *bytes == '\n') c->events++, events_in_time += at < stop_at;
    while ((found = memchr(from, '\n', end - from)) != NULL) {
        if (found > bytes && found[-1] == '\n') c->events++, events_in_time += at < stop_at;
        from = found + 1;
    }
    c->newline_before = end[-1] == '\n';
    int keep = length < TAIL_BYTES ? length : TAIL_BYTES, before = TAIL_BYTES - keep;
    if (before > c->tail_used) before = c->tail_used;
    memmove(c->tail, c->tail + c->tail_used - before, before);
    memcpy(c->tail + before, end - keep, keep);
    c->tail_used = before + keep;
}

/* Feed what arrived. Returns how much was used; less than all only when an answer is complete. */
static int feed(struct connection *c, const char *bytes, int length, double at) {
    int used = 0;
    while (used < length && c->reading != COMPLETE) {
        const char *from = bytes + used;
        int rest = length - used;
        if (c->reading == LENGTH || c->reading == CHUNK) {
            int part = c->left < rest ? (int)c->left : rest;
            if (!c->first_at) c->first_at = at, unanswered--;
            read_body(c, from, part, at);
            used += part;
            c->left -= part;
            if (!c->left) c->reading = c->reading == LENGTH ? COMPLETE : CHUNK_END;
            continue;
        }
        char byte = *from;
        used++;
        if (c->head_used < HEAD_BYTES_MAX - 1) c->head[c->head_used++] = byte;
        if (byte != '\n') continue;
        if (c->reading == HEAD) {
            int complete = c->head_used >= 4 && !memcmp(c->head + c->head_used - 4, "\r\n\r\n", 4);
            if (complete) read_head(c);
            continue;
        }
        int empty_line = c->head_used <= 2;
        c->head[c->head_used] = 0;
        if (c->reading == CHUNK_SIZE) {
            c->left = strtol(c->head, NULL, 16);
            c->reading = c->left ? CHUNK : TRAILER;
        } else if (c->reading == CHUNK_END) {
            c->reading = CHUNK_SIZE;
        } else if (empty_line) {
            c->reading = COMPLETE;
        }
        c->head_used = 0;
    }
    return used;
}

static void count(struct connection *c, double at) {
    int is_stream = c->events > 0;
    int ended = c->tail_used == TAIL_BYTES && !memcmp(c->tail, TAIL, TAIL_BYTES);
    under_way--;
    if (!c->first_at) unanswered--;
    if (c->status != 200) {
        refused++;
    } else if (is_stream && !ended) {
        cut++;
    } else {
        if (ok < SAMPLES_MAX) {
            first_us[ok] = ((c->first_at ? c->first_at : at) - c->sent_at) * 1e6;
            whole_us[ok] = (at - c->sent_at) * 1e6;
        }
        ok++;
        ok_events += c->events;
        ok_in_time += at < stop_at;
    }
}

static void replace_connection(int fd) {
    close(fd);
    opened--;
    if (!may_send()) return;
    if ((fd = open_connection()) < 0) {
        lost++;
        return;
    }
    opened++;
    send_request(fd);
}

static void on_readable(int fd) {
    static char bytes[1 << 18];
    struct connection *c = &connections[fd];
    int got = read(fd, bytes, sizeof bytes);
    double at = now();
    if (got <= 0) {
        if (c->reading != COMPLETE) {
            cut++;
            under_way--;
            if (!c->first_at) unanswered--;
        }
        replace_connection(fd);
        return;
    }
    feed(c, bytes, got, at);
    if (c->reading != COMPLETE) return;
    count(c, at);
    if (may_send()) send_request(fd);
}

static double percentile(float *of, long n, double share) {
    return n ? of[(long)(n * share) < n ? (long)(n * share) : n - 1] : 0;
}

static void report(double seconds) {
    long samples = ok < SAMPLES_MAX ? ok : SAMPLES_MAX;
    qsort(first_us, samples, sizeof *first_us, by_value);
    qsort(whole_us, samples, sizeof *whole_us, by_value);
    printf("RESULT ok=%ld refused=%ld cut=%ld lost=%ld rate=%.1f events=%.1f per_stream=%.2f "
           "first_p50=%.1f first_p99=%.1f whole_p50=%.1f whole_p99=%.1f sent=%ld seconds=%.3f\n",
           ok, refused, cut, lost + under_way, ok_in_time / seconds, events_in_time / seconds,
           ok ? (double)ok_events / ok : 0, percentile(first_us, samples, 0.5),
           percentile(first_us, samples, 0.99), percentile(whole_us, samples, 0.5),
           percentile(whole_us, samples, 0.99), sent, seconds);
}

static void build_request(int argc, char **argv) {
    static char body[sizeof request / 2];
    FILE *file = fopen(argv[6], "r");
    if (!file) {
        perror(argv[6]);
        exit(2);
    }
    int body_bytes = fread(body, 1, sizeof body, file);
    request_bytes = sprintf(request,
                            "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                            "Content-Type: application/json\r\nContent-Length: %d\r\n",
                            argv[2], body_bytes);
    for (int i = 7; i < argc; i++)
        request_bytes += sprintf(request + request_bytes, "%s\r\n", argv[i]);
    request_bytes += sprintf(request + request_bytes, "\r\n");
    memcpy(request + request_bytes, body, body_bytes);
    request_bytes += body_bytes;
}

int main(int argc, char **argv) {
    if (argc < 7) {
        fprintf(stderr, "usage: client PORT PATH CONCURRENCY SECONDS REQUESTS BODYFILE [HEADER]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    port = atoi(argv[1]);
    int wanted = atoi(argv[3]);
    requests_max = atol(argv[5]);
    build_request(argc, argv);
    connections = calloc(CONNECTIONS_MAX, sizeof *connections);
    first_us = malloc(SAMPLES_MAX * sizeof *first_us);
    whole_us = malloc(SAMPLES_MAX * sizeof *whole_us);
    poller = epoll_create1(0);
    double began = now(), last = began;
    stop_at = began + atof(argv[4]);
    struct epoll_event events[512];
    while (may_send() || (under_way && now() < stop_at + DRAIN_S)) {
        while (opened < wanted && unanswered < OPENING_MAX && may_send()) {
            int fd = open_connection();
            if (fd < 0) {
                perror("client: connect");
                return 1;
            }
            opened++;
            send_request(fd);
        }
        int ready = epoll_wait(poller, events, 512, 100);
        for (int i = 0; i < ready; i++) on_readable(events[i].data.fd);
        if (ready > 0) last = now();
    }
    report((last < stop_at ? last : stop_at) - began);
    return 0;
}
