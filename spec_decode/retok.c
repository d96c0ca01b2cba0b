#include "spec_decode/retok.h"

#include <stdlib.h>
#include <string.h>

#define MOST_TEXT (1u << 24)

/* How the text behind a cut is given to the tokenizer, so that it says what it would say there. */
enum mode { WHOLE, AS_IT_IS, LESS_THE_SPACE };

struct pl_retok {
    const struct pl_tokenizer *t;
    enum mode mode;
    bool inside;
    struct pl_buf text;
    struct pl_ids ids, tail; /* tail: what was encoded last, kept for its room */
    size_t *ends;            /* [room] 1 + the byte behind each id's text; 0: that is no border */
    size_t room;
    struct pl_untok said;
};

static const char spaces[] = "\xe2\x96\x81"; /* ▁ */
static const char byte_space[] = "\xc4\xa0"; /* Ġ */

/* No piece has a space behind something else. */
static bool pieces_begin_words(const struct pl_tokenizer *t)
{
    for (int32_t id = 0; id < pl_tokenizer_info(t)->vocab; id++) {
        const char *p = pl_tokenizer_piece(t, id);
        bool other = false;
        while (p && *p) {
            size_t n = !strncmp(p, spaces, 3) ? 3 : !strncmp(p, byte_space, 2) ? 2 : *p == ' ';
            if (n && other)
                return false;
            other = !n;
            p += n ? n : 1;
        }
    }
    return true;
}

static bool is_cut(const char *text, size_t at)
{
    return at && text[at] == ' ' && !strchr(" \t\r\n\f\v", text[at - 1]);
}

size_t pl_retok_cut(const struct pl_retok *r, const char *text, size_t at)
{
    while (at && (r->mode == WHOLE || !is_cut(text, at)))
        at--;
    return at;
}

static enum pl_status encode_from(const struct pl_retok *r, const char *text, size_t len, size_t at,
                                  enum mode mode, struct pl_ids *out, struct pl_err *err)
{
    size_t from = at + (at && mode == LESS_THE_SPACE);

    if (!at && r->inside)
        return pl_tokenizer_encode_inside(r->t, text, len, out, err);
    return pl_tokenizer_encode(r->t, text + from, len - from, !at, out, err);
}

/* Whether every cut of a text leaves its ids as they are. */
static bool holds(const struct pl_retok *r, const char *text, enum mode mode)
{
    struct pl_ids whole = {0}, parts = {0};
    struct pl_err err;
    size_t len = strlen(text);
    bool same = !encode_from(r, text, len, 0, WHOLE, &whole, &err);

    for (size_t at = 1; at < len && same; at++) {
        if (!is_cut(text, at))
            continue;
        parts.n = 0;
        same = !encode_from(r, text, at, 0, WHOLE, &parts, &err) &&
               !encode_from(r, text, len, at, mode, &parts, &err) && parts.n == whole.n &&
               !memcmp(parts.ids, whole.ids, whole.n * sizeof(*whole.ids));
    }
    pl_ids_release(&whole);
    pl_ids_release(&parts);
    return same;
}

static enum mode choose_mode(const struct pl_retok *r)
{
    static const char *const texts[] = {
        "The house of a man, who said \"well\" to her.",
        "two  spaces and\n a line 12 345 (a) [b] it's",
        "\xc3\xa9t\xc3\xa9 na\xc3\xafve \xe4\xb8\xad \xe6\x96\x87 x"};
    static const enum mode modes[] = {AS_IT_IS, LESS_THE_SPACE};

    for (size_t m = 0; m < 2 && pieces_begin_words(r->t); m++) {
        bool all = true;
        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]) && all; i++)
            all = holds(r, texts[i], modes[m]);
        if (all)
            return modes[m];
    }
    return WHOLE;
}

enum pl_status pl_retok_new(const struct pl_tokenizer *t, struct pl_retok **out, struct pl_err *err)
{
    struct pl_retok *r = calloc(1, sizeof(*r));

    if (!r)
        return pl_fail(err, PL_ENOMEM, "no memory to re-tokenise");
    r->t = t;
    pl_buf_init(&r->text, MOST_TEXT);
    enum pl_status st = pl_untok_init(&r->said, t, err);
    if (st) {
        free(r);
        return st;
    }
    r->mode = choose_mode(r);
    *out = r;
    return PL_OK;
}

void pl_retok_free(struct pl_retok *r)
{
    if (!r)
        return;
    pl_buf_release(&r->text);
    pl_untok_release(&r->said);
    pl_ids_release(&r->ids);
    pl_ids_release(&r->tail);
    free(r->ends);
    free(r);
}

bool pl_retok_local(const struct pl_retok *r)
{
    return r->mode != WHOLE;
}

void pl_retok_begin(struct pl_retok *r, bool inside)
{
    pl_buf_clear(&r->text);
    r->ids.n = 0;
    r->inside = inside;
}

const int32_t *pl_retok_ids(const struct pl_retok *r, size_t *n)
{
    *n = r->ids.n;
    return r->ids.ids;
}

/* Where ids from number `first` on end, which begin at byte `at` of the text. Text that the
 * tokenizer changes (normalisation) has no borders from there on. */
static enum pl_status find_ends(struct pl_retok *r, size_t first, size_t at, struct pl_err *err)
{
    const struct pl_buf *said = &r->said.text;
    size_t lead = 0;
    enum pl_status st = PL_OK;

