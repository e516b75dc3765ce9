/* A load generator that checks everything it is sent: one thread, epoll, a closed loop of N clients.
 *
 * direct: POST /completion to an engine or through a proxy. tasks: POST /v1/tasks, then GET its stream, both on one
 * connection. accept: POST /v1/tasks only. A measuring window opens after --warmup-s and lasts --seconds (or until
 * --total requests were started); what runs then is read to its end and checked, but not measured, or dropped with --cut. One JSON object on
 * stdout; one wrong stream makes `wrong` non-zero and the exit status 1. CPU time of --watch is read at the window's edges. */
#include "include/checked_stream.h"
#include "include/histogram.h"
#include "include/http_answer.h"

#include <getopt.h>
#include <sys/epoll.h>
#include <sys/resource.h>

enum { CLIENTS_MAX = 8192, READ_BYTES = 65536, DRAIN_S_MAX = 60, EVENTS_MAX = 512 };

enum mode { DIRECT, TASKS, ACCEPT };
enum phase { RESTING, THINKING, ACCEPTING, STREAMING };

struct client {
    int fd;
    enum phase phase;
    uint64_t began_ns, last_ns, due_ns;
    int is_reused, has_bytes, is_measured;
    struct answer answer;
    struct checked stream;
    char task_id[40];
    struct bytes request;
};

static struct {
    enum mode mode;
    const char *unix_path, *auth, *model;
    int port, clients, tokens, ctx, is_varied, is_cut;
    double seconds, warmup_s, tick_ms, think_ms;
    uint64_t total, seed;
    int watch, body_bytes;
} opt = {DIRECT, NULL, NULL, "bench", 0, 64, 128, 4096, 1, 0, 5, 1, 0, 0, 0, 1, 0, 395};

static struct {
    uint64_t tokens, streams, accepted, refused, wrong, reconnects, started, prompt_bytes;
    const char *first_wrong;
    struct histogram latency, gap, first_token, accept, whole;
} sum;

static struct client clients[CLIENTS_MAX];
static int epoll_fd, is_open, is_closed, resting;
static uint64_t open_ns, closed_ns, cpu_open_us, cpu_closed_us, last_tag, random_state;

/* xorshift64*: the same seed gives the same lengths in the same order of starts. */
static uint64_t draw(void) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 2685821657736338717ull;
}

/* User and system time of a process with all its threads, from /proc; 10 ms steps. */
static uint64_t cpu_us(int pid) {
    char path[64], line[1024];
    unsigned long long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = pid ? fopen(path, "r") : NULL;
    if (!f) return 0;
    const char *fields = fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL;
    if (fields) sscanf(fields + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system);
    fclose(f);
    return (user + system) * (1000000ull / (uint64_t)sysconf(_SC_CLK_TCK));
}

static void on_token(void *owner, unsigned index, uint64_t sent_ns) {
    struct client *c = owner;
    uint64_t now = now_ns(), tick_ns = (uint64_t)(opt.tick_ms * 1e6);
    if (is_open && !is_closed) {
        sum.tokens++;
        histogram_add(&sum.latency, now > sent_ns ? now - sent_ns : 0);
        if (index == 0 && c->is_measured) histogram_add(&sum.first_token, now - c->began_ns);
        if (index >= 2) histogram_add(&sum.gap, now - c->last_ns > tick_ns ? now - c->last_ns - tick_ns : 0);
    }
    c->last_ns = now;
}

static void count_wrong(const char *what) {
    if (!sum.first_wrong) sum.first_wrong = what;
    sum.wrong++;
}

static void open_client(struct client *c) {
    if ((c->fd = open_connection(opt.unix_path, opt.port)) < 0) die("connect");
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e);
    c->is_reused = 0;
}

/* Requests are small and the peer reads them at once: a full socket buffer here is a fault of the peer. */
static void send_request(struct client *c) {
    if (c->fd < 0) open_client(c);
    answer_reset(&c->answer);
    c->has_bytes = 0;
    ssize_t n = send(c->fd, bytes_at(&c->request), bytes_len(&c->request), MSG_NOSIGNAL);
    if (n >= 0 && (size_t)n < bytes_len(&c->request)) die("request not taken whole");
}

