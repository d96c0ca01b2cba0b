/*
 * A JSON Lines file in LongBench's format: `data: {kind: longbench}`. A line is {"input",
 * "context", "answers": [text, …], "all_classes": [text, …] or null, …}; other keys are ignored,
 * blank lines passed over. It is an outside file: whatever is not that is PL_EFORMAT with file and
 * line.
 */
#ifndef PL_DATA_LONGBENCH_H
#define PL_DATA_LONGBENCH_H

#include "base/arena.h"
#include "base/json.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#define PL_LONGBENCH_LINE_MAX                                                                      \
    (3u << 20) /* bytes of a line: a request of 8 MiB holds it escaped                             \
                */
#define PL_LONGBENCH_PROMPT "{context}\n\nQuestion: {input}\nAnswer:"

struct pl_longbench_item {
    uint32_t line;        /* of the file, from 1 */
    size_t at, len;       /* its bytes */
    const char **answers; /* [n_answers ≥ 1] */
    const char **classes; /* [n_classes], 0: no classification */
    size_t n_answers, n_classes;
};

struct pl_longbench {
    struct pl_longbench_item *items; /* [n], in the file's order */
    size_t n;
};

/* What comes out lives in the arena. No item at all is an error. */
PL_MUST_CHECK
enum pl_status pl_longbench_parse(const char *name, const char *text, size_t len,
                                  struct pl_arena *arena, struct pl_longbench *out,
                                  struct pl_err *err);
/* {"head", "body", "tail"} of an item's prompt: the context stands in the body; its line again from
 * text. prompt: with "{context}" once and "{input}" at most once. NULL: no memory, or the text is
 * another one. New reference. */
json_t *pl_longbench_prompt(const char *text, size_t len, const struct pl_longbench_item *item,
                            const char *prompt);
/* PL_EFORMAT: what a prompt lacks. */
PL_MUST_CHECK
enum pl_status pl_longbench_check_prompt(const char *prompt, struct pl_err *err);

#endif
