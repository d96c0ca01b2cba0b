/* Prompts: question → text → ids with a vision token → embeddings with rows in its place. */
#include "model/model.h"
#include "model/vision.h"

#include <inttypes.h>
#include <string.h>

#define EVENT "<event>"
#define VIDEO "<video>"
#define IMAGE "<image>"

/* The vision token's text and id. */
static const char *mark_of(const struct pl_vision_config *c, bool still)
{
    return c->kind == PL_VISION_EVENTGPT ? EVENT : still ? IMAGE : VIDEO;
}

static int32_t mark_id(const struct pl_vision_config *c, bool still)
{
    return c->kind != PL_VISION_EVENTGPT && still ? c->image_token : c->vision_token;
}

enum pl_status pl_vision_prompt(const struct pl_vision_config *c, const char *question, bool still,
                                struct pl_buf *out, struct pl_err *err)
{
    const char *mark = mark_of(c, still);

    if (c->kind == PL_VISION_NONE)
        return pl_fail(err, PL_EUSAGE, "the model reads text alone");
    if (strstr(question, mark))
        return pl_buf_addf(out, err, "%s", question);
    if (c->kind == PL_VISION_EVENTGPT)
        return pl_buf_addf(
            out, err,
            "A chat between a curious human and an artificial intelligence "
            "assistant. The assistant gives helpful, detailed, and polite answers to "
            "the human's questions. USER: %s" EVENT "%s\n%s ASSISTANT:",
            "<ev_start>", "<ev_end>", question);
    return pl_buf_addf(out, err, "USER: %s\n%s ASSISTANT:", mark, question);
}

/* ---- text → ids ---- */

struct special {
    const char *text;
    int32_t id; /* −1: it is plain text */
};
enum { MARK, EV_PATCH, EV_START, EV_END, SPECIALS };

/* What the texts stand for. EventGPT's program adds its tokens behind the vocabulary where the
 * files have not got them. */
static void find_specials(const struct pl_vision_config *c, const struct pl_tokenizer *t,
                          bool still, struct special out[SPECIALS])
{
    int32_t next = pl_tokenizer_info(t)->vocab;
    const bool added[SPECIALS] = {false, c->patch, c->start_end, c->start_end};

    out[MARK] = (struct special){mark_of(c, still), mark_id(c, still)};
    out[EV_PATCH] = (struct special){"<ev_patch>", -1};
    out[EV_START] = (struct special){"<ev_start>", -1};
    out[EV_END] = (struct special){"<ev_end>", -1};
    for (int i = EV_PATCH; i < SPECIALS && c->kind == PL_VISION_EVENTGPT; i++) {
        out[i].id = pl_tokenizer_special(t, out[i].text);
        if (out[i].id < 0 && added[i])
            out[i].id = next++;
    }
}

/* The first special that stands in text, NULL: none. */
static const struct special *next_special(const char *text, const struct special s[SPECIALS],
                                          const char **at)
{
    const struct special *found = NULL;

    for (int i = 0; i < SPECIALS; i++) {
        const char *here = i == MARK || s[i].id >= 0 ? strstr(text, s[i].text) : NULL;
        if (here && (!found || here < *at)) {
            found = &s[i];
            *at = here;
        }
    }
    return found;
}

enum pl_status pl_vision_prompt_ids(const struct pl_vision_config *c, const struct pl_tokenizer *t,
                                    const char *question, bool still, struct pl_ids *out,
                                    struct pl_err *err)
{
    struct special specials[SPECIALS];
    const struct special *s;
    size_t before = out->n;
    const char *p, *at = NULL;
    struct pl_buf text;
    bool first = true;
    enum pl_status st;

    pl_buf_init(&text, PL_TOKENIZER_MAX_TEXT);
    st = pl_vision_prompt(c, question, still, &text, err);
    if (st)
        goto out;
    find_specials(c, t, still, specials);
    for (p = text.data; !st && p; first = false) {
        s = next_special(p, specials, &at);
        size_t len = s ? (size_t)(at - p) : strlen(p);
        st = first ? pl_tokenizer_encode(t, p, len, true, out, err)
                   : pl_tokenizer_encode_inside(t, p, len, out, err);
        if (!st && s)
            st = pl_ids_add(out, s->id, err);
        p = s ? at + strlen(s->text) : NULL;
    }
out:
    pl_buf_release(&text);
    if (st)
        out->n = before;
    return st;
}

/* ---- ids → embeddings ---- */

/* How many vision tokens there are, and whether each is one row. */
static enum pl_status count_marks(const struct pl_vision_config *c, const int32_t *ids, size_t n,
                                  size_t n_rows, bool still, bool *each, struct pl_err *err)
{
    int32_t mark = mark_id(c, still);
    size_t marks = 0;

    for (size_t i = 0; i < n; i++)
        marks += ids[i] == mark;
    if (marks != 1 && marks != n_rows)
        return pl_fail(err, PL_ERANGE,
                       "the ids hold the vision token of %s (%" PRId32
                       ") %zu times: once, or once for each of %zu rows, is expected",
                       mark_of(c, still), mark, marks, n_rows);
    *each = marks == n_rows;
    return PL_OK;
}

static size_t cut(const struct pl_vision_config *c, size_t n)
{
    return c->max_rows > 0 && n > (size_t)c->max_rows ? (size_t)c->max_rows : n;
}

enum pl_status pl_vision_spliced(const struct pl_vision_config *c, const int32_t *ids, size_t n,
                                 size_t n_rows, bool still, size_t *out, struct pl_err *err)
{
    bool each = false;
    enum pl_status st = count_marks(c, ids, n, n_rows, still, &each, err);

    if (!st)
        *out = cut(c, each ? n : n - 1 + n_rows);
    return st;
}

void pl_vision_mark(const struct pl_vision_config *c, const int32_t *ids, size_t n, size_t n_rows,
                    bool still, uint8_t *visual, size_t n_spliced)
{
    const int32_t mark = mark_id(c, still);
    size_t first = 0;

    while (first < n && ids[first] != mark)
        first++;
    for (size_t i = 0; i < n_spliced; i++)
        visual[i] = i >= first && i - first < n_rows;
}

enum pl_status pl_vision_splice(const struct pl_model *m, const int32_t *ids, size_t n,
                                const float *rows, size_t n_rows, bool still, float *embeds,
                                struct pl_err *err)
{
    const struct pl_vision_config *c = &pl_model_info(m)->vision;
    size_t h = (size_t)c->hidden, to = 0, row = 0, end = 0;
    int32_t mark = mark_id(c, still);
    bool each = false;
    enum pl_status st = count_marks(c, ids, n, n_rows, still, &each, err);

    if (!st)
        st = pl_vision_spliced(c, ids, n, n_rows, still, &end, err);
    for (size_t i = 0; i < n && !st;) {
        size_t k = 0;
        if (ids[i] == mark) {
            k = each ? 1 : n_rows;
            if (to < end)
                memcpy(embeds + to * h, rows + row * h,
                       (end - to < k ? end - to : k) * h * sizeof(*embeds));
            row += k;
            i++;
        } else {
            while (i + k < n && ids[i + k] != mark)
                k++;
            st = pl_model_check_ids(m, ids + i, k, err);
            if (!st && to < end)
                st = pl_model_embed(m, ids + i, end - to < k ? end - to : k, embeds + to * h, err);
            i += k;
        }
        to += k;
    }
    return st;
}
