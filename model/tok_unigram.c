/* The unigram model: the segmentation of the highest sum of scores (Viterbi), in time linear in the
 * text. Sums are formed as the reference forms them, since ties and roundings decide ids:
 * sentencepiece's are floats, the tokenizers library's doubles. */
#include "model/tok_impl.h"
#include "model/unicode.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

#define UNK_PENALTY 10.0

struct pl_tok_node {
    double score; /* of the best path that ends here */
    int32_t id;
    uint32_t from; /* where its last piece begins; UINT32_MAX: no path yet */
};

static enum pl_status add_pieces(struct pl_tokenizer *t, size_t n, struct pl_err *err)
{
    struct pl_tok_unigram *u = &t->unigram;
    size_t bytes = 0;
    enum pl_status st;

    for (size_t i = 0; i < n; i++)
        bytes += u->spm ? u->spm->pieces[i].len : t->vocab.pieces[i].len;
    st = pl_tok_trie_init(&u->trie, &t->arena, bytes, err);
    if (st)
        return pl_err_prefix(err, st, "%s", t->info.file);
    for (size_t i = 0; i < n; i++) {
        if (!u->spm) {
            if (t->vocab.pieces[i].s)
                pl_tok_trie_add(&u->trie, t->vocab.pieces[i].s, t->vocab.pieces[i].len, (int32_t)i);
            continue;
        }
        const struct pl_spm_piece *p = &u->spm->pieces[i];
        if (p->type == PL_SPM_NORMAL || p->type == PL_SPM_USER)
            pl_tok_trie_add(&u->trie, p->text, p->len, (int32_t)i);
    }
    return PL_OK;
}

enum pl_status pl_tok_unigram_spm(struct pl_tokenizer *t, struct pl_err *err)
{
    struct pl_tok_unigram *u = &t->unigram;
    float least = FLT_MAX, most = FLT_MIN; /* as sentencepiece begins */

    u->spm = &t->spm;
    u->single = true;
    u->unk = t->spm.unk;
    u->byte_fallback = t->spm.byte_fallback;
    u->scores = pl_arena_calloc(&t->arena, t->spm.n, sizeof(*u->scores));
    if (!u->scores)
        return pl_fail(err, PL_ENOMEM, "%s: no memory for its scores", t->info.file);
    for (size_t i = 0; i < t->spm.n; i++) {
        const struct pl_spm_piece *p = &t->spm.pieces[i];
        u->scores[i] = p->score;
        if (p->type != PL_SPM_NORMAL)
            continue;
        least = p->score < least ? p->score : least;
        most = p->score > most ? p->score : most;
    }
    u->unk_score = (double)(float)(least - (float)UNK_PENALTY);
    u->max_score = most;
    return add_pieces(t, t->spm.n, err);
}

enum pl_status pl_tok_unigram_init(struct pl_tokenizer *t, struct pl_err *err)
{
    struct pl_tok_unigram *u = &t->unigram;
    double least = DBL_MAX;

    for (size_t i = 0; i < t->vocab.n; i++)
        if (t->vocab.pieces[i].s && u->scores[i] < least)
            least = u->scores[i];
    u->unk_score = least - UNK_PENALTY;
    return add_pieces(t, t->vocab.n, err);
}

/* A run of unknown characters. */
static enum pl_status add_unknown(struct pl_tok_run *r, const char *s, size_t n, struct pl_err *err)
{
    const struct pl_tokenizer *t = r->t;
    const struct pl_tok_unigram *u = &t->unigram;
    const int32_t *bytes = u->spm ? t->spm_vocab.bytes : t->bpe.byte_id;
    enum pl_status st = PL_OK;
    bool all = u->byte_fallback;

    if (!u->spm) {
        int32_t id = pl_tok_vocab_find(&t->vocab, s, n);
        if (id >= 0)
            return pl_ids_add(r->out, id, err);
    }
    for (size_t i = 0; i < n && all; i++)
        all = bytes[(unsigned char)s[i]] >= 0;
    for (size_t i = 0; i < n && all && !st; i++)
        st = pl_ids_add(r->out, bytes[(unsigned char)s[i]], err);
    if (st || all)
        return st;
    return r->was_unk && u->spm ? PL_OK : pl_ids_add(r->out, u->unk, err);
}

/* The ids of the best path from node `begin` to node `end`. */
static enum pl_status backtrack(struct pl_tok_run *r, const char *text, size_t begin, size_t end,
                                struct pl_err *err)
{
    const struct pl_tok_unigram *u = &r->t->unigram;
    struct pl_tok_node *nodes = r->nodes;
    enum pl_status st = PL_OK;
    uint32_t next = (uint32_t)end;

