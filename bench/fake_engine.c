/* A stand-in for llama-server that costs next to nothing: one thread, epoll, tokens without a model.
 *
 * It speaks the server's HTTP (health, props, slots, metrics, tokenize, completion with one event per chunk) and reads
 * of a request only `n_predict`, `stream` and the tag, a number after '#' at the start of the prompt. The text of token
 * i of the stream with tag T is " T.i@NS" with NS the CLOCK_MONOTONIC time at which it left: a client can check every
 * token and knows its one-way latency. Paced, all slots get a token at one tick, as in a batched decode; at flood
 * (--tick-ms 0) each stream goes as fast as its socket takes, --burst tokens a write: 1 unless told otherwise, which is
 * what a real engine does. It must not decide what is measured: `ticks_missed` in GET /bench says whether it kept pace. */
#include "include/bytes.h"
#include "include/http_request.h"
#include "include/llamacpp_events.h"

#include <getopt.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

enum { FDS_MAX = 65536, SLOTS_MAX = 4096, REQUEST_BYTES_MAX = 4 << 20, UNSENT_BYTES_MAX = 8 << 20, EVENTS_MAX = 512 };

enum phase { IDLE, DEFERRED, STREAMING };

struct conn {
    int fd, slot;
    enum phase phase;
    struct bytes in, out;
    uint64_t tag, arrival;
    unsigned made, want, prompt_tokens;
    int close_after, waits_for_out, is_dead;
};

static struct {
    const char *unix_path, *api_key, *model;
    int port, slots, ctx, burst;
    double tick_ms;
} opt = {NULL, NULL, "bench.gguf", 0, 256, 4096, 1, 20};

static struct conn *conns[FDS_MAX], *slots[SLOTS_MAX];
static int epoll_fd, timer_fd = -1, busy, deferred;
static uint64_t arrivals, prompt_total, tokens_total, ticks, ticks_missed, requests;

