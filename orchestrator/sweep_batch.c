#include "orchestrator/sweep_batch.h"

#include <inttypes.h>

void pl_batch_check(struct pl_tree *t, const struct pl_yaml *map, json_t *arm, const char *label)
{
    const struct pl_yaml *batch_at = pl_tree_get(map, "batch"), *at = pl_tree_get(map, "requests");
    int64_t batch = pl_json_get_i64(arm, "batch", 1), n = pl_json_get_i64(arm, "concurrency", 1);
    json_t *requests = json_object_get(arm, "requests");

    if (batch > 1 && n > 1)
        pl_tree_mistake(t, batch_at ? batch_at : map,
                        "%s.batch is %" PRId64 " beside concurrency %" PRId64
                        ", expected one of them: a batch is fixed, a loop makes its own",
                        label, batch, n);
    if (json_is_integer(requests) && n == 1)
        pl_tree_mistake(t, at ? at : map,
                        "%s.requests is given without concurrency, expected both or none", label);
    else if (json_is_integer(requests) && json_integer_value(requests) < n)
        pl_tree_mistake(t, at ? at : map,
                        "%s.requests is %" PRId64 ", expected at least concurrency, %" PRId64
                        ": each client asks once",
                        label, (int64_t)json_integer_value(requests), n);
    else if (n > 1 && !json_is_integer(requests) &&
             json_object_set_new(arm, "requests", json_integer(n)) != 0)
        t->no_memory = true;
    if ((batch > 1 || n > 1) && json_is_number(json_object_get(arm, "acceptance")))
        pl_tree_mistake(t, batch_at ? batch_at : map,
                        "%s drafts (acceptance) in a %s, expected one sequence: simulated drafting "
                        "has no batches",
                        label, batch > 1 ? "batch" : "closed loop");
}
