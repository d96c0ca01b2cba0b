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
#define HEIGHT_MAX 16000 /* cairo draws 32767 px, the PNG has two to one */
#define NAME_CHARS 28
#define CHAR_PX 8
#define WIDE_PX 14

static const char *const palette[] = {"#0072B2", "#E69F00", "#009E73", "#CC79A7",
                                      "#56B4E9", "#D55E00", "#8C8C8C"};
#define N_PALETTE (sizeof palette / sizeof palette[0])

const char *pl_figure_colour(size_t i)
{
    return palette[i % N_PALETTE];
}

int pl_figure_point(size_t i)
{
    static const int points[] = {7, 5, 9, 11, 13}; /* circle, square, triangles, diamond: filled */
    return points[i / N_PALETTE % (sizeof points / sizeof points[0])];
}

const struct pl_legend *pl_figure_phase(enum pl_metric m)
{
    static const struct pl_legend phases[PL_FIGURE_PHASES] = {
        [PL_METRIC_TOKENIZE] = {"tokenize", "#A0A0A0", 0},
        [PL_METRIC_VISION] = {"vision", "#CC79A7", 0},
        [PL_METRIC_ENCODE] = {"encode", "#009E73", 0},
        [PL_METRIC_PREFILL] = {"prefill", "#0072B2", 0},
        [PL_METRIC_DRAFT] = {"draft", "#56B4E9", 0},
        [PL_METRIC_ADAPTER] = {"adapter", "#6B4C9A", 0},
        [PL_METRIC_VERIFY] = {"verify", "#D55E00", 0},
        [PL_METRIC_DECODE] = {"decode", "#E69F00", 0},
        [PL_METRIC_WAIT] = {"wait", "#D0D0D0", 0},
        [PL_METRIC_D_VISION] = {"drafter's vision", "#E8C3D8", 0},
        [PL_METRIC_D_PREFILL] = {"drafter's prefill", "#8FBBDC", 0},
        [PL_METRIC_D_DECODE] = {"drafter's decode", "#F5D48F", 0},
        [PL_METRIC_D_WAIT] = {"drafter waits", "#E8E8E8", 0}};
    return &phases[m];
}

/* Cuts at a whole character. Beyond the basic plane are emoji, which colour fonts draw at a size of
 * their own: they become boxes. */
void pl_figure_shorten(const char *name, char *out, size_t size)
{
    size_t at = 0, chars = 0;
    const size_t all = pl_text_width(name), keep = all > NAME_CHARS ? NAME_CHARS - 1 : all;

    while (*name && chars++ < keep && at + 8 < size) {
        const bool beyond = ((unsigned char)*name & 0xf8) == 0xf0;
        if (beyond)
            at += (size_t)snprintf(out + at, size - at, "□");
        else
            out[at++] = *name;
        for (name++; ((unsigned char)*name & 0xc0) == 0x80; name++)
            if (!beyond)
                out[at++] = *name;
    }
    snprintf(out + at, size - at, "%s", all > keep ? "…" : "");
}

void pl_figure_name(struct pl_out *o, const char *name)
{
    char text[4 * NAME_CHARS + 8];
    pl_figure_shorten(name, text, sizeof text);
    pl_out_esc(o, PL_ESC_GNUPLOT, text);
}

static int text_px(const char *s)
{
    int px = 0;
    for (; *s; s++) {
        const unsigned char c = (unsigned char)*s;
        if ((c & 0xc0) != 0x80)
            px += c >= 0xe3 ? WIDE_PX : CHAR_PX; /* from U+3000 on */
    }
    return px;
}

int pl_figure_name_px(const char *name)
{
    char text[4 * NAME_CHARS + 8];
    pl_figure_shorten(name, text, sizeof text);
    return text_px(text);
}

void pl_figure_title(const struct pl_dataset *d, const char *text, int height, struct pl_out *o)
{
    pl_out_f(o, "set label 1 '%s%s%s' at screen 0.5, screen %.6f center\n", text,
             d->synthetic ? " · synthetic" : "",
             d->done + d->failed < d->rows ? " · incomplete" : "", 1 - 18.0 / height);
}

static int entry_px(const struct pl_legend *e)
{
    return text_px(e->text) + 42;
}

/* How many entries from the first on fit in a row, at least one. */
static size_t row_fits(const struct pl_legend *entries, size_t n, int width, int *px)
{
    size_t fits = 0;
    *px = 0;
    while (fits < n && (fits == 0 || *px + entry_px(&entries[fits]) <= width - 40))
        *px += entry_px(&entries[fits++]);
    return fits;
}

int pl_figure_legend_rows(const struct pl_legend *entries, size_t n, int width)
{
    int rows = 0, px;
    for (size_t at = 0; at < n; rows++)
        at += row_fits(entries + at, n - at, width, &px);
    return rows;
}

