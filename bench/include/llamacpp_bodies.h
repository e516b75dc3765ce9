/* The bodies of llama-server's answers: what is constant in them, as the real server (b11434) sends it. */
#ifndef BENCH_LLAMACPP_BODIES_H
#define BENCH_LLAMACPP_BODIES_H

#define SERVER_HEADERS "Server: llama.cpp\r\nAccess-Control-Allow-Origin: \r\n"
#define KEEP_ALIVE "Keep-Alive: timeout=5, max=100\r\n"
#define STREAM_HEAD                                                                                                \
    "HTTP/1.1 200 OK\r\n" SERVER_HEADERS "X-Accel-Buffering: no\r\nContent-Type: text/event-stream\r\n"            \
    "Transfer-Encoding: chunked\r\n" KEEP_ALIVE "\r\n"
#define LAST_CHUNK "0\r\n\r\n"

#define HEALTH_BODY "{\"status\":\"ok\"}"
#define UNAUTHORIZED_BODY "{\"error\":{\"message\":\"Invalid API Key\",\"type\":\"authentication_error\",\"code\":401}}"
#define NOT_FOUND_BODY "{\"error\":{\"message\":\"File Not Found\",\"type\":\"not_found_error\",\"code\":404}}"

#define GENERATION_SETTINGS \
    "{\"seed\":1,\"temperature\":0.0,\"dynatemp_range\":0.0,\"dynatemp_exponent\":1.0,\"top_k\":40," \
    "\"top_p\":0.949999988079071,\"min_p\":0.05000000074505806,\"top_n_sigma\":-1.0,\"xtc_probability\":0.0," \
    "\"xtc_threshold\":0.10000000149011612,\"typical_p\":1.0,\"repeat_last_n\":64,\"repeat_penalty\":1.0," \
    "\"presence_penalty\":0.0,\"frequency_penalty\":0.0,\"dry_multiplier\":0.0,\"dry_base\":1.75," \
    "\"dry_allowed_length\":2,\"dry_penalty_last_n\":64,\"dry_sequence_breakers\":[\"\\n\",\":\",\"\\\"\",\"*\"]," \
    "\"mirostat\":0,\"mirostat_tau\":5.0,\"mirostat_eta\":0.10000000149011612,\"adaptive_target\":-1.0," \
    "\"adaptive_decay\":0.8999999761581421,\"stop\":[],\"max_tokens\":8,\"n_predict\":8,\"n_keep\":0,\"n_discard\":0," \
    "\"ignore_eos\":false,\"stream\":true,\"logit_bias\":[],\"n_probs\":0,\"min_keep\":0,\"grammar\":\"\"," \
    "\"grammar_lazy\":false,\"grammar_triggers\":[],\"preserved_tokens\":[],\"chat_format\":\"Content-only\"," \
    "\"reasoning_format\":\"deepseek\",\"reasoning_in_content\":false,\"generation_prompt\":\"\"," \
    "\"samplers\":[\"penalties\",\"dry\",\"top_n_sigma\",\"top_k\",\"typ_p\",\"top_p\",\"min_p\",\"xtc\",\"temperature\"]," \
    "\"speculative.types\":\"none\",\"timings_per_token\":false,\"post_sampling_probs\":false," \
    "\"backend_sampling\":false,\"lora\":[]}"

/* printf: ctx, slots, model path */
#define PROPS_FORMAT                                                                                               \
    "{\"default_generation_settings\":{\"params\":" GENERATION_SETTINGS ",\"n_ctx\":%d},\"total_slots\":%d,"       \
    "\"model_alias\":\"bench\",\"model_ftype\":\"Q4_1\",\"model_path\":\"%s\","                                    \
    "\"modalities\":{\"vision\":false,\"video\":false,\"audio\":false},\"endpoint_slots\":true,"                   \
    "\"endpoint_props\":false,\"endpoint_metrics\":true,\"ui\":false,\"ui_settings\":{},\"chat_template\":\"\","   \
    "\"chat_template_caps\":{},\"bos_token\":\"<s>\",\"eos_token\":\"</s>\","                                      \
    "\"build_info\":\"b1-bench\",\"is_sleeping\":false,\"cors_proxy_enabled\":false}"

/* printf: ctx */
#define MODELS_FORMAT                                                                                              \
    "{\"models\":[{\"name\":\"bench\",\"model\":\"bench\"}],\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"aliases\":[]," \
    "\"object\":\"model\",\"created\":1735689600,\"owned_by\":\"llamacpp\",\"meta\":{\"vocab_type\":2,\"n_vocab\":49152,"    \
    "\"n_ctx\":%d,\"n_ctx_train\":131072,\"n_embd\":576,\"n_params\":134515008,\"size\":4,\"ftype\":\"Q4_1\"}}]}"

/* printf: prompt tokens, predicted tokens, predicted tokens, requests processing, requests deferred */
#define METRICS_FORMAT                                                                                             \
    "# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens\n"             \
    "# TYPE llamacpp:prompt_tokens_total counter\nllamacpp:prompt_tokens_total %llu\n"                             \
    "# HELP llamacpp:tokens_predicted_total Number of generation tokens processed\n"                               \
    "# TYPE llamacpp:tokens_predicted_total counter\nllamacpp:tokens_predicted_total %llu\n"                       \
    "# HELP llamacpp:n_decode_total Total number of llama_decode() calls\n"                                        \
    "# TYPE llamacpp:n_decode_total counter\nllamacpp:n_decode_total %llu\n"                                       \
    "# HELP llamacpp:requests_processing Number of requests processing\n"                                          \
    "# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing %d\n"                                 \
    "# HELP llamacpp:requests_deferred Number of requests deferred\n"                                              \
    "# TYPE llamacpp:requests_deferred gauge\nllamacpp:requests_deferred %d\n"

#endif
