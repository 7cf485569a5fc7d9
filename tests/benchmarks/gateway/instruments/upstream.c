/* An OpenAI-compatible server that costs almost nothing: one thread, epoll, fixed words.
 *
 *   POST anything        a chat completion; with "stream": true, server-sent events
 *     "max_tokens": N    N steps of a stream: N-1 words, then the finish, the usage (if
 *                        stream_options asks for it) and [DONE] in one write; N output tokens
 *     "model": "x-every-U"   one step each U microseconds; otherwise back to back
 *     "model": "x-burst-B"   B steps in one write, as an engine that is read late sends them
 *   GET /count           {"served": S, "streams": T, "unread": bytes not yet taken by callers}
 *   GET anything else    a list of models, so that health checks pass
 *
 * A caller that reads slowly stops its own stream and nobody else's.
 * Usage: upstream PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 65536
#define REQUEST_BYTES_MAX (4 << 20)
#define STEP_BYTES_MAX 2048 /* the longest answer or step is about 900 bytes */
#define BURST_MAX 64
#define EVENTS_MAX 512
#define PROMPT_TOKENS 40

struct connection {
    char *in, *out; /* what was not handled yet, what could not be written yet */
    int in_used, in_size, out_used, out_size;
    int steps_left, steps, burst, wants_usage;
    unsigned long id;
    int64_t every_ns, due_ns;
};

static struct connection connections[CONNECTIONS_MAX];
static int active[CONNECTIONS_MAX], active_count; /* descriptors that stream */
static unsigned long served, streams, boot;
static int64_t next_due_ns; /* of all active ones, so that idle ones cost nothing */
static int poller;

static int64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void watch(int fd, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(poller, EPOLL_CTL_MOD, fd, &event);
}

/* Write, or keep what the socket does not take. -1: the caller is gone. */
static int send_bytes(int fd, const char *bytes, int length) {
    struct connection *c = &connections[fd];
    int written = 0;
    if (!c->out_used) {
        written = write(fd, bytes, length);
        if (written < 0 && errno != EAGAIN) return -1;
        if (written < 0) written = 0;
    }
    if (written == length) return 0;
    int left = length - written;
    if (c->out_used + left > c->out_size) {
        c->out_size = c->out_used + left + STEP_BYTES_MAX;
        c->out = realloc(c->out, c->out_size);
    }
    memcpy(c->out + c->out_used, bytes + written, left);
    if (!c->out_used) watch(fd, EPOLLIN | EPOLLOUT);
    c->out_used += left;
    return 0;
}

static int send_rest(int fd) {
    struct connection *c = &connections[fd];
    int written = write(fd, c->out, c->out_used);
    if (written < 0) return errno == EAGAIN ? 0 : -1;
    memmove(c->out, c->out + written, c->out_used - written);
    c->out_used -= written;
    if (!c->out_used) watch(fd, EPOLLIN);
    return 0;
}

static int event_frame(char *to, const char *payload) {
    return sprintf(to, "%x\r\n%s\r\n", (int)strlen(payload), payload);
}

static int chunk_head(char *to, const struct connection *c) {
    return sprintf(to,
                   "data: {\"id\":\"chatcmpl-%lx-%lx\",\"object\":\"chat.completion.chunk\","
                   "\"created\":1790000000,\"model\":\"bench\",",
                   boot, c->id);
}

/* Append the next step of a stream. Returns its length. */
static int append_step(struct connection *c, char *out) {
    char payload[STEP_BYTES_MAX / 2];
    int used = 0, index = c->steps - c->steps_left--;
    const char *null_usage = c->wants_usage ? ",\"usage\":null" : "";
    if (!index)
        used = sprintf(out, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                            "Transfer-Encoding: chunked\r\n\r\n");
    int head = chunk_head(payload, c);
    if (c->steps_left > 0) {
        sprintf(payload + head,
                "\"choices\":[{\"index\":0,\"delta\":{%s\"content\":\"word%d \"},"
                "\"finish_reason\":null}]%s}\n\n",
                index ? "" : "\"role\":\"assistant\",", index, null_usage);
        return used + event_frame(out + used, payload);
    }
    sprintf(payload + head,
            "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]%s}\n\n",
            null_usage);
    used += event_frame(out + used, payload);
    if (c->wants_usage) {
        sprintf(payload + head,
                "\"choices\":[],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,"
                "\"total_tokens\":%d}}\n\n",
                PROMPT_TOKENS, c->steps, PROMPT_TOKENS + c->steps);
        used += event_frame(out + used, payload);
    }
    used += event_frame(out + used, "data: [DONE]\n\n");
    return used + sprintf(out + used, "0\r\n\r\n");
}

