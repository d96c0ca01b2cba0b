/*
 * Inside a tokenizer; for model/tok*.c only. Two families stand behind the one opaque type:
 *  - sentencepiece (tok_spm.c): the sentencepiece library's own normaliser and models;
 *  - pipeline (tok_pipe.c): the `tokenizers` library's added tokens → normalisers → splitters →
 *    model → template, as tokenizer.json, vocab.json + merges.txt, vocab.txt or a caller's parts
 *    describe it.
 * What a tokenizer holds never changes after loading; what an encode works in is a pl_tok_run.
 */
#ifndef PL_MODEL_TOK_IMPL_H
#define PL_MODEL_TOK_IMPL_H

#include "base/arena.h"
#include "model/bpe.h"
#include "model/spm.h"
#include "model/tok_trie.h"
#include "model/tokenizer.h"

#define PL_TOK_MAX_FILE (256u << 20)
#define PL_TOK_MAX_IDS (1u << 22)
#define PL_TOK_MAX_PIECE 65536u     /* bytes of a piece, an added token, a replacement */
#define PL_TOK_MAX_STEPS 16         /* normalisers, splitters, decoders: each */
#define PL_TOK_MAX_AFFIX 16         /* ids that a template puts before or behind */
#define PL_TOK_SPACE "\xe2\x96\x81" /* ▁ */
#define PL_TOK_REPLACEMENT "\xef\xbf\xbd"

struct pl_tok_str {
    const char *s; /* NULL: none */
    uint32_t len;
};

/* Pieces by id, ids by piece. */
struct pl_tok_vocab {
    struct pl_tok_str *pieces; /* s NULL: no piece has this id */
    size_t n;                  /* the largest id + 1 */
    size_t count;              /* pieces that can be found */
    uint32_t *table;           /* id + 1, 0: empty */
    size_t mask;
};
/* Room for ids below n and for count pieces. */
PL_MUST_CHECK
enum pl_status pl_tok_vocab_init(struct pl_tok_vocab *v, struct pl_arena *arena, size_t n,
                                 size_t count, struct pl_err *err);
/* Borrows s. PL_EFORMAT: an id or (unless `replaces`) a piece that is there already. */
PL_MUST_CHECK
enum pl_status pl_tok_vocab_add(struct pl_tok_vocab *v, const char *file, uint32_t id,
                                struct pl_tok_str s, bool replaces, struct pl_err *err);
int32_t pl_tok_vocab_find(const struct pl_tok_vocab *v, const char *s, size_t len); /* −1: none */

struct pl_tok_run;

/* --- models: a word to ids --- */
struct pl_tok_model {
    const char *kind;
    enum pl_status (*word)(struct pl_tok_run *r, const char *w, size_t n, struct pl_err *err);
};
extern const struct pl_tok_model pl_tok_bpe_model, pl_tok_unigram_model, pl_tok_wordpiece_model;

