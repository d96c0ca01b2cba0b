/* Running gnuplot. */
#include "analysis/figure.h"

#include "base/clock.h"
#include "base/proc.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SCRIPT_MAX (8u << 20)
#define DRAW_NS (60 * PL_NS_PER_S)
#define NAME_CHARS 28
#define CHAR_PX 7

const char *pl_figure_colour(size_t i)
{
    static const char *const palette[] = {"#0072B2", "#E69F00", "#009E73", "#CC79A7",
                                          "#56B4E9", "#D55E00", "#8C8C8C"};
    return palette[i % (sizeof palette / sizeof palette[0])];
}

/* Cuts at a whole character. */
static void shorten(const char *name, char *out, size_t size)
{
    size_t n = 0, chars = 0;
    const size_t all = pl_text_width(name);
    const size_t keep = all > NAME_CHARS ? NAME_CHARS - 1 : all;

    while (name[n] && n + 8 < size) {
        if (((unsigned char)name[n] & 0xc0) != 0x80 && chars++ == keep)
            break;
        n++;
    }
    memcpy(out, name, n);
    snprintf(out + n, size - n, "%s", all > keep ? "…" : "");
}

void pl_figure_name(struct pl_out *o, const char *name)
{
    char text[4 * NAME_CHARS + 8];
    shorten(name, text, sizeof text);
    pl_out_esc(o, PL_ESC_GNUPLOT, text);
}

int pl_figure_name_px(const char *name)
{
    const size_t n = pl_text_width(name);
    return (int)(n > NAME_CHARS ? NAME_CHARS : n) * CHAR_PX;
}

enum pl_status pl_figures_make(const struct pl_dataset *d, const struct pl_speedups *s,
                               struct pl_figure *figures, struct pl_err *err)
{
    static const char *const names[][2] = {
        [PL_FIGURE_SPEEDUP] = {"speedup", "Speedup over the baseline, with 95 % intervals"},
        [PL_FIGURE_LATENCY] = {"latency", "Mean time of a trial, by phase"},
        [PL_FIGURE_FAILURES] = {"failures", "Failed trials, by reason"}};
    for (int i = 0; i < PL_FIGURE_COUNT; i++) {
        figures[i] = (struct pl_figure){.name = names[i][0], .title = names[i][1]};
        pl_out_init(&figures[i].body, SCRIPT_MAX / 2);
    }
    pl_figure_speedup(d, s, &figures[PL_FIGURE_SPEEDUP]);
    pl_figure_latency(d, &figures[PL_FIGURE_LATENCY]);
    pl_figure_failures(d, &figures[PL_FIGURE_FAILURES]);
    for (int i = 0; i < PL_FIGURE_COUNT; i++) {
        const enum pl_status st = pl_out_status(&figures[i].body, err);
        if (st != PL_OK)
            return st;
    }
    return PL_OK;
}

void pl_figures_release(struct pl_figure *figures)
{
    for (int i = 0; i < PL_FIGURE_COUNT; i++)
        pl_out_release(&figures[i].body);
}

static enum pl_status run(const struct pl_out *script, struct pl_err *err)
{
    static const char *const argv[] = {"gnuplot", "-", NULL};
    struct pl_child child;
    const int64_t until = pl_now_ns() + DRAW_NS;
    enum pl_status st = pl_child_start(&child, argv, SCRIPT_MAX, err);

    if (st != PL_OK)
        return st;
    st = pl_child_send(&child, script->buf.data, script->buf.len, err);
    while (st == PL_OK && !child.exited && pl_now_ns() < until) {
        pl_child_pump(&child, PL_NS_PER_S / 10, -1);
        while (pl_child_line(&child, NULL, NULL))
            ; /* gnuplot has nothing to say on stdout */
        pl_child_reap(&child);
    }
    if (st == PL_OK && !child.exited)
        st = pl_fail(err, PL_ETIMEOUT, "gnuplot took more than a minute");
    else if (child.exited && (!WIFEXITED(child.status) || WEXITSTATUS(child.status) != 0))
        st = pl_fail(err, PL_EIO, "gnuplot: %s", child.tail);
    if (!pl_child_release(&child) && st == PL_OK)
        st = pl_fail(err, PL_EIO, "gnuplot did not end");
    return st;
}

static enum pl_status draw(const struct pl_figure *f, const char *dir, bool png, struct pl_err *err)
{
    const char *ext = png ? "png" : "svg";
    char *path = NULL, *temp = NULL;
    struct pl_out o;
    enum pl_status st = PL_OK;

    pl_out_init(&o, SCRIPT_MAX);
    if (asprintf(&path, "%s/%s.%s", dir, f->name, ext) < 0)
        path = NULL;
    if (asprintf(&temp, "%s/.%s.%s.%ld", dir, f->name, ext, (long)getpid()) < 0)
        temp = NULL;
    if (!path || !temp || strpbrk(dir, "\n\t")) {
        st = pl_fail(err, PL_EIO, "%s: figures cannot be written there", dir);
        goto out;
    }
    const char *font = "sans-serif,12";
    if (png)
        pl_out_f(&o,
                 "set terminal pngcairo noenhanced size %d,%d font '%s' fontscale 2 linewidth 2 "
                 "pointscale 2 background '#ffffff'\n",
                 2 * f->width, 2 * f->height, font);
    else
        pl_out_f(&o,
                 "set terminal svg noenhanced size %d,%d font '%s' name '%s' "
                 "background '#ffffff'\n",
                 f->width, f->height, font, f->name);
    pl_out_text(&o, "set encoding utf8\nset output ");
    pl_out_esc(&o, PL_ESC_GNUPLOT, temp);
    pl_out_text(&o, "\n");
    pl_out_add(&o, f->body.buf.data, f->body.buf.len);
    pl_out_text(&o, "unset output\nexit\n");
    st = pl_out_status(&o, err);
    if (st == PL_OK)
        st = run(&o, err);
    if (st == PL_OK && rename(temp, path) != 0)
        st = pl_fail_errno(err, errno, "%s", path);
    if (st != PL_OK)
        unlink(temp);
out:
    pl_out_release(&o);
    free(path);
    free(temp);
    return st;
}

enum pl_status pl_figure_draw(const struct pl_figure *f, const char *dir, struct pl_err *err)
{
    const enum pl_status st = draw(f, dir, false, err);
    return st == PL_OK ? draw(f, dir, true, err) : st;
}
