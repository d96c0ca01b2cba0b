/* A file of LongBench's items: every item's prompt is made, and an answer scored against it. */
#include "data/answer_score.h"
#include "data/longbench.h"
#include "fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct pl_longbench list = {NULL, 0};
    struct pl_arena arena;
    struct pl_err err;
    pl_arena_init(&arena);
    if (pl_longbench_parse("fuzz.jsonl", text, size, &arena, &list, &err) == PL_OK)
        for (size_t i = 0; i < list.n && i < 64; i++) {
            const struct pl_longbench_item *k = &list.items[i];
            struct pl_answer_scores v;
            json_t *o = pl_longbench_prompt(text, size, k, PL_LONGBENCH_PROMPT);
            const char *said = json_string_value(json_object_get(o, "tail"));
            if (!said)
                abort();
            const double c =
                pl_answer_classification(said, (const char *const *)k->answers, k->n_answers,
                                         (const char *const *)k->classes, k->n_classes);
            if (!pl_answer_scores(said, (const char *const *)k->answers, k->n_answers, &v) ||
                v.f1 < 0 || v.f1 > 1 || v.rouge_l > v.f1 + 1e-12 || c < 0 || c > 1)
                abort();
            json_decref(o);
        }
    pl_arena_release(&arena);
    return 0;
}
