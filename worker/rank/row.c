#include "worker/rank/row.h"

#include "results/quality.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static enum pl_status bad(struct pl_err *err, const char *key, const char *expected)
{
    return pl_fail(err, PL_EPROTO, "result: \"%s\" is not %s", key, expected);
}

/* Absent or null: *found is false and *out is left alone. */
static enum pl_status count(const json_t *o, const char *key, int64_t most, bool *found,
                            int64_t *out, struct pl_err *err)
{
    const json_t *v = json_object_get(o, key);
    *found = v && !json_is_null(v);
    if (!*found)
        return PL_OK;
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > most)
        return bad(err, key, "an integer in range");
    *out = json_integer_value(v);
    return PL_OK;
}

static enum pl_status get_ms(const json_t *o, const char *key, bool must, double *out,
                             struct pl_err *err)
{
    bool found;
    int64_t ns = 0;
    const enum pl_status st = count(o, key, INT64_MAX, &found, &ns, err);
    if (st != PL_OK)
        return st;
    if (found)
        *out = (double)ns / 1e6;
    else if (must)
        return pl_fail(err, PL_EPROTO, "result: \"%s\" is missing", key);
    return PL_OK;
}

static enum pl_status get_u32(const json_t *o, const char *key, uint32_t *out, struct pl_err *err)
{
    bool found;
    int64_t v = 0;
    const enum pl_status st = count(o, key, UINT32_MAX, &found, &v, err);
    if (st == PL_OK && found)
        *out = (uint32_t)v;
    return st;
}

static enum pl_status get_u64(const json_t *o, const char *key, uint64_t *out, struct pl_err *err)
{
    bool found;
    int64_t v = 0;
    const enum pl_status st = count(o, key, INT64_MAX, &found, &v, err);
    if (st == PL_OK && found)
        *out = (uint64_t)v;
    return st;
}

static enum pl_status get_hash(const json_t *o, const char *key, uint64_t *out, struct pl_err *err)
{
    const json_t *v = json_object_get(o, key);
    const char *s = json_string_value(v);
    if (!v || json_is_null(v))
        return PL_OK;
    if (!s || strlen(s) != 16 || strspn(s, "0123456789abcdefABCDEF") != 16)
        return bad(err, key, "16 hexadecimal digits");
    *out = strtoull(s, NULL, 16);
    return PL_OK;
}

/* An object member that may be absent; *out is NULL then. */
static enum pl_status member(const json_t *o, const char *key, bool array, const json_t **out,
                             struct pl_err *err)
{
    const json_t *v = json_object_get(o, key);
    *out = NULL;
    if (!v || json_is_null(v))
        return PL_OK;
    if (array ? !json_is_array(v) : !json_is_object(v))
        return bad(err, key, array ? "a list" : "an object");
    *out = v;
    return PL_OK;
}

static enum pl_status sequence_tokens(const json_t *list, uint32_t cap, int32_t *out,
                                      struct pl_err *err)
{
    const size_t n = json_array_size(list);
    if (!json_is_array(list) || n > cap)
        return bad(err, "tokens", "a list of at most as many ids as were asked for");
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        const int64_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        if (id < 0 || id > INT32_MAX)
            return bad(err, "tokens", "a list of token ids");
        out[i] = (int32_t)id;
    }
    return PL_OK;
}

static enum pl_status sequence_times(const json_t *list, uint32_t cap, float *out,
                                     struct pl_err *err)
{
    const size_t n = json_array_size(list);
    if (!json_is_array(list) || n > cap)
        return bad(err, "token_ns", "a list of at most as many times as tokens were asked for");
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return bad(err, "token_ns", "a list of nanoseconds");
        out[i] = (float)((double)json_integer_value(v) / 1e6);
    }
    return PL_OK;
}

