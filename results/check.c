/* The identities of CONTRACTS §3 as far as a finished row can prove or refute them;
 * docs/RESULTS_FILE.md derives each. */
#include "results/reader.h"

#include <math.h>
#include <stdio.h>

#define RELATIVE 0.01    /* phases + wait against total */
#define ABSOLUTE_MS 2e-3 /* floor of the tolerance: clock steps and ns rounding */

struct checker {
    const struct pl_shape *shape;
    const struct pl_row *row;
    struct pl_trial t;
    uint32_t sequences; /* that have a token; 1 where no ids are told */
    char *buf;
    size_t size;
};

static double zero_if_nan(double x)
{
    return isnan(x) ? 0 : x;
}

static double slack(double total)
{
    return fmax(RELATIVE * total, ABSOLUTE_MS);
}

static const char *bad_time(const struct checker *k, const char *name, double ms)
{
    snprintf(k->buf, k->size, "%s is %g ms", name, ms);
    return k->buf;
}

#define CHECK_F64(name)                                                                            \
    if (!isnan(k->t.name) && !(k->t.name >= 0 && isfinite(k->t.name)))                             \
        return bad_time(k, #name, k->t.name);
#define CHECK_U64(name)
#define CHECK_I64(name)
#define CHECK_U32(name)
#define CHECK_U16(name)
#define CHECK_U8(name)

static const char *check_times(const struct checker *k)
{
#define PL_X(type, tag, name) CHECK_##tag(name)
    PL_TRIAL_COLUMNS(PL_X)
#undef PL_X
    const struct pl_trial *t = &k->t;
    if (isnan(t->total_ms))
        return bad_time(k, "total_ms", t->total_ms);
    const double lane =
        zero_if_nan(t->tokenize_ms) + zero_if_nan(t->vision_ms) + zero_if_nan(t->encode_ms) +
        zero_if_nan(t->prefill_ms) + zero_if_nan(t->draft_ms) + zero_if_nan(t->adapter_ms) +
        zero_if_nan(t->verify_ms) + zero_if_nan(t->decode_ms) + zero_if_nan(t->wait_ms);
    /* an engine need not tell its phases (docs/RUNNER.md); one that does tells all of them */
    const bool untold = isnan(t->tokenize_ms) && isnan(t->vision_ms) && isnan(t->encode_ms) &&
                        isnan(t->prefill_ms) && isnan(t->draft_ms) && isnan(t->adapter_ms) &&
                        isnan(t->verify_ms) && isnan(t->decode_ms) && isnan(t->wait_ms);
    if (!untold && fabs(lane - t->total_ms) > slack(t->total_ms)) {
        snprintf(k->buf, k->size, "phases + wait = %.6g ms, but total = %.6g ms", lane,
                 t->total_ms);
        return k->buf;
    }
    const double drafter =
        zero_if_nan(t->d_vision_ms) + zero_if_nan(t->d_prefill_ms) + zero_if_nan(t->d_decode_ms);
    /* nor need it tell when its drafter waited */
    const double d_lane = drafter + zero_if_nan(t->d_wait_ms);
    if (d_lane > t->total_ms + slack(t->total_ms) ||
        (!isnan(t->d_wait_ms) && d_lane < t->total_ms - slack(t->total_ms))) {
        snprintf(k->buf, k->size, "the drafter's phases%s = %.6g ms, but total = %.6g ms",
                 isnan(t->d_wait_ms) ? "" : " + wait", d_lane, t->total_ms);
        return k->buf;
    }
    const double parts = zero_if_nan(t->preprocess_ms) + zero_if_nan(t->tower_ms),
                 d_parts = zero_if_nan(t->d_preprocess_ms) + zero_if_nan(t->d_tower_ms);
    if (parts > zero_if_nan(t->vision_ms) + slack(zero_if_nan(t->vision_ms)) ||
        d_parts > zero_if_nan(t->d_vision_ms) + slack(zero_if_nan(t->d_vision_ms))) {
        snprintf(k->buf, k->size,
                 "preprocess + tower = %.6g, drafter's %.6g ms, but vision = %.6g, %.6g ms", parts,
                 d_parts, t->vision_ms, t->d_vision_ms);
        return k->buf;
    }
    if (t->ttft_ms > t->total_ms + ABSOLUTE_MS) {
        snprintf(k->buf, k->size, "ttft = %.6g ms, but total = %.6g ms", t->ttft_ms, t->total_ms);
        return k->buf;
    }
    return NULL;
}

/* Generated ids stand first in each sequence, all ≥ 0; their times never go back and end within the
 * trial. */
static const char *check_tokens(struct checker *k)
{
    const uint32_t n = k->shape->tokens;
    uint64_t found = 0;
    uint32_t sequences = 0;
    for (uint32_t b = 0; b < k->shape->batch; b++) {
        const int32_t *id = k->row->tokens + (size_t)b * n;
        const float *ms = k->row->token_ms + (size_t)b * n;
        uint32_t len = 0;
        while (len < n && id[len] >= 0)
            len++;
        found += len;
        sequences += len > 0;
        for (uint32_t i = len; i < n; i++)
            if (id[i] != -1) {
                snprintf(k->buf, k->size, "sequence %u: token %u is %d after the end at %u", b, i,
                         id[i], len);
                return k->buf;
            }
        for (uint32_t i = 0; i < len; i++) {
            const double before = i ? ms[i - 1] : 0;
            const bool no_times = isnan(ms[i]) && (i == 0 || isnan(before));
            if (no_times || (ms[i] >= before && ms[i] <= k->t.total_ms + slack(k->t.total_ms)))
                continue;
            snprintf(k->buf, k->size, "sequence %u: token %u at %g ms after %g ms, total %g ms", b,
                     i, (double)ms[i], before, k->t.total_ms);
            return k->buf;
        }
    }
    if (found)
        k->sequences = sequences;
    if (found == k->t.generated || found == 0) /* an engine need not tell its ids either */
        return NULL;
    snprintf(k->buf, k->size, "generated = %u, but %llu token ids", k->t.generated,
             (unsigned long long)found);
    return k->buf;
}

static const char *check_plain(const struct checker *k)
{
    const struct pl_trial *t = &k->t;
    if (t->rounds || t->drafted || t->accepted || t->free_tokens || t->cut) {
        if (t->rounds == 0 || k->shape->rounds == 0) {
            snprintf(
                k->buf, k->size,
                "rounds = %u of %u, but drafted = %u, accepted = %u, free_tokens = %u, cut = %u",
                t->rounds, k->shape->rounds, t->drafted, t->accepted, t->free_tokens, t->cut);
            return k->buf;
        }
        return NULL;
    }
    if (t->generated == 0 && (t->decode_ms > 0 || t->verify_ms > 0)) {
        snprintf(k->buf, k->size, "nothing generated, but decode = %g ms, verify = %g ms",
                 t->decode_ms, t->verify_ms);
        return k->buf;
    }
    return NULL;
}

/* Sums over /rounds, and how much of each sequence's last round may have been cut. */
struct round_sums {
    uint64_t used, drafted, accepted, most_cut;
    bool over; /* a round accepted more than it drafted */
};

static struct round_sums sum_rounds(const struct checker *k)
{
    struct round_sums s = {0};
    for (uint32_t b = 0; b < k->shape->batch; b++) {
        uint32_t most = 0;
        for (uint32_t i = 0; i < k->shape->rounds; i++) {
            const struct pl_round r = k->row->rounds[(size_t)b * k->shape->rounds + i];
            s.used += r.drafted || r.accepted || r.draft_us || r.verify_us;
            s.drafted += r.drafted;
            s.accepted += r.accepted;
            s.over |= r.accepted > r.drafted;
            if (r.accepted > most)
                most = r.accepted;
        }
        /* one sequence: its last round is known. More: only their total is, so the longest round of
         * each bounds it */
        if (k->sequences == 1 && b == 0 && k->t.rounds && k->t.rounds <= k->shape->rounds)
            most = k->row->rounds[k->t.rounds - 1].accepted;
        s.most_cut += most;
    }
    return s;
}

static const char *check_rounds(const struct checker *k)
{
    const struct pl_trial *t = &k->t;
    const struct round_sums s = sum_rounds(k);
    const uint64_t room = (uint64_t)k->shape->batch * k->shape->rounds;
    if (t->rounds > room || s.used > t->rounds)
        snprintf(k->buf, k->size, "rounds = %u, but %llu of %llu are filled", t->rounds,
                 (unsigned long long)s.used, (unsigned long long)room);
    else if (s.over || s.drafted != t->drafted || s.accepted != t->accepted)
        snprintf(k->buf, k->size,
                 "drafted = %u, accepted = %u, but /rounds sums to %llu and %llu%s", t->drafted,
                 t->accepted, (unsigned long long)s.drafted, (unsigned long long)s.accepted,
                 s.over ? ", one with more accepted than drafted" : "");
    else if (t->free_tokens > t->drafted)
        snprintf(k->buf, k->size, "free_tokens = %u, but drafted = %u", t->free_tokens, t->drafted);
    else if (t->cut > s.most_cut)
        snprintf(k->buf, k->size, "cut = %u, but the last round accepted %llu", t->cut,
                 (unsigned long long)s.most_cut);
    else if ((uint64_t)t->generated + t->cut < (uint64_t)k->sequences + s.accepted + t->rounds)
        snprintf(k->buf, k->size,
                 "generated %u + cut %u < %u + accepted %u + rounds %u: plain steps would be "
                 "negative",
                 t->generated, t->cut, k->sequences, t->accepted, t->rounds);
    else
        return NULL;
    return k->buf;
}

const char *pl_row_check(const struct pl_shape *shape, const struct pl_row *row, char *buf,
                         size_t size)
{
    struct checker k = {
        .shape = shape, .row = row, .t = *row->trial, .sequences = 1, .buf = buf, .size = size};
    if (k.t.reason != PL_REASON_NONE) {
        snprintf(buf, size, "done, but with reason %u (%s)", k.t.reason,
                 pl_reason_name((enum pl_reason)k.t.reason));
        return buf;
    }
    const char *bad = check_times(&k);
    if (!bad)
        bad = check_tokens(&k);
    if (!bad)
        bad = check_plain(&k);
    if (!bad && k.t.rounds)
        bad = check_rounds(&k);
    return bad;
}
