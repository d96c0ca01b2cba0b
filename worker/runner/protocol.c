#include "worker/runner/protocol.h"

#include "worker/runner/jsonout.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define READ_SIZE 65536u

void pl_protocol_init(struct pl_protocol *p, int in, int out)
{
    memset(p, 0, sizeof(*p));
    p->in = in;
    p->out = out;
    pl_buf_init(&p->rx, PL_PROTOCOL_LINE_MAX + 1 + READ_SIZE);
    pl_buf_init(&p->tx, PL_PROTOCOL_LINE_MAX + 1);
}

void pl_protocol_release(struct pl_protocol *p)
{
    pl_buf_release(&p->rx);
    pl_buf_release(&p->tx);
}

int pl_protocol_claim_stdout(void)
{
    int fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);

    if (fd < 0)
        return -1;
    if (dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
        int e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    return fd;
}

/* Reads what there is, waiting for it. *n 0: end of input. */
static enum pl_status fill(struct pl_protocol *p, size_t *n, struct pl_err *err)
{
    char *to = pl_buf_reserve(&p->rx, READ_SIZE);

    if (!to)
        return pl_fail(err, PL_ENOMEM, "no memory for a request of %zu bytes", p->rx.len);
    for (;;) {
        ssize_t got = read(p->in, to, READ_SIZE);
        if (got >= 0) {
            p->rx.len += (size_t)got;
            *n = (size_t)got;
            return PL_OK;
        }
        if (errno == EAGAIN) {
            struct pollfd pf = {.fd = p->in, .events = POLLIN};
            (void)poll(&pf, 1, -1);
        } else if (errno != EINTR) {
            return pl_fail_errno(err, errno, "requests");
        }
    }
}

enum pl_status pl_protocol_next(struct pl_protocol *p, char **line, size_t *len, struct pl_err *err)
{
    for (;;) {
        char *nl = NULL;
        size_t n = 0;
        enum pl_status st;

        if (p->rx.len > p->scanned)
            nl = memchr(p->rx.data + p->scanned, '\n', p->rx.len - p->scanned);
        if (nl) {
            char *at = p->rx.data + p->start;
            size_t end = (size_t)(nl - p->rx.data);
            bool over = p->skipping || end - p->start > PL_PROTOCOL_LINE_MAX;
            *nl = '\0';
            *len = end - p->start;
            p->start = p->scanned = end + 1;
            p->skipping = false;
            if (over)
                return pl_fail(err, PL_ERANGE, "a request line is longer than %u bytes",
                               PL_PROTOCOL_LINE_MAX);
            if (*len == 0 || strspn(at, " \t\r") == *len)
                continue;
            *line = at;
            return PL_OK;
        }
        if (p->start) {
            pl_buf_consume(&p->rx, p->start);
            p->start = 0;
        }
        p->scanned = p->rx.len;
        if (p->skipping || p->rx.len > PL_PROTOCOL_LINE_MAX) {
            p->skipping = true;
            pl_buf_clear(&p->rx);
            p->scanned = 0;
        }
        st = fill(p, &n, err);
        if (st)
            return st;
        if (n == 0) {
            *line = NULL;
            *len = 0;
            return PL_OK;
        }
    }
}

enum pl_status pl_write_all(int fd, const char *data, size_t n, struct pl_err *err)
{
    while (n > 0) {
        ssize_t put = write(fd, data, n);
        if (put >= 0) {
            data += put;
            n -= (size_t)put;
        } else if (errno == EAGAIN) {
            struct pollfd pf = {.fd = fd, .events = POLLOUT};
            (void)poll(&pf, 1, -1);
        } else if (errno != EINTR) {
            return pl_fail_errno(err, errno, "answers");
        }
    }
    return PL_OK;
}

enum pl_status pl_protocol_send(struct pl_protocol *p, struct pl_err *err)
{
    enum pl_status st;

    if (p->tx.len > PL_PROTOCOL_LINE_MAX)
        return pl_fail(err, PL_ERANGE, "an answer of %zu bytes is longer than %u", p->tx.len,
                       PL_PROTOCOL_LINE_MAX);
    st = pl_buf_add(&p->tx, "\n", 1, err);
    if (!st)
        st = pl_write_all(p->out, p->tx.data, p->tx.len, err);
    pl_buf_clear(&p->tx);
    return st;
}

enum pl_status pl_protocol_send_json(struct pl_protocol *p, const json_t *j, struct pl_err *err)
{
    enum pl_status st;

    pl_buf_clear(&p->tx);
    st = pl_json_dump(j, &p->tx, err);
    return st ? st : pl_protocol_send(p, err);
}

static enum pl_status finish(struct pl_protocol *p, const struct pl_jsonout *o, struct pl_err *err)
{
    if (!o->failed)
        return PL_OK;
    pl_buf_clear(&p->tx);
    return pl_fail(err, PL_ERANGE, "an answer is longer than %u bytes", PL_PROTOCOL_LINE_MAX);
}

static void next_item(struct pl_jsonout *o, uint32_t i)
{
    pl_jsonout_raw(o, ",", i ? 1 : 0);
}

