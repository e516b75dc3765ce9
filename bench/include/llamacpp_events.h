/* Renders the events of a completion stream as llama-server does: one `data:` line, one HTTP chunk each. */
#ifndef BENCH_LLAMACPP_EVENTS_H
#define BENCH_LLAMACPP_EVENTS_H

#include "bytes.h"
#include "llamacpp_bodies.h"

/* How far one completion is; `made` tokens are out already, so `made` is also the next index. */
struct generation {
    uint64_t tag;
    unsigned made, prompt_tokens;
    int slot;
    double tick_ms;
};

static inline void put_chunk(struct bytes *out, const struct bytes *event) {
    bytes_hex(out, bytes_len(event));
    bytes_put(out, "\r\n", 2);
    bytes_put(out, bytes_at(event), bytes_len(event));
    bytes_put(out, "\r\n", 2);
}

/* The text of the next token, with the time at which it leaves. */
static inline void put_text(struct bytes *out, struct generation g) {
    bytes_put(out, " ", 1);
    bytes_number(out, g.tag);
    bytes_put(out, ".", 1);
    bytes_number(out, g.made);
    bytes_put(out, "@", 1);
    bytes_number(out, now_ns());
}

static inline void put_token_event(struct bytes *out, struct generation g) {
    static struct bytes event;
    bytes_clear(&event);
    bytes_text(&event, "data: {\"index\":0,\"content\":\"");
    put_text(&event, g);
    bytes_text(&event, "\",\"tokens\":[504],\"stop\":false,\"id_slot\":-1,\"tokens_predicted\":");
    bytes_number(&event, g.made + 1);
    bytes_text(&event, ",\"tokens_evaluated\":");
    bytes_number(&event, g.prompt_tokens);
    bytes_put(&event, "}\n\n", 3);
    put_chunk(out, &event);
}

/* The end of the final object, from "tokens" on; `content` is the caller's. */
static inline void put_final(struct bytes *out, struct generation g) {
    char timings[512];
    bytes_text(out, "\"tokens\":[],\"id_slot\":");
    bytes_number(out, (uint64_t)g.slot);
    bytes_text(out, ",\"stop\":true,\"model\":\"bench\",\"tokens_predicted\":");
    bytes_number(out, g.made);
    bytes_text(out, ",\"tokens_evaluated\":");
    bytes_number(out, g.prompt_tokens);
    bytes_text(out, ",\"generation_settings\":" GENERATION_SETTINGS ",\"prompt\":\"\",\"has_new_line\":false,"
                    "\"truncated\":false,\"stop_type\":\"limit\",\"stopping_word\":\"\",\"tokens_cached\":");
    bytes_number(out, g.prompt_tokens + g.made);
    snprintf(timings, sizeof timings,
             ",\"timings\":{\"cache_n\":0,\"prompt_n\":%u,\"prompt_ms\":%.3f,\"prompt_per_token_ms\":%.3f,"
             "\"prompt_per_second\":%.3f,\"predicted_n\":%u,\"predicted_ms\":%.3f,\"predicted_per_token_ms\":%.3f,"
             "\"predicted_per_second\":%.3f}}",
             g.prompt_tokens, 1.0, 1.0 / g.prompt_tokens, g.prompt_tokens * 1000.0, g.made, g.made * g.tick_ms,
             g.tick_ms, g.tick_ms > 0 ? 1000 / g.tick_ms : 1e6);
    bytes_text(out, timings);
}

static inline void put_final_event(struct bytes *out, struct generation g) {
    static struct bytes event;
    bytes_clear(&event);
    bytes_text(&event, "data: {\"index\":0,\"content\":\"\",");
    put_final(&event, g);
    bytes_put(&event, "\n\n", 2);
    put_chunk(out, &event);
    bytes_text(out, LAST_CHUNK);
}

#endif