static enum pl_status get_sequences(const json_t *result, const struct pl_shape *shape,
                                    uint32_t sequences, struct pl_row *row, struct pl_err *err)
{
    const json_t *generated, *tokens, *times;
    enum pl_status st = member(result, "generated", true, &generated, err);
    if (st == PL_OK)
        st = member(result, "tokens", true, &tokens, err);
    if (st == PL_OK)
        st = member(result, "token_ns", true, &times, err);
    if (st != PL_OK)
        return st;
    if (!generated || json_array_size(generated) != sequences)
        return pl_fail(
            err, PL_EPROTO,
            "result: \"generated\" has %zu counts, expected one for each of %u sequences",
            json_array_size(generated), sequences);
    if (json_array_size(tokens) > sequences || json_array_size(times) > sequences)
        return bad(err, "tokens", "one list a sequence");
    uint64_t sum = 0;
    for (size_t b = 0; b < json_array_size(generated); b++) {
        const json_t *v = json_array_get(generated, b);
        if (!json_is_integer(v) || json_integer_value(v) < 0 ||
            json_integer_value(v) > shape->tokens)
            return bad(err, "generated", "at most what was asked for");
        sum += (uint64_t)json_integer_value(v);
    }
    row->trial->generated = (uint32_t)sum;
    for (size_t b = 0; b < json_array_size(tokens); b++) {
        st = sequence_tokens(json_array_get(tokens, b), shape->tokens,
                             row->tokens + b * shape->tokens, err);
        if (st != PL_OK)
            return st;
    }
    for (size_t b = 0; b < json_array_size(times); b++) {
        st = sequence_times(json_array_get(times, b), shape->tokens,
                            row->token_ms + b * shape->tokens, err);
        if (st != PL_OK)
            return st;
    }
    return PL_OK;
}

static enum pl_status get_kv(const json_t *result, const struct pl_shape *shape, struct pl_row *row,
                             struct pl_err *err)
{
    const json_t *models;
    const enum pl_status st = member(result, "kv_len", true, &models, err);
    if (st != PL_OK)
        return st;
    if (json_array_size(models) > shape->models)
        return bad(err, "kv_len", "[model][sequence][layer]");
    for (size_t m = 0; m < json_array_size(models); m++) {
        const json_t *sequences = json_array_get(models, m);
        if (!json_is_array(sequences) || json_array_size(sequences) > shape->batch)
            return bad(err, "kv_len", "[model][sequence][layer]");
        for (size_t b = 0; b < json_array_size(sequences); b++) {
            const json_t *layers = json_array_get(sequences, b);
            uint32_t *out = row->kv_len + (m * shape->batch + b) * shape->layers;
            if (!json_is_array(layers) || json_array_size(layers) > shape->layers)
                return bad(err, "kv_len", "[model][sequence][layer]");
            for (size_t l = 0; l < json_array_size(layers); l++) {
                const json_t *v = json_array_get(layers, l);
                if (!json_is_integer(v) || json_integer_value(v) < 0 ||
                    json_integer_value(v) > UINT32_MAX)
                    return bad(err, "kv_len", "a list of lengths");
                out[l] = (uint32_t)json_integer_value(v);
            }
        }
    }
    return PL_OK;
}

static enum pl_status one_round(const json_t *o, struct pl_round *out, struct pl_err *err)
{
    uint32_t drafted = 0, accepted = 0, draft_us = 0, verify_us = 0;
    enum pl_status st = json_is_object(o) ? PL_OK : bad(err, "rounds", "a list of objects");
    if (st == PL_OK)
        st = get_u32(o, "drafted", &drafted, err);
    if (st == PL_OK)
        st = get_u32(o, "accepted", &accepted, err);
    if (st == PL_OK)
        st = get_u32(o, "draft_us", &draft_us, err);
    if (st == PL_OK)
        st = get_u32(o, "verify_us", &verify_us, err);
    if (st != PL_OK)
        return st;
    if (drafted > UINT16_MAX || accepted > drafted)
        return bad(err, "rounds", "accepted ≤ drafted ≤ 65535");
    *out = (struct pl_round){(uint16_t)drafted, (uint16_t)accepted, draft_us, verify_us};
    return PL_OK;
}