struct pl_tok_merge {
    uint64_t pair; /* left id << 32 | right id */
    uint32_t rank, id;
};
struct pl_tok_bpe {
    struct pl_tok_merge *merges; /* by hash; id UINT32_MAX: empty */
    size_t mask;
    int32_t unk;
    bool fuse_unk, byte_fallback, ignore_merges;
    bool raw;              /* words come as bytes and stand for GPT-2's characters */
    bool splits_at_space;  /* words can be cut before each ▁ */
    int32_t byte_id[256];  /* raw: ids of the bytes' characters; else of <0x00>…; −1: none */
    int32_t ascii_id[128]; /* ids of one-byte pieces */
    struct pl_tok_str prefix, suffix; /* continuing_subword_prefix, end_of_word_suffix */
};
/* Room for n merges; pieces must be in the vocabulary: PL_EFORMAT names the one that is not. */
PL_MUST_CHECK
enum pl_status pl_tok_bpe_init(struct pl_tokenizer *t, size_t n, struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_tok_bpe_merge(struct pl_tokenizer *t, uint32_t rank, struct pl_tok_str a,
                                struct pl_tok_str b, struct pl_err *err);
/* After the last merge. */
void pl_tok_bpe_finish(struct pl_tokenizer *t);
/* GPT-2's printable character of each byte, and back (−1: none). */
uint32_t pl_tok_byte_char(unsigned char b);
int pl_tok_char_byte(uint32_t c);

struct pl_tok_unigram {
    struct pl_tok_trie trie; /* values: ids */
    double *scores;          /* by id, user-defined pieces excepted */
    double unk_score;
    int32_t unk; /* −1: none */
    bool byte_fallback;
    bool single;              /* sums are rounded to float, as sentencepiece's are */
    const struct pl_spm *spm; /* NULL: the tokenizers library's */
    double max_score;         /* of user-defined pieces, by byte */
};
PL_MUST_CHECK
enum pl_status pl_tok_unigram_spm(struct pl_tokenizer *t, struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_tok_unigram_init(struct pl_tokenizer *t, struct pl_err *err);
/* Viterbi over text. final: to its end; else as far as no later byte can change. *consumed bytes
 * are done, their ids added. r->carry is the score up to there, r->was_unk what came last. */
PL_MUST_CHECK
enum pl_status pl_tok_unigram_encode(struct pl_tok_run *r, const char *text, size_t len, bool final,
                                     size_t *consumed, struct pl_err *err);

struct pl_tok_wordpiece {
    struct pl_tok_str prefix;
    int32_t unk;
    size_t max_chars;
    size_t longest; /* bytes of the longest piece */
};

/* --- the SentencePiece normaliser's rules --- */
struct pl_tok_charsmap {
    const unsigned char *trie; /* units of 4 bytes, little-endian; NULL: none */
    size_t units;
    const char *text; /* NUL-terminated strings */
    size_t size;
};
PL_MUST_CHECK
enum pl_status pl_tok_charsmap_init(struct pl_tok_charsmap *m, const char *file, const void *data,
                                    size_t len, struct pl_arena *arena, struct pl_err *err);
/* The rule for the longest (or the shortest) prefix of s: its bytes, 0: none. */
size_t pl_tok_charsmap_find(const struct pl_tok_charsmap *m, const char *s, size_t len,
                            bool shortest, const char **to);

/* --- normalisers, splitters, decoders: lists of steps --- */
enum pl_tok_normal_kind {
    PL_TOK_NFD, /* the order of enum pl_uni_form */
    PL_TOK_NFC,
    PL_TOK_NFKD,
    PL_TOK_NFKC,
    PL_TOK_LOWERCASE,
    PL_TOK_STRIP_ACCENTS,
    PL_TOK_BERT,
    PL_TOK_PREPEND,
    PL_TOK_REPLACE,
    PL_TOK_STRIP,
    PL_TOK_CHARSMAP
};
struct pl_tok_normal {
    enum pl_tok_normal_kind kind;
    struct pl_tok_str from, to;          /* replace; prepend: to. from.s NULL: two spaces or more */
    bool clean, chinese, accents, lower; /* bert */
    bool left, right;                    /* strip */
    struct pl_tok_charsmap map;
};
/* Appends the normal form of text to out through tmp (both may be used; they must differ). */
PL_MUST_CHECK
enum pl_status pl_tok_normalise(const struct pl_tok_normal *steps, size_t n, const char *text,
                                size_t len, struct pl_buf *out, struct pl_buf *tmp,
                                struct pl_err *err);

enum pl_tok_split_kind {
    PL_TOK_PREFIX_SPACE, /* a space in front unless there is one */
    PL_TOK_BYTE_LEVEL,   /* maps bytes to GPT-2's characters */
    PL_TOK_PATTERN,
    PL_TOK_STRING,
    PL_TOK_CLASS, /* single characters with a flag of pl_uni_flags */
    PL_TOK_WORDS, /* \w+|[^\w\s]+, the rest removed */
    PL_TOK_METASPACE
};
enum pl_tok_behaviour {
    PL_TOK_ISOLATED,
    PL_TOK_REMOVED,
    PL_TOK_CONTIGUOUS,
    PL_TOK_MERGED_PREVIOUS,
    PL_TOK_MERGED_NEXT
};
enum pl_tok_prepend { PL_TOK_NEVER, PL_TOK_FIRST, PL_TOK_ALWAYS };
/* A family of regular expressions: which of its choices. NULL names: none. */
struct pl_tok_pattern {
    const char *name, *regex;
    bool any_prefix; /* [^\r\n\p{L}\p{N}]?\p{L}+ and case-blind contractions, newlines at the end;
                        else GPT-2's */
    unsigned digits; /* of a number at most; 0: any */
};
/* By a regular expression or by a name (gpt-2, llama-bpe, qwen2); NULL: not known. */
const struct pl_tok_pattern *pl_tok_pattern_by_regex(const char *regex);
const struct pl_tok_pattern *pl_tok_pattern_by_name(const char *name);

struct pl_tok_split {
    enum pl_tok_split_kind kind;
    enum pl_tok_behaviour behaviour;
    bool invert;
    const struct pl_tok_pattern *pattern;
    struct pl_tok_str string; /* to split at; metaspace: what stands for a space */
    uint32_t flag;
    bool splits; /* metaspace */
    enum pl_tok_prepend prepend;
};
/* Splits text by the steps and gives each word to the model. first: text begins the input. */
PL_MUST_CHECK
enum pl_status pl_tok_split_words(struct pl_tok_run *r, const char *text, size_t len, bool first,
                                  struct pl_err *err);

enum pl_tok_decode_kind {
    PL_TOK_D_BYTE_LEVEL,
    PL_TOK_D_WORDPIECE,
    PL_TOK_D_METASPACE,
    PL_TOK_D_FUSE,
    PL_TOK_D_BYTES,
    PL_TOK_D_STRIP,
    PL_TOK_D_REPLACE,
    PL_TOK_D_BPE
};
struct pl_tok_decoder {
    enum pl_tok_decode_kind kind;
    struct pl_tok_str from, to; /* replace; wordpiece: from is its prefix; bpe: its suffix;
                                   metaspace: what stands for a space; strip: the character */
    bool cleanup;               /* wordpiece */
    bool prefix;                /* metaspace: the first one vanishes */
    size_t start, stop;         /* strip */
};
PL_MUST_CHECK
enum pl_status pl_tok_pipe_decode(const struct pl_tokenizer *t, const int32_t *ids, size_t n,
                                  struct pl_buf *out, struct pl_err *err);

struct pl_tok_added {
    struct pl_tok_str text;
    struct pl_tok_str pattern; /* what is looked for: the text, normalised where `normalized` */
    int32_t id;
    bool special, lstrip, rstrip, single_word, normalized;
};

/* --- families --- */
struct pl_tok_family {
    enum pl_status (*encode)(struct pl_tok_run *r, const char *text, size_t len,
                             struct pl_err *err);
    enum pl_status (*decode)(const struct pl_tokenizer *t, const int32_t *ids, size_t n,
                             struct pl_buf *out, struct pl_err *err);
};
extern const struct pl_tok_family pl_tok_spm_family, pl_tok_pipe_family;

struct pl_tokenizer {
    struct pl_arena arena;
    struct pl_tokenizer_info info;
    const struct pl_tok_family *family;
    int32_t prefix[PL_TOK_MAX_AFFIX], suffix[PL_TOK_MAX_AFFIX]; /* what add_special adds */
    size_t n_prefix, n_suffix;
    /* sentencepiece */
    struct pl_spm spm;
    struct pl_vocab spm_vocab;
    struct pl_tok_charsmap charsmap;
    bool legacy; /* a text behind an added token gets the dummy prefix, too */
    /* pipeline */
    const struct pl_tok_model *model;
    struct pl_tok_vocab vocab;
    struct pl_tok_bpe bpe;
    struct pl_tok_wordpiece wordpiece;
    struct pl_tok_normal normals[PL_TOK_MAX_STEPS];
    struct pl_tok_split splits[PL_TOK_MAX_STEPS];
    struct pl_tok_decoder decoders[PL_TOK_MAX_STEPS];
    size_t n_normals, n_splits, n_decoders;
    bool joins_with_space; /* no decoder: tokens are joined by spaces */
    struct pl_tok_added *added;
    size_t n_added, added_size;
    int32_t next_added; /* id of the next added token that is no piece */
    int32_t *added_of;  /* by id: index + 1 of the added token, 0: none; info.vocab of them */
    struct pl_tok_trie added_text, added_raw, added_normal; /* values: indices of added tokens */
    bool cuts_at_newline; /* x\ny can be cut behind the newline: the ids stay the same */
    /* both */
    struct pl_tok_unigram unigram;
};

/* What one encode works in. */
struct pl_tok_run {
    const struct pl_tokenizer *t;
    struct pl_ids *out;
    size_t stop; /* enough ids */
    bool inside; /* the text goes on behind an added token: sentencepiece puts no prefix */
    bool was_unk;
    double carry;
    struct pl_bpe spm_bpe;
    struct pl_buf text, normal, tmp, mapped, step[PL_TOK_MAX_STEPS];
    struct pl_tok_sym *syms;
    size_t syms_size;
    struct pl_merge_heap heap;
    struct pl_tok_node *nodes;
    size_t nodes_size;
};
/* For a text of len bytes. */
void pl_tok_run_init(struct pl_tok_run *r, const struct pl_tokenizer *t, size_t len, size_t stop,
                     struct pl_ids *out);
void pl_tok_run_release(struct pl_tok_run *r);

/* --- loading: each fills a zeroed tokenizer whose info.file is set --- */
PL_MUST_CHECK
enum pl_status pl_tok_load_spm(struct pl_tokenizer *t, const void *data, size_t len,
                               struct pl_err *err);
/* After t->spm is filled. */
PL_MUST_CHECK
enum pl_status pl_tok_spm_finish(struct pl_tokenizer *t, struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_tok_load_json(struct pl_tokenizer *t, const char *data, size_t len,
                                struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_tok_load_bpe_files(struct pl_tokenizer *t, const char *vocab, size_t vocab_len,
                                     const char *merges, size_t merges_len, const char *dir,
                                     struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_tok_load_vocab_txt(struct pl_tokenizer *t, const char *data, size_t len,
                                     const char *dir, struct pl_err *err);
PL_MUST_CHECK
enum pl_status pl_tok_load_parts(struct pl_tokenizer *t, const struct pl_tokenizer_parts *p,
                                 struct pl_err *err);
/* Names of special tokens, added tokens, BOS and EOS from tokenizer_config.json and
 * special_tokens_map.json of dir (NULL: none). */
PL_MUST_CHECK
enum pl_status pl_tok_read_config(struct pl_tokenizer *t, const char *dir, struct pl_err *err);
/* Room for n added tokens of so many bytes together. */
PL_MUST_CHECK
enum pl_status pl_tok_added_init(struct pl_tokenizer *t, size_t n, size_t bytes,
                                 struct pl_err *err);
/* Adds an added token the way the tokenizers library does and gives it its id (a->id is ignored);
 * text is borrowed. */
PL_MUST_CHECK
enum pl_status pl_tok_add_token(struct pl_tokenizer *t, const struct pl_tok_added *a,
                                struct pl_err *err);
/* After everything is there: tries, flags, info. */
PL_MUST_CHECK
enum pl_status pl_tok_pipe_finish(struct pl_tokenizer *t, struct pl_err *err);
#define PL_TOK_MAX_ADDED_SPM 65536
/* The id that a name stands for, added tokens first; −1: none. */
int32_t pl_tok_id_of(const struct pl_tokenizer *t, const char *s, size_t len);
/* The added token of this text, NULL: none. */
const struct pl_tok_added *pl_tok_added_find(const struct pl_tokenizer *t, const char *s,
                                             size_t len);

#endif