static void put_head(struct bytes *out, const char *what, size_t size) {
    char head[512];
    snprintf(head, sizeof head, "%s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s%s%sContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
             what, opt.auth ? "Authorization: Bearer " : "", opt.auth ? opt.auth : "", opt.auth ? "\r\n" : "", size);
    bytes_clear(out);
    bytes_text(out, head);
}

/* Fills the body up to opt.body_bytes with prompt text and sends it. */
static void post(struct client *c, const char *path, char *body) {
    size_t size = strlen(body), prefix = (size_t)(strrchr(body, '#') - body);
    for (; size + 2 < (size_t)opt.body_bytes; size++) body[size] = "the quick brown fox "[size % 20];
    body[size++] = '"';
    body[size++] = '}';
    sum.prompt_bytes += size - 2 - prefix;
    put_head(&c->request, path, size);
    bytes_put(&c->request, body, size);
    send_request(c);
}

static void post_task(struct client *c) {
    char body[8192];
    snprintf(c->task_id, sizeof c->task_id, "%08x-%04x-4%03x-8%03x-%012llx", (unsigned)(opt.seed >> 32), (unsigned)(opt.seed >> 16) & 0xffff,
             (unsigned)opt.seed & 0xfff, (unsigned)(opt.seed >> 12) & 0xfff, (unsigned long long)c->stream.tag);
    snprintf(body, sizeof body,
             "{\"task_id\":\"%s\",\"session_id\":\"%s\",\"workload\":\"completion\",\"model_ref\":\"%s\",\"engine\":\"llamacpp\","
             "\"ctx\":%d,\"priority\":\"interactive\",\"max_tokens\":%u,\"deadline_ms\":86400000,"
             "\"determinism\":\"best_effort\",\"prompt\":\"#%llu ",
             c->task_id, c->task_id, opt.model, opt.ctx, c->stream.want, (unsigned long long)c->stream.tag);
    post(c, "POST /v1/tasks", body);
}

static void post_completion(struct client *c) {
    char body[8192];
    snprintf(body, sizeof body, "{\"n_predict\":%u,\"stream\":true,\"cache_prompt\":false,\"prompt\":\"#%llu ", c->stream.want,
             (unsigned long long)c->stream.tag);
    post(c, "POST /completion", body);
}

static int may_start(void) { return !is_closed && (!opt.total || sum.started < opt.total); }

static void start_now(struct client *c) {
    unsigned want = (unsigned)opt.tokens;
    if (opt.is_varied && want > 3) want = want / 2 + (unsigned)(draw() % (want + 1));
    c->stream = (struct checked){.dialect = opt.mode == DIRECT ? LLAMACPP : ORCHQUEUE, .tag = ++last_tag, .want = want};
    c->stream.on_token = on_token;
    c->stream.owner = c;
    c->began_ns = now_ns();
    c->is_measured = is_open;
    c->phase = opt.mode == DIRECT ? STREAMING : ACCEPTING;
    sum.started++;
    if (opt.mode == DIRECT) post_completion(c);
    else post_task(c);
}

/* Begins the client's next request, after a pause of 0 to 2 x --think-ms: without one the clients fall into step. */
static void start(struct client *c) {
    c->phase = may_start() ? THINKING : RESTING;
    if (c->phase == RESTING) resting++;
    else if (opt.think_ms <= 0) start_now(c);
    else c->due_ns = now_ns() + draw() % (uint64_t)(opt.think_ms * 2e6);
}

static void start_due(uint64_t now) {
    for (int i = 0; i < opt.clients; i++)
        if (clients[i].phase == THINKING && clients[i].due_ns <= now) {
            if (may_start()) start_now(&clients[i]);
            else start(&clients[i]);
        }
}

static void close_client(struct client *c) {
    close(c->fd);
    c->fd = -1;
}

static void accepted(struct client *c) {
    int is_own = memmem(bytes_at(&c->answer.body), bytes_len(&c->answer.body), c->task_id, strlen(c->task_id)) != NULL;
    if (c->answer.status == 429 || c->answer.status == 503) {
        sum.refused++;
        if (opt.mode == ACCEPT) return start(c);
    }
    if (c->answer.status != 202 || !is_own) {
        count_wrong(c->answer.status == 202 ? "202 of another task" : "not accepted");
        if (sum.wrong == 1) fprintf(stderr, "loadgen: %d %.*s\n", c->answer.status, (int)bytes_len(&c->answer.body), bytes_at(&c->answer.body));
        return start(c);
    }
    if (c->is_measured && !is_closed) {
        histogram_add(&sum.accept, now_ns() - c->began_ns);
        sum.accepted++;
    }
    if (opt.mode == ACCEPT) return start(c);
    char path[128];
    snprintf(path, sizeof path, "GET /v1/tasks/%s/stream", c->task_id);
    put_head(&c->request, path, 0);
    c->phase = STREAMING;
    send_request(c);
}