/* "name":value of those that are not negative, separated by commas. */
static void put_members(struct pl_jsonout *o, const char *const *names, const int64_t *values,
                        size_t n)
{
    uint32_t put = 0;

    for (size_t i = 0; i < n; i++) {
        if (values[i] < 0)
            continue;
        next_item(o, put++);
        pl_jsonout_str(o, names[i], strlen(names[i]));
        pl_jsonout_lit(o, ":");
        pl_jsonout_i64(o, values[i]);
    }
}

/* ,"key":{name: value of those that are not negative} */
static void put_known(struct pl_jsonout *o, const char *key, const char *const *names,
                      const int64_t *values, size_t n)
{
    pl_jsonout_lit(o, ",");
    pl_jsonout_str(o, key, strlen(key));
    pl_jsonout_lit(o, ":{");
    put_members(o, names, values, n);
    pl_jsonout_lit(o, "}");
}

/* Phases first … end − 1 of those that were measured. */
static void put_phases(struct pl_jsonout *o, const char *key, const int64_t *ns, int first, int end)
{
    const char *names[PL_PHASE_COUNT];

    for (int i = first; i < end; i++)
        names[i] = pl_phase_name((enum pl_phase)i);
    put_known(o, key, names + first, ns + first, (size_t)(end - first));
}

static void put_rounds(struct pl_jsonout *o, const struct pl_trial_result *r)
{
    static const char *const parts[] = {"drafted", "accepted", "draft_us", "verify_us"};
    static const char *const counts[] = {"rounds",      "drafted", "accepted",
                                         "free_tokens", "cut",     "divergent"};
    const int64_t all[] = {r->n_rounds,    r->drafted, r->accepted,
                           r->free_tokens, r->cut,     r->divergent};

    pl_jsonout_lit(o, ",\"rounds\":[");
    for (uint32_t i = 0; i < r->n_rounds; i++) {
        const struct pl_trial_round *d = &r->rounds[i];
        const int64_t round[] = {d->drafted, d->accepted, d->draft_us, d->verify_us};
        pl_jsonout_raw(o, i ? ",{" : "[{", 2);
        put_members(o, parts, round, sizeof(round) / sizeof(round[0]));
        pl_jsonout_lit(o, "}");
    }
    pl_jsonout_raw(o, "]]", r->n_rounds ? 2 : 1);
    put_known(o, "counts", counts, all, sizeof(all) / sizeof(all[0]));
}

/* [[lane, kind, start, end], …] */
static void put_spans(struct pl_jsonout *o, const struct pl_trial_result *r)
{
    if (!r->n_spans)
        return;
    pl_jsonout_lit(o, ",\"spans\":[");
    for (uint32_t i = 0; i < r->n_spans; i++) {
        const struct pl_trial_span *v = &r->spans[i];
        const int64_t all[4] = {v->lane, v->kind, v->start_ns, v->end_ns};
        next_item(o, i);
        pl_jsonout_i64s(o, all, 4);
    }
    pl_jsonout_lit(o, "]");
}

static void put_bytes(struct pl_jsonout *o, const struct pl_trial_result *r)
{
    static const char *const names[] = {"weights", "kv", "workspace", "device_peak", "other"};
    const int64_t bytes[] = {r->weights_bytes, r->kv_bytes, r->workspace_bytes,
                             r->device_peak_bytes, r->other_bytes};
    static const char *const works[] = {"prefill_flops", "decode_flops", "decode_bytes"};
    const int64_t work[] = {r->work.prefill_flops, r->work.decode_flops, r->work.decode_bytes};

    put_known(o, "bytes", names, bytes, sizeof(bytes) / sizeof(bytes[0]));
    put_known(o, "work", works, work, sizeof(work) / sizeof(work[0]));
}

static void put_device_ns(struct pl_jsonout *o, const struct pl_trial_result *r)
{
    static const char *const names[] = {"prefill", "decode"};

    if (r->device_ns[0] >= 0)
        put_known(o, "device_ns", names, r->device_ns, sizeof(names) / sizeof(names[0]));
}

static void put_quality(struct pl_jsonout *o, const struct pl_trial_result *r)
{
    pl_jsonout_lit(o, ",\"quality\":{");
    for (uint32_t i = 0; i < r->n_quality; i++) {
        const struct pl_trial_quality *q = &r->quality[i];
        next_item(o, i);
        pl_jsonout_str(o, q->name, strlen(q->name));
        pl_jsonout_lit(o, ":");
        pl_jsonout_f64(o, q->value);
    }
    pl_jsonout_lit(o, "}");
}

static uint32_t length_of(const struct pl_trial_result *r, uint32_t sequence)
{
    return r->lengths ? r->lengths[sequence] : r->generated;
}

