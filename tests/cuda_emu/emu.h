/* What the emulation's own files share. */
#ifndef PL_EMU_EMU_H
#define PL_EMU_EMU_H

struct pl_emu_stream {
    int gpu;
    int sms; /* of a green context; 0: all */
};

#endif
