/* answers: stdin has {"answer", "right": […], "classes": […]} a line; stdout gets [f1, rouge_l,
 * exact_match, classification, holds the first]. */
#include "base/json.h"
#include "data/answer_score.h"

#include <stdio.h>
#include <stdlib.h>

#define LIST_MAX 64

static size_t texts(const json_t *o, const char *key, const char **out)
{
    const json_t *list = json_object_get(o, key);

    for (size_t i = 0; i < json_array_size(list) && i < LIST_MAX; i++)
        out[i] = json_string_value(json_array_get(list, i));
    return json_array_size(list);
}

int main(void)
{
    const char *right[LIST_MAX], *classes[LIST_MAX];
    char *line = NULL;
    size_t room = 0;
    ssize_t len;

    while ((len = getline(&line, &room, stdin)) > 0) {
        json_t *o = json_loadb(line, (size_t)len, 0, NULL);
        const char *answer = json_string_value(json_object_get(o, "answer"));
        const size_t n = texts(o, "right", right), k = texts(o, "classes", classes);
        struct pl_answer_scores v;
        if (!answer || !pl_answer_scores(answer, right, n, &v))
            return 1;
        printf("[%.17g,%.17g,%.17g,%.17g,%.17g]\n", v.f1, v.rouge_l, v.exact_match,
               pl_answer_classification(answer, right, n, classes, k),
               pl_answer_holds(answer, right[0]));
        json_decref(o);
    }
    free(line);
    return 0;
}