static enum pl_status get_rounds(const json_t *result, const struct pl_shape *shape,
                                 struct pl_row *row, struct pl_err *err)
{
    const json_t *sequences;
    enum pl_status st = member(result, "rounds", true, &sequences, err);
    if (st != PL_OK || json_array_size(sequences) == 0)
        return st;
    if (json_array_size(sequences) > shape->batch)
        return bad(err, "rounds", "one list a sequence");
    for (size_t b = 0; b < json_array_size(sequences); b++) {
        const json_t *list = json_array_get(sequences, b);
        if (!json_is_array(list) || json_array_size(list) > shape->rounds)
            return bad(err, "rounds", "as many rounds as `describe` foresaw at most");
        for (size_t i = 0; i < json_array_size(list); i++) {
            st = one_round(json_array_get(list, i), &row->rounds[b * shape->rounds + i], err);
            if (st != PL_OK)
                return st;
        }
    }
    return PL_OK;
}

struct phase {
    const char *key;
    size_t at;
};

static enum pl_status get_times(const json_t *result, const char *key, const struct phase *phases,
                                size_t n, struct pl_trial *t, struct pl_err *err)
{
    const json_t *o;
    enum pl_status st = member(result, key, false, &o, err);
    if (st != PL_OK || !o)
        return st;
    for (size_t i = 0; i < n; i++) {
        double ms;
        if (!json_object_get(o, phases[i].key))
            continue;
        ms = __builtin_nan("");
        st = get_ms(o, phases[i].key, false, &ms, err);
        if (st != PL_OK)
            return st;
        memcpy((char *)t + phases[i].at, &ms, sizeof ms);
    }
    return PL_OK;
}

static enum pl_status get_phases(const json_t *result, struct pl_trial *t, struct pl_err *err)
{
    static const struct phase phases[] = {
#define PHASE(name) {#name, offsetof(struct pl_trial, name##_ms)}
        PHASE(tokenize),  PHASE(vision),   PHASE(encode), PHASE(prefill), PHASE(draft),
        PHASE(adapter),   PHASE(verify),   PHASE(decode), PHASE(wait),    PHASE(d_vision),
        PHASE(d_prefill), PHASE(d_decode), PHASE(d_wait),
    };
    static const struct phase parts[] = {
        PHASE(preprocess),
        PHASE(tower),
        PHASE(d_preprocess),
        PHASE(d_tower),
#undef PHASE
    };
    enum pl_status st =
        get_times(result, "phases_ns", phases, sizeof phases / sizeof phases[0], t, err);

    return st != PL_OK
               ? st
               : get_times(result, "parts_ns", parts, sizeof parts / sizeof parts[0], t, err);
}

/* Columns are packed: each value goes through a local. */
#define GET(get, o, key, type, column)                                                             \
    do {                                                                                           \
        type value_ = t->column;                                                                   \
        if (st == PL_OK)                                                                           \
            st = get(o, key, &value_, err);                                                        \
        t->column = value_;                                                                        \
    } while (0)

static enum pl_status get_counts(const json_t *result, struct pl_trial *t, struct pl_err *err)
{
    const json_t *c, *b;
    enum pl_status st = member(result, "counts", false, &c, err);
    if (st == PL_OK)
        st = member(result, "bytes", false, &b, err);
    if (st != PL_OK)
        return st;
    GET(get_u32, result, "prompt_tokens", uint32_t, prompt_tokens);
    GET(get_hash, result, "ids_hash", uint64_t, ids_hash);
    GET(get_hash, result, "logits_hash", uint64_t, logits_hash);
    if (c) {
        GET(get_u32, c, "rounds", uint32_t, rounds);
        GET(get_u32, c, "drafted", uint32_t, drafted);
        GET(get_u32, c, "accepted", uint32_t, accepted);
        GET(get_u32, c, "free_tokens", uint32_t, free_tokens);
        GET(get_u32, c, "cut", uint32_t, cut);
        GET(get_u32, c, "divergent", uint32_t, divergent);
    }
    if (b) {
        GET(get_u64, b, "weights", uint64_t, weights_bytes);
        GET(get_u64, b, "kv", uint64_t, kv_bytes);
        GET(get_u64, b, "workspace", uint64_t, workspace_bytes);
        GET(get_u64, b, "device_peak", uint64_t, device_peak_bytes);
        GET(get_u64, b, "other", uint64_t, other_bytes);
    }
    return st;
}

