/*
 * What is asked of a scene: a list of questions for every scene, or the instruction JSON that names
 * scenes, questions and true answers. Both are outside files: BOM and CRLF are taken as they come,
 * everything else that is not the format is PL_EFORMAT with the file and the line or item.
 */
#ifndef PL_DATA_QUESTIONS_H
#define PL_DATA_QUESTIONS_H

#include "base/arena.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#define PL_QUESTION_MAX 16384            /* bytes of one question or answer */
#define PL_QUESTIONS_FILE_MAX (1u << 28) /* bytes of a question or instruction file */

struct pl_questions {
    const char **text; /* [n], in the file's order */
    size_t n;
};

/* A line is "COUNT<TAB>QUESTION" or the question alone; blank lines are passed over. No question at
 * all is an error. What comes out lives in the arena. */
PL_MUST_CHECK
enum pl_status pl_questions_parse(const char *name, const char *text, size_t len,
                                  struct pl_arena *arena, struct pl_questions *out,
                                  struct pl_err *err);

/* One question of one item: conversations[2k] and its answer. */
struct pl_instruction {
    const char *id;             /* of the item; a number is written out */
    const char *events, *video; /* as the item names them; at most one is NULL */
    const char *question;       /* without the place of the picture (<event>, <video>, <image>) */
    const char *answer;         /* NULL: none is given */
    uint32_t item;              /* its number in the file, from 0 */
};

struct pl_instructions {
    struct pl_instruction *list; /* [n] */
    size_t n;
};

/* [{"id", "event_data" (or "video"), "conversations": [{"from": "human"|"gpt", "value"}, …]}, …];
 * other keys are ignored. What comes out lives in the arena. */
PL_MUST_CHECK
enum pl_status pl_instructions_parse(const char *name, const char *text, size_t len,
                                     struct pl_arena *arena, struct pl_instructions *out,
                                     struct pl_err *err);

#endif
