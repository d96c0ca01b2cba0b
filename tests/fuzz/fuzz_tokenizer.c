/* A tokenizer file (the first byte says of which format), then a text through it and back. */
#include "fuzz.h"
#include "model/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum pl_tokenizer_format formats[] = {PL_TOKENIZER_MODEL, PL_TOKENIZER_JSON,
                                                       PL_TOKENIZER_VOCAB};
    static const char text[] =
        "The \xc3\xa9t\xc3\xa9 of 1999,\n\t  \xe4\xb8\xad\xe6\x96\x87 <s> \xff!";
    struct pl_tokenizer *t = NULL;
    struct pl_ids ids = {0};
    struct pl_buf out;
    struct pl_err err;
    if (size < 1 || pl_tokenizer_load_bytes("fuzz", formats[data[0] % 3], data + 1, size - 1, &t,
                                            &err) != PL_OK)
        return 0;
    pl_buf_init(&out, 1u << 20);
    if (pl_tokenizer_encode(t, text, sizeof text - 1, true, &ids, &err) == PL_OK)
        (void)!pl_tokenizer_decode(t, ids.ids, ids.n, &out, &err);
    pl_ids_release(&ids);
    pl_buf_release(&out);
    pl_tokenizer_free(t);
    return 0;
}
