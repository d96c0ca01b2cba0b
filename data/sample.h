/*
 * Samples: what one trial reads. A list is a pure function of (data entry, seed, contexts, count):
 * every process that opens it gets the same samples, whoever runs them.
 *
 * text: one UTF-8 file, or a folder whose regular files are read in the order of their names.
 * Sample i is an offset into the text drawn from the seed, the same for every arm and context: the
 * text is cut into slots of `largest context × 6` bytes (English in small vocabularies needs 2–5
 * bytes a token), the slots are shuffled by the seed, the start is moved forward to the next UTF-8
 * character after white space. Disjoint while slots last; beyond that starts are drawn anywhere and
 * pl_samples_overlap says so. synthetic: sample i is a key; ids are drawn from it and the arm's
 * vocabulary by the runner. eventgpt, dsec: sample i is a question about a scene (data/scenes.h).
 * needle: text, with facts hidden in it and a question about one (data/needle.h). longbench: the
 * items of a JSON Lines file in an order of the seed (data/longbench.h).
 */
#ifndef PL_DATA_SAMPLE_H
#define PL_DATA_SAMPLE_H

#include "base/json.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pl_samples;

#define PL_SAMPLE_ID_MAX 320
#define PL_CONTEXT_AUTO 0 /* grid.contexts [auto]: a prompt's own length; of scenes only */

struct pl_scenes;

/* data: the sweep's resolved `data` object. count: 0 = all (text: one a slot; scenes: every
 * question of every scene). PL_ENOENT, PL_EFORMAT (not UTF-8: byte offset; a question file: line or
 * item), PL_ERANGE (shorter than one context of bytes, `samples: all` on synthetic, more samples
 * than scenes have questions, contexts that are not [auto] on scenes). */
PL_MUST_CHECK
enum pl_status pl_samples_open(const json_t *data, uint64_t seed, const int64_t *contexts,
                               size_t n_contexts, uint32_t count, struct pl_samples **out,
                               struct pl_err *err);
void pl_samples_free(struct pl_samples *s);
uint32_t pl_samples_count(const struct pl_samples *s);
bool pl_samples_overlap(const struct pl_samples *s);
/* Stable id, different for every sample: "NAME@offset" for text, "synthetic-7" for synthetic,
 * "SCENE × QUESTION" for scenes. At most PL_SAMPLE_ID_MAX bytes with the NUL. */
void pl_samples_id(const struct pl_samples *s, uint32_t i, char *out, size_t size);
/* Bytes of the longest id with its NUL. */
size_t pl_samples_id_size(const struct pl_samples *s);
const struct pl_scenes *pl_samples_scenes(const struct pl_samples *s); /* NULL: other kinds */
/* What is known of the right answer; NULL: nothing. */
const char *pl_samples_answer(const struct pl_samples *s, uint32_t i);
bool pl_samples_answered(const struct pl_samples *s); /* some sample has an answer */
/* What an answer to sample i is worth, by the scores that its kind of data has (docs/METRICS.md,
 * "Quality"); NaN: not one of them, or nothing is known of the right answer. */
struct pl_sample_scores {
    double accuracy, f1, rouge_l, exact_match, classification;
};
void pl_samples_score(const struct pl_samples *s, uint32_t i, const char *answer,
                      struct pl_sample_scores *out);
#define PL_SAMPLES_DIGEST 17
/* Of the names of all samples, 16 hexadecimal digits: two processes see the same list. */
void pl_samples_digest(const struct pl_samples *s, char out[PL_SAMPLES_DIGEST]);
/* The `sample` object of a trial request (docs/RUNNER.md). New reference, NULL when memory is out.
 */
json_t *pl_samples_request(const struct pl_samples *s, uint32_t i);

/* A trial of several sequences on sample i runs the group of `size` samples that holds i, beginning
 * with i and going round; the last group has what is left. Returns the sample of its sequence j. So
 * every sample is in as many sequences as every other, and all trials of a group run one set. */
uint32_t pl_samples_in_group(uint32_t n_samples, uint32_t size, uint32_t i, uint32_t j);

/*
 * The runner's side: the text a request names. Files stay mapped in the cache.
 */
struct pl_text_cache;
struct pl_text_cache *pl_text_cache_new(void);
void pl_text_cache_free(struct pl_text_cache *c);
/* From the sample's start to the end of its file: borrowed, not NUL-terminated, until the cache is
 * freed. */
PL_MUST_CHECK
enum pl_status pl_text_cache_get(struct pl_text_cache *c, const json_t *sample, const char **text,
                                 size_t *len, struct pl_err *err);
/* synthetic: n ids in [0, vocab) drawn from the sample's key; vocab ≥ 1. */
PL_MUST_CHECK
enum pl_status pl_synthetic_ids(const json_t *sample, uint32_t vocab, int32_t *ids, size_t n,
                                struct pl_err *err);

#endif