    if (r->ids.n > r->room) {
        size_t *p = realloc(r->ends, r->ids.n * 2 * sizeof(*p));
        if (!p)
            return pl_fail(err, PL_ENOMEM, "no memory to re-tokenise");
        r->ends = p;
        r->room = r->ids.n * 2;
    }
    pl_untok_clear(&r->said);
    if (!at) { /* the space that a tokenizer puts in front of a text */
        st = pl_untok_add(&r->said, r->ids.ids, r->ids.n, err);
        lead = said->len == r->text.len + 1 && said->data[0] == ' ';
        pl_untok_clear(&r->said);
    }
    for (size_t i = first; i < r->ids.n && !st; i++) {
        st = pl_untok_add(&r->said, &r->ids.ids[i], 1, err);
        if (st)
            break;
        size_t n = said->len > lead ? said->len - lead : 0;
        bool fits = pl_untok_whole(&r->said) && at + n <= r->text.len &&
                    (!n || !memcmp(r->text.data + at, said->data + lead, n));
        r->ends[i] = fits ? at + n + 1 : 0;
    }
    return st;
}

enum pl_status pl_retok_set(struct pl_retok *r, const char *text, size_t len, size_t *same,
                            struct pl_err *err)
{
    struct pl_ids *tail = &r->tail;
    size_t alike = 0, at, first = 0, before = r->ids.n;
    enum pl_status st;

    while (alike + 64 <= len && alike + 64 <= r->text.len &&
           !memcmp(text + alike, r->text.data + alike, 64))
        alike += 64;
    while (alike < len && alike < r->text.len && text[alike] == r->text.data[alike])
        alike++;
    /* what stands before a space may still have gone on, when the text ended there */
    at = alike ? pl_retok_cut(r, text, alike < len ? alike : len ? len - 1 : 0) : 0;
    if (at && at + 1 == len && r->mode == LESS_THE_SPACE) /* nothing would be left of it */
        at = pl_retok_cut(r, text, at - 1);
    while (at && first < r->ids.n && r->ends[first] && r->ends[first] <= at + 1)
        first++;
    if (at && (!first || r->ends[first - 1] != at + 1)) /* a cut that is no border, for once */
        at = first = 0;
    tail->n = 0;
    st = len ? encode_from(r, text, len, at, r->mode, tail, err) : PL_OK;
    *same = first;
    while (!st && *same < before && *same - first < tail->n &&
           r->ids.ids[*same] == tail->ids[*same - first])
        ++*same;
    r->ids.n = first;
    for (size_t i = 0; i < tail->n && !st; i++)
        st = pl_ids_add(&r->ids, tail->ids[i], err);
    pl_buf_clear(&r->text);
    if (!st)
        st = pl_buf_add(&r->text, text, len, err);
    return st ? st : find_ends(r, first, at, err);
}

size_t pl_retok_before(const struct pl_retok *r, size_t at, bool *border)
{
    size_t n = 0;

    *border = at == 0;
    for (size_t i = 0; i < r->ids.n; i++) {
        if (r->ends[i] > at + 1)
            break;
        if (!r->ends[i])
            continue;
        *border = r->ends[i] == at + 1;
        n = i + 1;
    }
    return n;
}

static bool ends_broken(const struct pl_buf *b)
{
    return b->len >= 3 && !memcmp(b->data + b->len - 3, "\xef\xbf\xbd", 3);
}

enum pl_status pl_untok_init(struct pl_untok *u, const struct pl_tokenizer *t, struct pl_err *err)
{
    enum pl_status st;

    *u = (struct pl_untok){.t = t};
    pl_buf_init(&u->text, MOST_TEXT);
    pl_buf_init(&u->scratch, MOST_TEXT);
    /* Behind some text nothing is dropped in front. */
    st = pl_tokenizer_encode(t, "a", 1, false, &u->pending, err);
    if (!st)
        st = pl_tokenizer_decode(t, u->pending.ids, u->pending.n, &u->scratch, err);
    u->anchor = u->scratch.len;
    if (!st && !u->pending.n)
        st = pl_fail(err, PL_EUNSUPPORTED, "the tokenizer has no ids for the text \"a\"");
    if (!st) { /* one id is enough */
        u->pending.ids[0] = u->pending.ids[u->pending.n - 1];
        u->pending.n = 1;
        pl_buf_clear(&u->scratch);
        st = pl_tokenizer_decode(t, u->pending.ids, 1, &u->scratch, err);
        u->anchor = u->scratch.len;
    }
    if (st)
        pl_untok_release(u);
    return st;
}

void pl_untok_release(struct pl_untok *u)
{
    pl_ids_release(&u->pending);
    pl_buf_release(&u->text);
    pl_buf_release(&u->scratch);
}

void pl_untok_clear(struct pl_untok *u)
{
    pl_untok_cut(u, 0);
}

void pl_untok_cut(struct pl_untok *u, size_t len)
{
    u->pending.n = 1;
    if (len < u->text.len)
        u->text.len = len;
    if (u->text.data)
        u->text.data[u->text.len] = '\0';
}

enum pl_status pl_untok_add(struct pl_untok *u, const int32_t *ids, size_t n, struct pl_err *err)
{
    enum pl_status st = PL_OK;

    for (size_t i = 0; i < n && !st; i++) {
        st = pl_ids_add(&u->pending, ids[i], err);
        pl_buf_clear(&u->scratch);
        if (!st)
            st = pl_tokenizer_decode(u->t, u->pending.ids, u->pending.n, &u->scratch, err);
        if (st || (ends_broken(&u->scratch) && u->pending.n < 5))
            continue;
        st = pl_buf_add(&u->text, u->scratch.data + u->anchor, u->scratch.len - u->anchor, err);
        u->pending.n = 1;
    }
    return st;
}

bool pl_untok_whole(const struct pl_untok *u)
{
    return u->pending.n == 1;
}