static void put_sequences(struct pl_jsonout *o, const struct pl_trial_result *r)
{
    pl_jsonout_lit(o, ",\"generated\":[");
    for (uint32_t b = 0; b < r->sequences; b++) {
        next_item(o, b);
        pl_jsonout_u64(o, length_of(r, b));
    }
    pl_jsonout_lit(o, "],\"tokens\":[");
    for (uint32_t b = 0; b < r->sequences; b++) {
        next_item(o, b);
        pl_jsonout_i32s(o, r->tokens + (size_t)b * r->stride, length_of(r, b));
    }
    pl_jsonout_lit(o, "],\"token_ns\":[");
    for (uint32_t b = 0; b < r->sequences; b++) {
        next_item(o, b);
        pl_jsonout_i64s(o, r->token_ns + (size_t)b * r->stride, length_of(r, b));
    }
    pl_jsonout_lit(o, "]");
}

static void put_kernels(struct pl_jsonout *o, const struct pl_trial_result *r)
{
    static const char *const names[] = {"ns", "calls", "bytes", "flops"};

    if (!r->n_kernels)
        return;
    pl_jsonout_lit(o, ",\"kernels\":[");
    for (size_t i = 0; i < r->n_kernels; i++) {
        const struct pl_op_time *k = &r->kernels[i];
        const int64_t values[] = {k->ns, k->calls, k->bytes, k->flops};
        next_item(o, (uint32_t)i);
        pl_jsonout_lit(o, "{\"name\":");
        pl_jsonout_str(o, k->name, strlen(k->name));
        pl_jsonout_lit(o, ",");
        put_members(o, names, values, sizeof(values) / sizeof(values[0]));
        pl_jsonout_lit(o, "}");
    }
    pl_jsonout_lit(o, "]");
}

enum pl_status pl_protocol_put_result(struct pl_protocol *p, uint64_t id,
                                      const struct pl_trial_result *r, struct pl_err *err)
{
    struct pl_jsonout out = {.buf = &p->tx}, *o = &out;

    pl_buf_clear(&p->tx);
    pl_jsonout_lit(o, "{\"type\":\"result\",\"id\":");
    pl_jsonout_u64(o, id);
    pl_jsonout_lit(o, ",\"prompt_tokens\":");
    pl_jsonout_u64(o, r->prompt_tokens);
    put_sequences(o, r);
    put_phases(o, "phases_ns", r->phase_ns, 0, PL_PHASE_PARTS);
    put_phases(o, "parts_ns", r->phase_ns, PL_PHASE_PARTS, PL_PHASE_COUNT);
    pl_jsonout_lit(o, ",\"ttft_ns\":");
    pl_jsonout_i64(o, r->ttft_ns);
    pl_jsonout_lit(o, ",\"total_ns\":");
    pl_jsonout_i64(o, r->total_ns);
    if (r->layers) {
        pl_jsonout_lit(o, ",\"kv_len\":[[");
        for (uint32_t b = 0; b < r->sequences; b++) {
            next_item(o, b);
            pl_jsonout_u32s(o, r->kv_len + (size_t)b * r->layers, r->layers);
        }
        pl_jsonout_lit(o, "]");
        if (r->layers_draft) {
            pl_jsonout_lit(o, ",[");
            pl_jsonout_u32s(o, r->kv_len_draft, r->layers_draft);
            pl_jsonout_lit(o, "]");
        }
        pl_jsonout_lit(o, "]");
    }
    put_rounds(o, r);
    put_spans(o, r);
    put_device_ns(o, r);
    put_bytes(o, r);
    if (r->hashed) {
        pl_jsonout_lit(o, ",\"ids_hash\":");
        pl_jsonout_hex64(o, r->ids_hash);
        pl_jsonout_lit(o, ",\"logits_hash\":");
        pl_jsonout_hex64(o, r->logits_hash);
    }
    if (r->text) {
        pl_jsonout_lit(o, ",\"texts\":[");
        pl_jsonout_str(o, r->text, r->text_len);
        pl_jsonout_lit(o, "]");
    }
    put_kernels(o, r);
    if (r->synthetic)
        pl_jsonout_lit(o, ",\"synthetic\":true");
    else
        pl_jsonout_lit(o, ",\"synthetic\":false");
    put_quality(o, r);
    pl_jsonout_lit(o, "}");
    return finish(p, o, err);
}

enum pl_status pl_protocol_put_error(struct pl_protocol *p, uint64_t id,
                                     const struct pl_fault *fault, struct pl_err *err)
{
    struct pl_jsonout out = {.buf = &p->tx}, *o = &out;
    const char *reason = pl_fault_name(fault->reason);

    pl_buf_clear(&p->tx);
    pl_jsonout_lit(o, "{\"type\":\"error\",\"id\":");
    pl_jsonout_u64(o, id);
    pl_jsonout_lit(o, ",\"reason\":\"");
    pl_jsonout_raw(o, reason, strlen(reason));
    pl_jsonout_lit(o, "\",\"text\":");
    pl_jsonout_str(o, fault->err.text, strlen(fault->err.text));
    if (fault->fatal)
        pl_jsonout_lit(o, ",\"fatal\":true}");
    else
        pl_jsonout_lit(o, ",\"fatal\":false}");
    return finish(p, o, err);
}