static void watch(struct conn *c) {
    struct epoll_event e = {.events = EPOLLIN | (c->waits_for_out ? EPOLLOUT : 0), .data.fd = c->fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

/* The main loop drops it when the hang-up comes round: nothing is freed below a tick. */
static void hang_up(struct conn *c) {
    c->is_dead = 1;
    shutdown(c->fd, SHUT_RDWR);
}

/* Sends what it can; the rest waits for EPOLLOUT. */
static void flush(struct conn *c) {
    while (bytes_len(&c->out)) {
        ssize_t n = send(c->fd, bytes_at(&c->out), bytes_len(&c->out), MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno != EAGAIN) hang_up(c);
        if (n < 0) break;
        bytes_drop(&c->out, (size_t)n);
    }
    if (bytes_len(&c->out) > UNSENT_BYTES_MAX) hang_up(c);
    if (c->close_after && !bytes_len(&c->out) && c->phase == IDLE) hang_up(c);
    int waits = bytes_len(&c->out) > 0;
    if (waits != c->waits_for_out) {
        c->waits_for_out = waits;
        watch(c);
    }
}

static void answer(struct conn *c, const char *status, const char *type, const char *body, size_t size) {
    char head[512];
    int is_ok = status[0] == '2';
    int n = snprintf(head, sizeof head, "HTTP/1.1 %s\r\n" SERVER_HEADERS "Content-Type: %s\r\nContent-Length: %zu\r\n%s\r\n",
                     status, type, size, is_ok ? KEEP_ALIVE : "Connection: close\r\n");
    if (!is_ok) c->close_after = 1;
    bytes_put(&c->out, head, (size_t)n);
    bytes_put(&c->out, body, size);
    flush(c);
}

static void answer_json(struct conn *c, const char *status, const char *body) {
    answer(c, status, "application/json; charset=utf-8", body, strlen(body));
}

static struct generation told(const struct conn *c) {
    return (struct generation){c->tag, c->made, c->prompt_tokens, c->slot, opt.tick_ms};
}

static void begin(struct conn *c);

/* Frees the slot and gives it to the request that has waited longest, as the real server does. */
static void release(struct conn *c) {
    struct conn *next = NULL;
    if (c->phase == DEFERRED) deferred--;
    if (c->phase == STREAMING) {
        slots[c->slot] = NULL;
        busy--;
        for (int fd = 0; deferred && fd < FDS_MAX; fd++)
            if (conns[fd] && conns[fd]->phase == DEFERRED && (!next || conns[fd]->arrival < next->arrival)) next = conns[fd];
    }
    c->phase = IDLE;
    if (next) begin(next);
}

static void finish(struct conn *c) {
    put_final_event(&c->out, told(c));
    release(c);
}

static void produce(struct conn *c, int tokens) {
    for (; tokens-- > 0 && c->made < c->want; c->made++, tokens_total++) put_token_event(&c->out, told(c));
    if (c->made == c->want) finish(c);
    flush(c);
}

/* Takes a free slot and sends the head with the first token at once: the prompt costs no time here. */
static void begin(struct conn *c) {
    if (c->phase == DEFERRED) deferred--;
    c->slot = 0;
    while (c->slot < opt.slots && slots[c->slot]) c->slot++;
    if (c->slot == opt.slots) {
        c->phase = DEFERRED;
        deferred++;
        return;
    }
    slots[c->slot] = c;
    c->phase = STREAMING;
    busy++;
    prompt_total += c->prompt_tokens;
    bytes_text(&c->out, STREAM_HEAD);
    produce(c, 1);
}

static void answer_whole(struct conn *c) {
    static struct bytes body;
    bytes_clear(&body);
    bytes_text(&body, "{\"index\":0,\"content\":\"");
    for (c->made = 0; c->made < c->want; c->made++) put_text(&body, told(c));
    bytes_text(&body, "\",");
    put_final(&body, told(c));
    tokens_total += c->made;
    answer(c, "200 OK", "application/json; charset=utf-8", bytes_at(&body), bytes_len(&body));
}

static void complete(struct conn *c, const char *body, size_t size) {
    const char *want = value_of(body, size, "n_predict"), *stream = value_of(body, size, "stream");
    const char *prompt = value_of(body, size, "prompt");
    long n = want ? strtol(want, NULL, 10) : -1;
    c->arrival = ++arrivals;
    c->want = n < 0 || n > opt.ctx ? (unsigned)opt.ctx : n == 0 ? 1 : (unsigned)n;
    c->made = 0;
    c->prompt_tokens = 8;
    c->tag = prompt && !strncmp(prompt, "\"#", 2) ? strtoull(prompt + 2, NULL, 10) : c->arrival;
    c->slot = 0;
    if (stream && *stream == 't')
        begin(c);
    else
        answer_whole(c);
}

static void list_slots(struct conn *c) {
    static struct bytes body;
    char item[256];
    bytes_clear(&body);
    for (int i = 0; i < opt.slots; i++) {
        snprintf(item, sizeof item, "%c{\"id\":%d,\"n_ctx\":%d,\"speculative\":false,\"is_processing\":%s}", i ? ',' : '[', i,
                 opt.ctx, slots[i] ? "true" : "false");
        bytes_text(&body, item);
    }
    bytes_put(&body, "]", 2);
    answer_json(c, "200 OK", bytes_at(&body));
}

static void report_props(struct conn *c) {
    char body[8192];
    snprintf(body, sizeof body, PROPS_FORMAT, opt.ctx, opt.slots, opt.model);
    answer_json(c, "200 OK", body);
}

static void report_models(struct conn *c) {
    char body[1024];
    snprintf(body, sizeof body, MODELS_FORMAT, opt.ctx);
    answer_json(c, "200 OK", body);
}

static void report_metrics(struct conn *c) {
    char body[4096];
    snprintf(body, sizeof body, METRICS_FORMAT, (unsigned long long)prompt_total, (unsigned long long)tokens_total,
             (unsigned long long)tokens_total, busy, deferred);
    answer(c, "200 OK", "text/plain; version=0.0.4", body, strlen(body));
}

static void report_own(struct conn *c) {
    char body[256];
    snprintf(body, sizeof body, "{\"tokens\":%llu,\"ticks\":%llu,\"ticks_missed\":%llu,\"requests\":%llu,\"busy\":%d}",
             (unsigned long long)tokens_total, (unsigned long long)ticks, (unsigned long long)ticks_missed,
             (unsigned long long)requests, busy);
    answer_json(c, "200 OK", body);
}

/* One token for every four bytes: the real count needs a vocabulary, a bound is enough. */
static void tokenize(struct conn *c, size_t size) {
    static struct bytes body;
    bytes_clear(&body);
    bytes_text(&body, "{\"tokens\":[1");
    for (size_t i = 0; i < size / 4; i++) bytes_put(&body, ",504", 4);
    bytes_put(&body, "]}", 3);
    answer_json(c, "200 OK", bytes_at(&body));
}

static void route(struct conn *c, const char *head, size_t head_size, const char *body, size_t size) {
    char what[96];
    size_t n = 0;
    while (n < sizeof what - 1 && n < head_size && head[n] != '\r') what[n] = head[n], n++;
    what[n] = 0;
    char *version = strstr(what, " HTTP/");
    if (version) *version = 0;
    requests++;
    if (!strcmp(what, "GET /health")) answer_json(c, "200 OK", HEALTH_BODY);
    else if (!strcmp(what, "GET /bench")) report_own(c);
    else if (!has_key(head, head_size, opt.api_key)) answer_json(c, "401 Unauthorized", UNAUTHORIZED_BODY);
    else if (!strcmp(what, "POST /completion")) complete(c, body, size);
    else if (!strcmp(what, "GET /props")) report_props(c);
    else if (!strcmp(what, "GET /v1/models")) report_models(c);
    else if (!strcmp(what, "GET /slots")) list_slots(c);
    else if (!strcmp(what, "GET /metrics")) report_metrics(c);
    else if (!strcmp(what, "POST /tokenize")) tokenize(c, size);
    else answer_json(c, "404 Not Found", NOT_FOUND_BODY);
}

/* Handles every complete request in the buffer; one that streams holds the ones behind it. */
static void serve(struct conn *c) {
    while (c->phase == IDLE && !c->is_dead && bytes_len(&c->in)) {
        char *head = bytes_at(&c->in), *end = memmem(head, bytes_len(&c->in), "\r\n\r\n", 4);
        if (!end) break;
        size_t head_size = (size_t)(end - head) + 4, size = content_length(head, head_size);
        if (bytes_len(&c->in) < head_size + size) break;
        route(c, head, head_size, head + head_size, size);
        bytes_drop(&c->in, head_size + size);
    }
    if (bytes_len(&c->in) > REQUEST_BYTES_MAX) c->is_dead = 1;
}

static void receive(struct conn *c) {
    ssize_t n = recv(c->fd, bytes_room(&c->in, 16384), 16384, 0);
    if (n > 0) {
        c->in.to += (size_t)n;
        serve(c);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        c->is_dead = 1;
}

static void drop(struct conn *c) {
    conns[c->fd] = NULL;
    release(c);
    close(c->fd);
    free(c->in.data);
    free(c->out.data);
    free(c);
}

static void accept_all(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        if (fd >= FDS_MAX) die("too many connections");
        tune(fd);
        struct conn *c = grow(NULL, sizeof *c);
        memset(c, 0, sizeof *c);
        c->fd = fd;
        conns[fd] = c;
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
    }
}

/* A tick that came late is not made up for: a slow engine must show as ticks_missed, not as a burst. */
static void tick(void) {
    uint64_t expired = 0;
    if (read(timer_fd, &expired, sizeof expired) != sizeof expired) return;
    ticks += expired;
    if (busy) ticks_missed += expired - 1;
    for (int i = 0; i < opt.slots; i++)
        if (slots[i] && !slots[i]->is_dead) produce(slots[i], 1);
}

/* Gives every stream whose socket takes bytes one burst; returns whether there is more to do. */
static int flood(void) {
    int is_open = 0;
    for (int i = 0; i < opt.slots; i++) {
        struct conn *c = slots[i];
        if (!c || c->is_dead || c->waits_for_out) continue;
        produce(c, opt.burst);
        is_open = 1;
    }
    return is_open;
}

static void start_timer(void) {
    uint64_t ns = (uint64_t)(opt.tick_ms * 1e6);
    struct timespec period = {(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)};
    struct itimerspec spec = {period, period};
    struct epoll_event e = {.events = EPOLLIN};
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    e.data.fd = timer_fd;
    if (timer_fd < 0 || timerfd_settime(timer_fd, 0, &spec, NULL)) die("timer");
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &e);
}

static void run(int listener) {
    struct epoll_event events[EVENTS_MAX];
    for (int has_more = 0;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS_MAX, has_more ? 0 : -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) accept_all(listener);
            else if (fd == timer_fd) tick();
            else if (conns[fd]) {
                struct conn *c = conns[fd];
                if (events[i].events & EPOLLOUT) flush(c);
                if (events[i].events & ~(uint32_t)EPOLLOUT) receive(c);
                if (c->phase == IDLE && !c->is_dead) serve(c);
                if (c->is_dead) drop(c);
            }
        }
        has_more = opt.tick_ms <= 0 && busy && flood();
    }
}