/* The next step or burst of a stream. 1: that was the end, -1: the caller is gone. */
static int step(int fd) {
    static char out[BURST_MAX * STEP_BYTES_MAX];
    struct connection *c = &connections[fd];
    int used = 0;
    for (int i = 0; i < c->burst && c->steps_left; i++) used += append_step(c, out + used);
    return send_bytes(fd, out, used) < 0 ? -1 : !c->steps_left;
}

static int answer(int fd, const char *status, const char *body) {
    char out[STEP_BYTES_MAX];
    int used = sprintf(out,
                       "HTTP/1.1 %s\r\nContent-Type: application/json\r\n"
                       "Content-Length: %d\r\n\r\n%s",
                       status, (int)strlen(body), body);
    return send_bytes(fd, out, used);
}

static int answer_get(int fd, const char *head) {
    char body[256];
    long unread = 0;
    if (strncmp(head, "GET /count", 10))
        return answer(fd, "200 OK",
                      "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\"}]}");
    for (int i = 0; i < CONNECTIONS_MAX; i++) unread += connections[i].out_used;
    sprintf(body, "{\"served\":%lu,\"streams\":%lu,\"unread\":%ld}", served, streams, unread);
    return answer(fd, "200 OK", body);
}

/* The value after a key of the (NUL-terminated) body, or an empty string. */
static const char *value_of(const char *body, const char *key) {
    const char *at = strstr(body, key);
    if (!at) return "";
    at += strlen(key);
    return at + strspn(at, " :");
}

/* The number after a word of the model's name, or 0. */
static long in_model_name(const char *body, const char *word) {
    const char *model = value_of(body, "\"model\""), *at = strstr(model, word);
    const char *end = *model ? strchr(model + 1, '"') : NULL;
    return at && end && at < end ? atol(at + strlen(word)) : 0;
}

static int begin_stream(int fd, const char *body) {
    struct connection *c = &connections[fd];
    int steps = atoi(value_of(body, "\"max_tokens\"")), burst = in_model_name(body, "-burst-");
    c->steps = c->steps_left = steps > 1 ? steps : 20;
    c->burst = burst < 1 ? 1 : burst > BURST_MAX ? BURST_MAX : burst;
    c->every_ns = in_model_name(body, "-every-") * 1000LL;
    c->wants_usage = !strncmp(value_of(body, "\"include_usage\""), "true", 4);
    streams++;
    int done = step(fd);
    if (done) return done < 0 ? -1 : 0;
    c->due_ns = now_ns() + c->every_ns;
    if (c->due_ns < next_due_ns) next_due_ns = c->due_ns;
    active[active_count++] = fd;
    return 0;
}

static int answer_post(int fd, const char *body) {
    struct connection *c = &connections[fd];
    char out[1024];
    c->id = ++served;
    if (!strncmp(value_of(body, "\"stream\""), "true", 4)) return begin_stream(fd, body);
    int tokens = atoi(value_of(body, "\"max_tokens\""));
    if (tokens < 1) tokens = 20;
    sprintf(out,
            "{\"id\":\"chatcmpl-%lx-%lx\",\"object\":\"chat.completion\",\"created\":1790000000,"
            "\"model\":\"bench\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
            "\"content\":\"The quick brown fox jumps over the lazy dog near the river bank "
            "today.\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":%d,"
            "\"completion_tokens\":%d,\"total_tokens\":%d}}",
            boot, c->id, PROMPT_TOKENS, tokens, PROMPT_TOKENS + tokens);
    return answer(fd, "200 OK", out);
}