void pl_figure_legend(const struct pl_legend *entries, size_t n, int point, int top_px, int width,
                      int height, struct pl_out *o)
{
    int y = top_px, px;
    for (size_t at = 0, fits; at < n; at += fits, y += PL_LEGEND_ROW_PX) {
        fits = row_fits(entries + at, n - at, width, &px);
        int x = (width - px) / 2 + 14;
        for (size_t i = at; i < at + fits; i++) {
            pl_out_f(o, "set label %zu ", 100 + i);
            pl_out_esc(o, PL_ESC_GNUPLOT, entries[i].text);
            pl_out_f(o,
                     " at screen %.6f, screen %.6f left offset 1,0 point pt %d ps 1.2 lc rgb "
                     "'%s'\n",
                     (double)x / width, 1 - (double)y / height,
                     entries[i].point ? entries[i].point : point, entries[i].colour);
            x += entry_px(&entries[i]);
        }
    }
}

enum pl_status pl_figures_make(const struct pl_dataset *d, const struct pl_speedups *s,
                               const struct pl_scaling *scaling, struct pl_figure *figures,
                               struct pl_err *err)
{
    static const char *const names[][3] = {
        [PL_FIGURE_SPEEDUP] = {"speedup", "Speedup over the baseline, with 95 % intervals",
                               "Ratio of totals over paired trials. A filled point's interval "
                               "excludes 1; the band is the noise that counts as the same."},
        [PL_FIGURE_LATENCY] = {"latency", "Mean time of a trial, by phase",
                               "Means over the finished trials of an arm; what the drafter does "
                               "in a lane of its own is not in it."},
        [PL_FIGURE_PERFORMANCE] = {"performance", "Tokens/s over a whole trial",
                                   "Generated tokens over the whole trial's time, the prompt's "
                                   "included; whiskers: 95 % intervals."},
        [PL_FIGURE_CONTEXT_SCALING] = {"context_scaling", "Latency and memory over context",
                                       "Bands: 95 % interval of the mean latency; least to most "
                                       "of the device's peak."},
        [PL_FIGURE_MEMORY_LATENCY] = {"memory_latency", "Memory against latency",
                                      "Weights, KV and workspace against the mean time of a "
                                      "trial, a curve an arm over its contexts."},
        [PL_FIGURE_LENGTH] = {"speedup_length", "Speedup over length, by what is pruned",
                              "Ratio of totals over paired trials; bands: 95 % intervals; dashed: "
                              "what the counted operations and bytes alone would allow."},
        [PL_FIGURE_PARETO] = {"quality_kv", "Quality against KV kept",
                              "Further left is less KV cache; whiskers: 95 % intervals."},
        [PL_FIGURE_FAILURES] = {"failures", "Failed trials, by reason",
                                "Trials that were given up, all contexts together."},
        [PL_FIGURE_DRAFT_SPEEDUP] = {"drafting_speedup", "Speedup of drafting arms",
                                     "End to end, ratio of totals over paired trials. The "
                                     "baseline has all the cores; the lanes of a drafting arm "
                                     "share the same ones."},
        [PL_FIGURE_LANES] = {"drafting_lanes", "Mean time of a drafting trial, by phase",
                             "Upper bar: the verifier's lane, from the trial's begin to its last "
                             "token. Lower bar: what the drafter did in its own lane, beside the "
                             "verifier's prefill or while that drafted or waited."},
        [PL_FIGURE_ACCEPTANCE] = {"acceptance", "Accepted of what was drafted",
                                  "Accepted over drafted tokens of all rounds; whiskers: 95 % "
                                  "intervals over prompts."},
        [PL_FIGURE_POSITION] = {"acceptance_position", "Acceptance by position",
                                "Of all rounds, the part that accepted the token at this "
                                "position of the draft; shorter drafts count as not accepted."},
        [PL_FIGURE_VERIFY_COST] = {"verify_cost", "A verification in decode steps",
                                   "Mean time of a verification, over all arms that draft for a "
                                   "baseline, in decode steps of that baseline. Dotted: ideal, a "
                                   "verification for the price of one step; and no gain, as many "
                                   "steps as tokens. Whiskers: 95 % intervals of the mean; hollow: "
                                   "fewer than 5 rounds."},
        [PL_FIGURE_ACCEPT_TO_SPEEDUP] =
            {"accept_to_speedup", "What acceptance would buy",
             "Points: measured, with 95 % intervals. Lines: the model of the table, with "
             "the measured price of a verification; dashed: with a "
             "verification for the price of one step. Drafting is "
             "free in the model."},
        [PL_FIGURE_TIMELINE] = {"timeline", "What both lanes did when",
                                "The first samples of each drafting arm, from the lanes' own "
                                "clocks: what the drafter makes while the verifier is in its "
                                "prefill is free. Tokenising and vision of the verifier come "
                                "before the first span."}};
    for (int i = 0; i < PL_FIGURE_COUNT; i++) {
        figures[i] =
            (struct pl_figure){.name = names[i][0], .title = names[i][1], .caption = names[i][2]};
        pl_out_init(&figures[i].body, SCRIPT_MAX / 2);
    }
    pl_figure_speedup(d, s, &figures[PL_FIGURE_SPEEDUP]);
    pl_figure_latency(d, &figures[PL_FIGURE_LATENCY]);
    pl_figure_performance(d, scaling, &figures[PL_FIGURE_PERFORMANCE]);
    pl_figure_context_scaling(d, scaling, &figures[PL_FIGURE_CONTEXT_SCALING]);
    pl_figure_memory_latency(d, scaling, &figures[PL_FIGURE_MEMORY_LATENCY]);
    pl_figure_length(d, s, &figures[PL_FIGURE_LENGTH]);
    pl_figure_pareto(d, &figures[PL_FIGURE_PARETO]);
    pl_figure_failures(d, &figures[PL_FIGURE_FAILURES]);
    pl_figure_draft_speedup(d, s, &figures[PL_FIGURE_DRAFT_SPEEDUP]);
    pl_figure_lanes(d, &figures[PL_FIGURE_LANES]);
    pl_figure_acceptance(d, &figures[PL_FIGURE_ACCEPTANCE]);
    pl_figure_position(d, &figures[PL_FIGURE_POSITION]);
    pl_figure_verify_cost(d, &figures[PL_FIGURE_VERIFY_COST]);
    pl_figure_accept_to_speedup(d, s, &figures[PL_FIGURE_ACCEPT_TO_SPEEDUP]);
    pl_figure_timeline(d, &figures[PL_FIGURE_TIMELINE]);
    for (int i = 0; i < PL_FIGURE_COUNT; i++) {
        const enum pl_status st = pl_out_status(&figures[i].body, err);
        if (st != PL_OK)
            return st;
        figures[i].too_large = figures[i].height > HEIGHT_MAX;
        figures[i].wanted = figures[i].height > 0 && !figures[i].too_large;
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

/* A browser has glyphs for everything; here, ones that no installed font has come out as large as
 * the picture. From U+2E80 on (CJK and beyond) they become boxes. */
static void plain_glyphs(const struct pl_out *body, struct pl_out *o)
{
    const char *from = body->buf.data, *at = from, *end = from + body->buf.len;
    while (at < end) {
        const unsigned char *c = (const unsigned char *)at;
        if (c[0] < 0xe2 || (c[0] == 0xe2 && c[1] < 0xba)) {
            at++;
            continue;
        }
        pl_out_add(o, from, (size_t)(at - from));
        pl_out_text(o, "□");
        for (at++; at < end && ((unsigned char)*at & 0xc0) == 0x80;)
            at++;
        from = at;
    }
    pl_out_add(o, from, (size_t)(end - from));
}

/* gnuplot says nothing when a disk is full: the end of the file does. */
static enum pl_status whole(const char *temp, bool png, const char *path, struct pl_err *err)
{
    const char *end = png ? "IEND\xae\x42\x60\x82" : "</svg>";
    char last[16] = "";
    FILE *f = fopen(temp, "rbe");
    size_t n = 0;

    if (f && fseek(f, -(long)sizeof last, SEEK_END) == 0)
        n = fread(last, 1, sizeof last, f);
    if (f)
        (void)fclose(f);
    if (memmem(last, n, end, strlen(end)))
        return PL_OK;
    return pl_fail(err, PL_EIO, "%s: gnuplot could not write it whole (is the disk full?)", path);
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
        st = pl_fail(err, PL_EIO, "%s: gnuplot takes no path with a tab or a line break", dir);
        goto out;
    }
    if (png)
        pl_out_f(&o,
                 "set terminal pngcairo noenhanced size %d,%d font 'sans-serif,9' fontscale 2 "
                 "linewidth 2 "
                 "pointscale 2 background '#ffffff'\n",
                 2 * f->width, 2 * f->height); /* 9 pt is 12 px */
    else
        pl_out_f(&o,
                 "set terminal svg noenhanced size %d,%d font 'sans-serif,12' name '%s' "
                 "background '#ffffff'\n",
                 f->width, f->height, f->name);
    pl_out_text(&o, "set encoding utf8\nset output ");
    pl_out_esc(&o, PL_ESC_GNUPLOT, temp);
    pl_out_text(&o, "\n");
    if (png)
        plain_glyphs(&f->body, &o);
    else
        pl_out_add(&o, f->body.buf.data, f->body.buf.len);
    pl_out_text(&o, "unset output\nexit\n");
    st = pl_out_status(&o, err);
    if (st == PL_OK)
        st = run(&o, err);
    if (st == PL_OK)
        st = whole(temp, png, path, err);
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
