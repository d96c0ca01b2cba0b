/* An arm's `prune` as a runner gets it: any JSON is taken, or refused with one text. Scorers are
 * not opened (safetensors have a target of their own). */
#include "base/json.h"
#include "fuzz.h"
#include "pruning/pruner.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pl_arch a;
    struct pl_err err = {""};
    json_t *o = NULL;
    memset(&a, 0, sizeof a);
    a.layers = 8;
    a.hidden = 16;
    a.heads = 4;
    a.kv_heads = 2;
    a.head_dim = 4;
    a.vocab = 32;
    a.max_positions = 128;
    a.causal = true;
    if (pl_json_parse("fuzz", (const char *)data, size, &o, &err) != PL_OK)
        return 0;
    if (json_is_string(json_object_get(o, "weights")))
        json_object_set_new(o, "weights", json_string("/nonexistent"));
    err.text[0] = '\0';
    const enum pl_status st = pl_prune_check(o, &a, &err);
    if ((st != PL_OK) != (err.text[0] != '\0'))
        abort();
    json_decref(o);
    return 0;
}