static void parse(int argc, char **argv) {
    static const struct option names[] = {{"port", 1, 0, 'p'},  {"unix", 1, 0, 'u'},    {"slots", 1, 0, 's'},
                                          {"ctx", 1, 0, 'c'},   {"tick-ms", 1, 0, 't'}, {"burst", 1, 0, 'b'},
                                          {"model", 1, 0, 'm'}, {"cpu", 1, 0, 'C'},     {0, 0, 0, 0}};
    for (int o; (o = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (o == 'p') opt.port = atoi(optarg);
        else if (o == 'u') opt.unix_path = optarg;
        else if (o == 's') opt.slots = atoi(optarg);
        else if (o == 'c') opt.ctx = atoi(optarg);
        else if (o == 't') opt.tick_ms = atof(optarg);
        else if (o == 'b') opt.burst = atoi(optarg);
        else if (o == 'm') opt.model = optarg;
        else if (o == 'C') pin_to(atoi(optarg));
        else exit(2);
    }
    if (opt.slots < 1 || opt.slots > SLOTS_MAX || (!opt.port && !opt.unix_path)) {
        fprintf(stderr, "fake_engine: --port N or --unix PATH, and 1 to %d --slots\n", SLOTS_MAX);
        exit(2);
    }
    opt.api_key = getenv("LLAMA_API_KEY");
}

static void stop(int signum) {
    (void)signum;
    _exit(0);
}

int main(int argc, char **argv) {
    parse(argc, argv);
    signal(SIGTERM, stop);
    int listener = open_listener(opt.unix_path, opt.port);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener};
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
    if (opt.tick_ms > 0) start_timer();
    fprintf(stderr, "fake_engine: listening, %d slots, tick %.3f ms\n", opt.slots, opt.tick_ms);
    run(listener);
}