    /* Turn the links around: from of a node becomes where the piece that begins there ends. */
    for (uint32_t at = (uint32_t)end; at > begin;) {
        uint32_t from = nodes[at].from;
        nodes[at].from = next; /* end of the piece behind this one */
        next = at;
        at = from;
    }
    for (uint32_t from = (uint32_t)begin, at = next; from < end && !st;) {
        uint32_t follow = nodes[at].from, stop = at;
        int32_t id = nodes[at].id;
        if (id == u->unk) {
            while (stop < end && nodes[follow].id == u->unk) {
                stop = follow;
                follow = nodes[follow].from;
            }
            st = add_unknown(r, text + from, stop - from, err);
            r->was_unk = true;
        } else {
            st = pl_ids_add(r->out, id, err);
            r->was_unk = false;
        }
        from = stop;
        at = follow;
    }
    return st;
}

static void reach(struct pl_tok_node *to, double score, size_t from, int32_t id, bool single)
{
    if (single)
        score = (double)(float)score;
    if (to->from != UINT32_MAX && !(score > to->score))
        return;
    to->score = score;
    to->from = (uint32_t)from;
    to->id = id;
}

/* The paths that leave `at`; returns the bytes of its character, *furthest grows. */
static size_t leave(const struct pl_tok_unigram *u, struct pl_tok_node *nodes, const char *text,
                    size_t len, size_t at, size_t *furthest, bool *cut)
{
    double here = nodes[at].score;
    bool single_char = false;
    uint32_t c, node = 0;
    size_t n = pl_uni_decode(text + at, len - at, &c), i = at;

    for (; i < len; i++) {
        node = pl_tok_trie_next(&u->trie, node, (unsigned char)text[i]);
        if (!node)
            break;
        int32_t id = u->trie.values[node];
        if (id < 0)
            continue;
        size_t length = i + 1 - at;
        /* sentencepiece 0.2.3 gives a user's piece 0.1 (n − 1) where no score is above 0: found by
         * which of two equal paths behind one it takes, the rest of it never matters */
        double score = u->spm && u->spm->pieces[id].type == PL_SPM_USER
                           ? (double)(float)((double)length * (u->max_score + 0.1) - 0.1)
                           : u->scores[id];
        reach(&nodes[i + 1], score + here, at, id, u->single);
        *furthest = i + 1 > *furthest ? i + 1 : *furthest;
        single_char = single_char || length == n;
    }
    *cut = i == len && node;
    if (!single_char) {
        reach(&nodes[at + n], u->unk_score + here, at, u->unk, u->single);
        *furthest = at + n > *furthest ? at + n : *furthest;
    }
    return n;
}

enum pl_status pl_tok_unigram_encode(struct pl_tok_run *r, const char *text, size_t len, bool final,
                                     size_t *consumed, struct pl_err *err)
{
    const struct pl_tok_unigram *u = &r->t->unigram;
    size_t done = 0, furthest = 0;
    enum pl_status st = PL_OK;
    bool cut;

    if (len + 1 > r->nodes_size) {
        struct pl_tok_node *nodes =
            len < UINT32_MAX - 1 ? realloc(r->nodes, (len + 1) * sizeof(*nodes)) : NULL;
        if (!nodes)
            return pl_fail(err, PL_ENOMEM, "no memory to tokenise %zu bytes", len);
        r->nodes = nodes;
        r->nodes_size = len + 1;
    }
    for (size_t i = 0; i <= len; i++)
        r->nodes[i].from = UINT32_MAX;
    r->nodes[0] = (struct pl_tok_node){.score = r->carry, .from = 0};
    for (size_t at = 0; at < len && !st;) {
        if (u->spm && at == furthest && at > done) { /* every path comes through here */
            st = backtrack(r, text, done, at, err);
            done = at;
            if (r->out->n >= r->stop)
                break;
        }
        if (st)
            break;
        if (r->nodes[at].from == UINT32_MAX)
            return pl_fail(err, PL_EFORMAT, "%s: pieces that are no whole characters",
                           r->t->info.file);
        at += leave(u, r->nodes, text, len, at, &furthest, &cut);
        if (!final && cut)
            break;
        if (u->unk < 0 && r->nodes[at].from != UINT32_MAX && r->nodes[at].id == u->unk)
            return pl_fail(err, PL_EFORMAT, "%s: an unknown character and no unknown piece",
                           r->t->info.file);
    }
    if (!st && final && done < len && r->out->n < r->stop) {
        st = backtrack(r, text, done, len, err);
        done = len;
    }
    r->carry = r->nodes[done].score;
    *consumed = done;
    return st;
}

static enum pl_status word(struct pl_tok_run *r, const char *w, size_t n, struct pl_err *err)
{
    size_t consumed;

    r->carry = 0;
    r->was_unk = false;
    return pl_tok_unigram_encode(r, w, n, true, &consumed, err);
}

const struct pl_tok_model pl_tok_unigram_model = {"unigram", word};
