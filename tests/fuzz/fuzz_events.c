/* An event file: .npy with a pickle or a structured dtype, .npz; then its frames. */
#include "fuzz.h"
#include "model/events.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct pl_events e = {0};
    struct pl_images frames = {0};
    struct pl_err err;

    if (pl_events_parse("fuzz.npy", data, size, &e, &err) == PL_OK) {
        (void)!pl_events_check_window(&e, 100, &err);
        if (e.width * e.height < 1 << 20)
            (void)!pl_events_render(&e, 5, &frames, &err);
    }
    pl_images_release(&frames);
    pl_events_release(&e);
    return 0;
}
