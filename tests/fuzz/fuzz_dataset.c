/* What asks about scenes: an instruction JSON, a list of questions, and the score of one text
 * against the next. */
#include "data/answer_score.h"
#include "data/questions.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pl_instructions json = {NULL, 0};
    struct pl_questions list = {NULL, 0};
    struct pl_arena arena;
    struct pl_err err;
    double worst = 0;
    pl_arena_init(&arena);
    if (pl_instructions_parse("fuzz.json", (const char *)data, size, &arena, &json, &err) == PL_OK)
        for (size_t i = 0; i < json.n; i++)
            if (json.list[i].answer)
                worst += pl_answer_score(json.list[i].question, json.list[i].answer);
    if (pl_questions_parse("fuzz.txt", (const char *)data, size, &arena, &list, &err) == PL_OK)
        for (size_t i = 1; i < list.n; i++)
            worst += pl_answer_score(list.text[i - 1], list.text[i]);
    if (worst > (double)(json.n + list.n)) /* a score is at most 1 */
        abort();
    pl_arena_release(&arena);
    return 0;
}