static void streamed(struct client *c) {
    struct checked *s = &c->stream;
    if (c->answer.status != 200) wrong(s, "stream status");
    else if (!s->is_over) wrong(s, "stream cut off");
    else if (bytes_len(&c->answer.body)) wrong(s, "bytes after the end");
    if (s->wrong) count_wrong(s->wrong);
    else if (c->is_measured && !is_closed) {
        sum.streams++;
        histogram_add(&sum.whole, now_ns() - c->began_ns);
    }
    start(c);
}

static void advance(struct client *c) {
    if (c->phase == STREAMING && c->answer.status == 200) check_events(&c->stream, &c->answer.body);
    if (c->answer.reading == READ_BAD || c->stream.wrong) {
        count_wrong(c->stream.wrong ? c->stream.wrong : "broken answer");
        if (c->fd >= 0) close_client(c);
        return start(c);
    }
    if (c->answer.reading != READ_DONE) return;
    c->is_reused = 1;
    if (c->answer.closes && c->fd >= 0) close_client(c);
    if (c->phase == ACCEPTING) accepted(c);
    else if (c->phase == STREAMING) streamed(c);
}

/* A server may close an idle connection just as it is used again: then the request was not read, and is sent once more. */
static void closed_by_peer(struct client *c) {
    close_client(c);
    if (c->phase == RESTING || c->phase == THINKING) return;
    if (c->is_reused && !c->has_bytes) {
        sum.reconnects++;
        send_request(c);
        return;
    }
    answer_eof(&c->answer);
    advance(c);
}

static void receive(struct client *c) {
    static char buffer[READ_BYTES];
    ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) return closed_by_peer(c);
    if (c->phase == RESTING || c->phase == THINKING) return count_wrong("bytes without a request");
    c->has_bytes = 1;
    if (answer_feed(&c->answer, buffer, (size_t)n) < (size_t)n) wrong(&c->stream, "bytes after the answer");
    advance(c);
}

static void open_window(void) {
    is_open = 1;
    cpu_open_us = cpu_us(opt.watch);
    open_ns = now_ns();
}

static void close_window(void) {
    is_closed = 1;
    cpu_closed_us = cpu_us(opt.watch);
    closed_ns = now_ns();
}

static void run(void) {
    struct epoll_event events[EVENTS_MAX];
    uint64_t began_ns = now_ns(), warm_ns = began_ns + (uint64_t)(opt.warmup_s * 1e9), until_ns = warm_ns + (uint64_t)(opt.seconds * 1e9);
    if (opt.warmup_s <= 0) open_window();
    for (int i = 0; i < opt.clients; i++) clients[i].fd = -1, start(&clients[i]);
    while (resting < opt.clients && !(is_closed && opt.is_cut)) {
        int n = epoll_wait(epoll_fd, events, EVENTS_MAX, opt.think_ms > 0 ? 1 : 10);
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            if (c->fd >= 0) receive(c);
        }
        uint64_t now = now_ns();
        if (opt.think_ms > 0) start_due(now);
        if (!is_open && now >= warm_ns) open_window();
        if (!is_closed && now >= until_ns) close_window();
        if (now > until_ns + DRAIN_S_MAX * NS_PER_S) {
            count_wrong("not ended in time");
            break;
        }
    }
    if (!is_open) open_window();
    if (!is_closed) close_window();
}