static enum pl_status get_work(const json_t *result, struct pl_row *row, struct pl_err *err)
{
    struct pl_row_work *t = &row->work;
    const json_t *w;
    enum pl_status st = member(result, "work", false, &w, err);
    if (st == PL_OK && w) {
        GET(get_u64, w, "prefill_flops", uint64_t, prefill_flops);
        GET(get_u64, w, "decode_flops", uint64_t, decode_flops);
        GET(get_u64, w, "decode_bytes", uint64_t, decode_bytes);
    }
    return st;
}

/* Names that are not in the list are another protocol's; null: not measured. */
static enum pl_status get_quality(const json_t *result, const struct pl_shape *shape,
                                  struct pl_row *row, struct pl_err *err)
{
    const json_t *o;
    const enum pl_status st = member(result, "quality", false, &o, err);
    if (st != PL_OK || !o)
        return st;
    for (uint32_t q = 0; q < PL_QUALITY_COUNT && q < shape->metrics; q++) {
        const char *name = pl_quality_name((enum pl_quality)q);
        const json_t *v = json_object_get(o, name);
        if (!v || json_is_null(v))
            continue;
        if (!json_is_number(v) || !isfinite(json_number_value(v)))
            return pl_fail(err, PL_EPROTO, "result: \"quality.%s\" is not a number", name);
        row->quality[q] = json_number_value(v);
    }
    return PL_OK;
}

enum pl_status pl_row_from_result(const json_t *result, const struct pl_shape *shape,
                                  uint32_t sequences, struct pl_row *row, struct pl_err *err)
{
    const json_t *synthetic = json_object_get(result, "synthetic");
    pl_row_clear(row, shape);
    struct pl_trial *t = row->trial;
    double ttft = t->ttft_ms, total = t->total_ms;
    enum pl_status st = get_ms(result, "ttft_ns", true, &ttft, err);
    if (st == PL_OK)
        st = get_ms(result, "total_ns", true, &total, err);
    t->ttft_ms = ttft;
    t->total_ms = total;
    if (st == PL_OK)
        st = get_phases(result, t, err);
    if (st == PL_OK)
        st = get_counts(result, t, err);
    if (st == PL_OK)
        st = get_work(result, row, err);
    if (st == PL_OK)
        st = get_sequences(result, shape, sequences, row, err);
    if (st == PL_OK)
        st = get_kv(result, shape, row, err);
    if (st == PL_OK)
        st = get_rounds(result, shape, row, err);
    if (st == PL_OK)
        st = get_quality(result, shape, row, err);
    if (st == PL_OK && synthetic && !json_is_boolean(synthetic) && !json_is_null(synthetic))
        st = bad(err, "synthetic", "true or false");
    t->synthetic = json_is_true(synthetic);
    return st;
}

enum pl_status pl_spans_from_result(const json_t *result, struct pl_lane_span *out, uint32_t *n,
                                    struct pl_err *err)
{
    const json_t *list;
    const enum pl_status st = member(result, "spans", true, &list, err);
    *n = 0;
    if (st != PL_OK)
        return st;
    for (size_t i = 0; i < json_array_size(list) && i < PL_SPANS_MAX; i++) {
        const json_t *v = json_array_get(list, i);
        int64_t x[4];
        for (size_t k = 0; k < 4; k++)
            x[k] = json_is_integer(json_array_get(v, k)) ? json_integer_value(json_array_get(v, k))
                                                         : -1;
        if (json_array_size(v) != 4 || x[0] < 0 || x[0] > 1 || x[1] < 0 || x[1] > 11 || x[2] < 0 ||
            x[3] < x[2])
            return bad(err, "spans", "a list of [lane, kind, start, end]");
        out[*n] = (struct pl_lane_span){.lane = (uint8_t)x[0],
                                        .kind = (uint8_t)x[1],
                                        .start_ms = (double)x[2] / 1e6,
                                        .end_ms = (double)x[3] / 1e6};
        *n += x[3] > 0;
    }
    return PL_OK;
}
