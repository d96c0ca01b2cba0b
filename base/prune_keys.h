/*
 * The keys of an arm's `prune`, once: the sweep's checks (orchestrator/) and the pruner's own
 * (pruning/) are made of this table.
 */
#ifndef PL_BASE_PRUNE_KEYS_H
#define PL_BASE_PRUNE_KEYS_H

#define PL_PRUNE_METHODS "sdtp|random|fastv|lazyllm|h2o|snapkv|pyramidkv|streamingllm|tova|prumerge"
#define PL_PRUNE_STAGED "sdtp|random|fastv|lazyllm" /* those that drop tokens between blocks */

/* X(name, type, min, max, choices, default as JSON, default in words, unit, methods whose key it
 * is, help). Types: CHOICE, PATH, INT, INTS, U64, BOOL, FLOAT, FLOATS (a number or a list). A
 * default of NULL: required; "null": in words. */
#define PL_PRUNE_KEYS(X)                                                                           \
    X(method, CHOICE, 0, 0, PL_PRUNE_METHODS, NULL, NULL, "", PL_PRUNE_METHODS,                    \
      "who chooses the tokens")                                                                    \
    X(keep, FLOATS, 1e-6, 1, NULL, "null",                                                         \
      "required, unless there is total_keep; prumerge: as many as stand out", "fraction",          \
      PL_PRUNE_METHODS,                                                                            \
      "of what is left, at each stage (a list: one for each); of the KV rows of each layer; of a " \
      "picture's patches, by the class row's attention (prumerge); 1 "                             \
      "switches off")                                                                              \
    X(total_keep, FLOAT, 1e-6, 1, NULL, "null", "keep's", "fraction", PL_PRUNE_STAGED,             \
      "final length / prompt, in place of keep: solved for the stages")                            \
    X(layers, INTS, 0, 65535, NULL, "null", "sdtp: all in the weights; fastv: 1; else required",   \
      "0-based", PL_PRUNE_STAGED, "a stage stands after each of these blocks")                     \
    X(weights, PATH, 0, 0, NULL, "null", "required for sdtp", "path", "sdtp",                      \
      "scorers: safetensors with {layer}.scorer.{0,2}.{weight,bias}")                              \
    X(positions, CHOICE, 0, 0, "original|renumbered", "null", "original", "", PL_PRUNE_STAGED,     \
      "what RoPE sees of survivors: their place in the prompt, or 0 … k−1 after each stage")       \
    X(tokens, CHOICE, 0, 0, "all|visual", "null", "visual for fastv, else all", "",                \
      PL_PRUNE_STAGED, "which tokens may go")                                                      \
    X(head, INT, 0, 1048576, NULL, "null", "4", "tokens", PL_PRUNE_STAGED "|streamingllm",         \
      "first tokens that are always kept (streamingllm: the sinks)")                               \
    X(tail, FLOAT, 0, 1, NULL, "null", "0.1", "fraction", PL_PRUNE_STAGED,                         \
      "last tokens that are always kept, of what is left")                                         \
    X(tail_min, INT, 1, 1048576, NULL, "null", "16", "tokens", PL_PRUNE_STAGED,                    \
      "and at least so many")                                                                      \
    X(window, INT, 1, 65536, NULL, "null", "32", "tokens", "snapkv|pyramidkv",                     \
      "last tokens: their attention is asked, and they are kept")                                  \
    X(kernel, INT, 1, 1023, NULL, "null", "5", "tokens", "snapkv|pyramidkv",                       \
      "width of the average over neighbours, odd")                                                 \
    X(beta, INT, 1, 1048576, NULL, "null", "20", "", "pyramidkv",                                  \
      "the larger, the more lower layers keep beside upper ones")                                  \
    X(recent, FLOAT, 0, 1, NULL, "null", "0.5", "fraction", "h2o",                                 \
      "of the rows that are kept: the last ones, whatever their attention")                        \
    X(average, BOOL, 0, 0, NULL, "null", "false", "", "h2o",                                       \
      "rank by the mean attention of the rows that could see a row, not by its sum")               \
    X(plus, BOOL, 0, 0, NULL, "null", "false", "", "prumerge",                                     \
      "PruMerge+: patches at even steps stay, too")                                                \
    X(neighbours, INT, 0, 65536, NULL, "null", "32", "patches", "prumerge",                        \
      "merged into each patch that stays, by the likeness of their keys")                          \
    X(seed, U64, 0, 0, NULL, "null", "the sweep's", "", "random", "of the draws")

#endif