static void report(void) {
    struct rusage own;
    double seconds = (double)(closed_ns - open_ns) / 1e9;
    getrusage(RUSAGE_SELF, &own);
    printf("{\"seconds\":%.4f,\"clients\":%d,\"tokens\":%llu,\"tokens_per_s\":%.1f,\"streams\":%llu,\"accepted\":%llu,"
           "\"accepted_per_s\":%.1f,\"refused\":%llu,\"started\":%llu,\"wrong\":%llu,\"first_wrong\":\"%s\",\"reconnects\":%llu,"
           "\"prompt_bytes\":%llu,",
           seconds, opt.clients, (unsigned long long)sum.tokens, (double)sum.tokens / seconds, (unsigned long long)sum.streams,
           (unsigned long long)sum.accepted, (double)sum.accepted / seconds, (unsigned long long)sum.refused,
           (unsigned long long)sum.started, (unsigned long long)sum.wrong, sum.first_wrong ? sum.first_wrong : "",
           (unsigned long long)sum.reconnects, (unsigned long long)sum.prompt_bytes);
    printf("\"watched_cpu_s\":%.3f,\"own_cpu_s\":%.3f,", (double)(cpu_closed_us - cpu_open_us) / 1e6,
           (double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec) + (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec) / 1e6);
    histogram_print(stdout, "latency_ms", &sum.latency), putchar(',');
    histogram_print(stdout, "gap_beyond_tick_ms", &sum.gap), putchar(',');
    histogram_print(stdout, "first_token_ms", &sum.first_token), putchar(',');
    histogram_print(stdout, "accept_ms", &sum.accept), putchar(',');
    histogram_print(stdout, "whole_ms", &sum.whole);
    puts("}");
}

static void parse(int argc, char **argv) {
    enum { MODE, PORT, UNIX, CLIENTS, TOKENS, CTX, FIXED, SECONDS, WARMUP, TICK, TOTAL, SEED, WATCH, BODY, AUTH, MODEL, THINK, CPU, CUT };
    static const struct option names[] = {
        {"mode", 1, 0, MODE},       {"port", 1, 0, PORT},       {"unix", 1, 0, UNIX},     {"clients", 1, 0, CLIENTS}, {"tokens", 1, 0, TOKENS},
        {"ctx", 1, 0, CTX},         {"fixed", 0, 0, FIXED},     {"seconds", 1, 0, SECONDS}, {"warmup-s", 1, 0, WARMUP}, {"tick-ms", 1, 0, TICK},
        {"total", 1, 0, TOTAL},     {"seed", 1, 0, SEED},       {"watch", 1, 0, WATCH},   {"body-bytes", 1, 0, BODY}, {"auth", 1, 0, AUTH},
        {"model", 1, 0, MODEL},     {"think-ms", 1, 0, THINK}, {"cpu", 1, 0, CPU},     {"cut", 0, 0, CUT}, {0, 0, 0, 0}};
    for (int o; (o = getopt_long(argc, argv, "", names, NULL)) != -1;) switch (o) {
        case MODE: opt.mode = *optarg == 'd' ? DIRECT : *optarg == 't' ? TASKS : ACCEPT; break;
        case PORT: opt.port = atoi(optarg); break;
        case UNIX: opt.unix_path = optarg; break;
        case CLIENTS: opt.clients = atoi(optarg); break;
        case TOKENS: opt.tokens = atoi(optarg); break;
        case CTX: opt.ctx = atoi(optarg); break;
        case FIXED: opt.is_varied = 0; break;
        case SECONDS: opt.seconds = atof(optarg); break;
        case WARMUP: opt.warmup_s = atof(optarg); break;
        case TICK: opt.tick_ms = atof(optarg); break;
        case TOTAL: opt.total = strtoull(optarg, NULL, 10); break;
        case SEED: opt.seed = strtoull(optarg, NULL, 10); break;
        case WATCH: opt.watch = atoi(optarg); break;
        case BODY: opt.body_bytes = atoi(optarg); break;
        case AUTH: opt.auth = optarg; break;
        case THINK: opt.think_ms = atof(optarg); break;
        case CUT: opt.is_cut = 1; break;
        case CPU: pin_to(atoi(optarg)); break;
        case MODEL: opt.model = optarg; break;
        default: exit(2);
        }
    if (opt.clients < 1 || opt.clients > CLIENTS_MAX || (!opt.port && !opt.unix_path) || opt.tokens < 1 || opt.body_bytes > 8000) {
        fprintf(stderr, "loadgen: --port N or --unix PATH, 1 to %d --clients, --tokens of 1 or more\n", CLIENTS_MAX);
        exit(2);
    }
}

int main(int argc, char **argv) {
    parse(argc, argv);
    random_state = opt.seed * 2654435761u + 88172645463325252ull;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    run();
    report();
    return sum.wrong ? 1 : 0;
}