/* Answer every complete request in the buffer. -1: close. */
static int handle(int fd) {
    struct connection *c = &connections[fd];
    while (!c->steps_left && c->in_used) {
        c->in[c->in_used] = 0;
        char *end = strstr(c->in, "\r\n\r\n");
        if (!end) return 0;
        *end = 0; /* so that only the head is searched */
        char *length_at = strcasestr(c->in, "\r\ncontent-length:");
        int head = end + 4 - c->in, body = length_at ? atoi(length_at + 17) : 0;
        int is_chunked = strcasestr(c->in, "\r\ntransfer-encoding:") != NULL;
        *end = '\r';
        if (is_chunked || body < 0 || head + body > REQUEST_BYTES_MAX) {
            answer(fd, "411 Length Required", "{\"error\":{\"message\":\"send a length\"}}");
            return -1;
        }
        int whole = head + body;
        if (c->in_used < whole) return 0;
        char after = c->in[whole];
        c->in[whole] = 0;
        int failed = c->in[0] == 'G' ? answer_get(fd, c->in) : answer_post(fd, c->in + head);
        c->in[whole] = after;
        if (failed < 0) return -1;
        memmove(c->in, c->in + whole, c->in_used - whole);
        c->in_used -= whole;
    }
    return 0;
}

static int receive(int fd) {
    struct connection *c = &connections[fd];
    if (c->in_size - c->in_used < 4096) {
        if (c->in_size > REQUEST_BYTES_MAX) return -1;
        c->in_size *= 2;
        c->in = realloc(c->in, c->in_size);
    }
    int got = read(fd, c->in + c->in_used, c->in_size - c->in_used - 1);
    if (got == 0 || (got < 0 && errno != EAGAIN)) return -1;
    if (got > 0) c->in_used += got;
    return handle(fd);
}

static void drop(int fd) {
    struct connection *c = &connections[fd];
    for (int i = 0; i < active_count; i++)
        if (active[i] == fd) active[i--] = active[--active_count];
    c->steps_left = c->in_used = c->out_used = 0;
    close(fd);
}

static void accept_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= CONNECTIONS_MAX) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *c = &connections[fd];
        if (!c->in) c->in = malloc(c->in_size = 8192);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

/* One step for each stream that is due and whose caller reads. */
static void step_streams(void) {
    int64_t now = active_count ? now_ns() : 0;
    if (active_count && now < next_due_ns) return;
    next_due_ns = INT64_MAX;
    for (int i = 0; i < active_count;) {
        int fd = active[i];
        struct connection *c = &connections[fd];
        int done = 0;
        if (c->out_used) { /* until its caller reads: EPOLLOUT wakes us */
            i++;
            continue;
        }
        if (c->due_ns <= now) {
            done = step(fd);
            c->due_ns += c->every_ns;
        }
        if (!done) {
            if (c->due_ns < next_due_ns) next_due_ns = c->due_ns;
            i++;
            continue;
        }
        active[i] = active[--active_count];
        if (done < 0 || handle(fd) < 0) drop(fd);
    }
}

static int wait_ms(void) {
    if (!active_count || next_due_ns == INT64_MAX) return -1;
    int64_t left = next_due_ns - now_ns();
    return left <= 0 ? 0 : (int)(left / 1000000) + 1;
}

static int listen_on(int port) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&address, sizeof address) || listen(fd, 4096)) {
        perror("upstream: listen");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: upstream PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    boot = time(NULL);
    int listener = listen_on(atoi(argv[1]));
    poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS_MAX];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    next_due_ns = INT64_MAX;
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS_MAX, wait_ms());
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd, failed = 0;
            if (fd == listener) {
                accept_all(listener);
                continue;
            }
            if (events[i].events & EPOLLOUT) {
                failed = send_rest(fd);
                if (connections[fd].due_ns < next_due_ns) next_due_ns = connections[fd].due_ns;
            }
            if (!failed && events[i].events & ~EPOLLOUT) failed = receive(fd);
            if (failed) drop(fd);
        }
        step_streams();
    }
}
