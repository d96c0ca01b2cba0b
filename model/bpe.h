/*
 * SentencePiece's BPE over a vocabulary: start from characters, again and again join the neighbours
 * whose piece has the highest score (ties: the leftmost). A heap of candidate pairs over a linked
 * list: n log n.
 */
#ifndef PL_MODEL_BPE_H
#define PL_MODEL_BPE_H

#include "base/arena.h"
#include "base/status.h"
#include "model/merge_heap.h"
#include "model/spm.h"
#include "model/tok_trie.h"
#include "model/tokenizer.h"

/* Pieces by their text: the ones that merging may make (normal and user-defined). */
struct pl_vocab {
    const struct pl_spm *spm;
    uint32_t *table; /* piece + 1, 0: empty */
    size_t mask;
    int32_t bytes[256];      /* ids of byte pieces, −1: none */
    struct pl_tok_trie user; /* user-defined pieces */
    size_t n_user;
    bool splits_at_space; /* no piece has a ▁ behind another character: words are independent */
};

/* PL_EFORMAT: two pieces of one text, byte fallback without its 256 bytes. */
PL_MUST_CHECK
enum pl_status pl_vocab_init(struct pl_vocab *v, const char *file, const struct pl_spm *spm,
                             struct pl_arena *arena, struct pl_err *err);
/* −1: no such piece. */
int32_t pl_vocab_find(const struct pl_vocab *v, const char *text, size_t len);
/* Length of the longest user-defined piece that text begins with, 0: none. */
size_t pl_vocab_user_match(const struct pl_vocab *v, const char *text, size_t len);

/* What one encode works in; zero-initialise. */
struct pl_bpe {
    struct pl_bpe_symbol *symbols;
    size_t n_symbols, symbols_size;
    struct pl_merge_heap heap;
};
void pl_bpe_release(struct pl_bpe *b);
/* Appends the ids of a normalised text (spaces are ▁, valid UTF-8). *was_unk: whether the id before
 * was the unknown one (runs of it become one); kept up to date. */
PL_MUST_CHECK
enum pl_status pl_bpe_encode(struct pl_bpe *b, const struct pl_vocab *v, const char *text,
                             size_t len, bool *was_unk, struct pl_ids *out, struct pl_err *err);

#endif
