/* The page: one file, no network, no scripts. */
#include "analysis/levers.h"
#include "analysis/report.h"

#include "base/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SVG_MAX (16u << 20)
#define OPEN_ROWS 40 /* longer tables start folded */

static const char style[] =
    ":root{--fg:#1c1e21;--soft:#5b626b;--bg:#fbfbfa;--card:#fff;--line:#dfe1e4;--good:#00694b;"
    "--bad:#a63a00;--goodbg:#dcf1e9;--badbg:#fbe6da;--mutebg:#eceef0;--warnbg:#fff3d6;"
    "--warnfg:#6b4a00;--link:#0059a3}"
    "@media(prefers-color-scheme:dark){:root{--fg:#e8e9eb;--soft:#a3a9b1;--bg:#15171a;"
    "--card:#1c1f23;--line:#33383e;--good:#6fd6b1;--bad:#f5a173;--goodbg:#16372c;--badbg:#43271a;"
    "--mutebg:#2a2e33;--warnbg:#3b2f12;--warnfg:#f0cf86;--link:#7fbdf0}}"
    "*{box-sizing:border-box}"
    "body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.55 system-ui,-apple-system,"
    "'Segoe UI',Roboto,'Noto Sans','DejaVu Sans',sans-serif}"
    "main{max-width:1240px;margin:0 auto;padding:2.2rem 1.4rem 4rem}"
    "h1{font-size:1.9rem;line-height:1.2;margin:0 0 .3rem;letter-spacing:-.01em;"
    "overflow-wrap:anywhere}"
    "h2{font-size:1.22rem;margin:2.6rem 0 .7rem}"
    "a{color:var(--link)}p{margin:.4rem 0}"
    ".sub{color:var(--soft);overflow-wrap:anywhere}"
    ".pill{display:inline-block;padding:.1rem .65rem;border-radius:1rem;font-size:.84rem;"
    "font-weight:600;background:var(--warnbg);color:var(--warnfg);margin:.5rem .4rem 0 0}"
    ".pill.ok{background:var(--goodbg);color:var(--good)}"
    "nav{margin:1rem 0 0;font-size:.92rem;display:flex;flex-wrap:wrap;gap:.2rem 1rem}"
    ".scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);"
    "border-radius:8px}"
    "table{border-collapse:collapse;width:100%;font-size:.86rem;font-variant-numeric:tabular-nums}"
    "caption{text-align:left;font-weight:600;padding:.6rem .6rem .35rem}"
    "th,td{padding:.3rem .6rem;border-top:1px solid var(--line);text-align:left;"
    "vertical-align:top;white-space:nowrap}"
    "thead th{color:var(--soft);font-weight:600;border-top:0;vertical-align:bottom}"
    ".num{text-align:right}.long{white-space:normal;overflow-wrap:anywhere;min-width:15rem}"
    ".missing{color:var(--soft)}"
    "tbody tr:hover{background:var(--mutebg)}"
    ".verdict{font-weight:600;font-size:.8rem;padding:.05rem .5rem;border-radius:.8rem;"
    "background:var(--mutebg);white-space:nowrap}"
    ".faster{background:var(--goodbg);color:var(--good)}"
    ".slower{background:var(--badbg);color:var(--bad)}"
    ".note{color:var(--soft);font-size:.86rem;margin:.45rem .1rem}"
    ".head td{padding:.6rem;vertical-align:middle}.head .big{font-size:1.3rem;font-weight:650}"
    ".head .ci{color:var(--soft);font-size:.82rem;margin-left:.4rem}"
    ".head th[scope=row]{font-weight:600;white-space:normal;overflow-wrap:anywhere;"
    "vertical-align:middle;min-width:5.5rem}"
    "figure{margin:1rem 0;padding:.8rem;background:var(--card);border:1px solid var(--line);"
    "border-radius:8px;overflow-x:auto}"
    "figure svg{display:block;margin:0 auto;max-width:100%;height:auto;color:var(--fg)}"
    "figcaption{color:var(--soft);font-size:.86rem;max-width:60rem;margin:.5rem auto 0}"
    "details{margin:.6rem 0}summary{cursor:pointer;font-weight:600;padding:.3rem 0}"
    "code{font-family:ui-monospace,'SF Mono',Menlo,'DejaVu Sans Mono',monospace;font-size:.86em}"
    "@media print{body{background:#fff}.scroll,figure{border-color:#bbb}}";

/* ---- figures ---- */

/* gnuplot's SVG inside a page: the page's own text colour, a transparent ground, ids that do not
 * meet those of another figure. */
static void inline_svg(const char *svg, const struct pl_figure *f, struct pl_out *o)
{
    char ids[2][40], hrefs[40], urls[40];
    snprintf(ids[0], sizeof ids[0], " id='%s-", f->name);
    snprintf(ids[1], sizeof ids[1], " id=\"%s-", f->name);
    snprintf(hrefs, sizeof hrefs, "href='#%s-", f->name);
    snprintf(urls, sizeof urls, "url(#%s-", f->name);
    const struct {
        const char *from, *to;
    } swaps[] = {{" id='", ids[0]},
                 {" id=\"", ids[1]},
                 {"href='#", hrefs},
                 {"url(#", urls},
                 {"'black'", "'currentColor'"},
                 {"\"black\"", "\"currentColor\""},
                 {"rgb(0,0,0)", "currentColor"},
                 {"rgb( 85,  85,  85)", "#808080"}, /* axes */
                 {"'rgb(200, 200, 200)'", "'#808080' stroke-opacity='0.35'"},
                 {" fill=\"#ffffff\"", " fill=\"none\""}};
    const char *from = strstr(svg, "<svg");

    if (!from)
        return;
    pl_out_text(o, "<svg role=\"img\" aria-label=\"");
    pl_out_esc(o, PL_ESC_HTML, f->title);
    pl_out_text(o, "\"");
    from += strlen("<svg");
    const char *at = from;
    while (*at) {
        size_t i, n = sizeof swaps / sizeof swaps[0];
        for (i = 0; i < n && strncmp(at, swaps[i].from, strlen(swaps[i].from)) != 0;)
            i++;
        if (i == n) {
            at++;
            continue;
        }
        pl_out_add(o, from, (size_t)(at - from));
        pl_out_text(o, swaps[i].to);
        at += strlen(swaps[i].from);
        from = at;
    }
    pl_out_text(o, from);
}

static void figure(const struct pl_report *r, enum pl_figure_id id, const char *dir,
                   struct pl_out *o)
{
    const struct pl_figure *f = &r->figures[id];
    struct pl_buf svg;
    char *path = NULL;

    if (!r->drawn[id] || asprintf(&path, "%s/figures/%s.svg", dir, f->name) < 0)
        return;
    const enum pl_status st = pl_read_file(path, SVG_MAX, &svg, &o->err);
    if (st == PL_OK) {
        pl_out_text(o, "<figure>\n");
        inline_svg(svg.data, f, o);
        pl_out_text(o, "<figcaption>");
        pl_out_esc(o, PL_ESC_HTML, f->caption);
        pl_out_text(o, "</figcaption>\n</figure>\n");
        pl_buf_release(&svg);
    } else if (o->st == PL_OK) {
        o->st = st;
    }
    free(path);
}

/* ---- the top ---- */

static void pill(struct pl_out *o, const char *class, const char *text)
{
    pl_out_f(o, "<span class=\"pill%s%s\">", *class ? " " : "", class);
    pl_out_esc(o, PL_ESC_HTML, text);
    pl_out_text(o, "</span>");
}

static const char *sweep_name(const struct pl_dataset *d)
{
    const char *name = pl_json_get_str(pl_reader_sweep(d->reader), "name", "");
    return *name ? name : "a sweep";
}

/* Text from the file that no table has cleaned. */
static void outside(struct pl_out *o, const char *s)
{
    char *copy = strdup(s);
    if (!copy) {
        o->st = o->st == PL_OK ? pl_fail(&o->err, PL_ENOMEM, "the page") : o->st;
        return;
    }
    pl_text_clean(copy);
    pl_out_esc(o, PL_ESC_HTML, copy);
    free(copy);
}

/* The machine of rank 0; every device is in the tables of workers and speedups. */
static void hardware(const struct pl_dataset *d, struct pl_out *o)
{
    const json_t *p = pl_reader_provenance(d->reader);
    const char *cpu = pl_json_get_str(p, "cpu", "");
    const int64_t cpus = pl_json_get_i64(p, "cpus", 0), ranks = pl_json_get_i64(p, "ranks", 0);
    if (!*cpu)
        return;
    pl_out_text(o, "<p class=\"sub\">begun on ");
    outside(o, pl_json_get_str(p, "host", "?"));
    pl_out_text(o, ": ");
    outside(o, cpu);
    if (cpus > 0)
        pl_out_f(o, ", %" PRId64 " processor%s", cpus, cpus == 1 ? "" : "s");
    if (ranks > 0)
        pl_out_f(o, " · %" PRId64 " rank%s", ranks, ranks == 1 ? "" : "s");
    pl_out_text(o, "</p>\n");
}

static void top(const struct pl_dataset *d, struct pl_out *o)
{
    char text[200];
    const int64_t started = d->n_session_events ? d->sessions[0].unix_ns : 0;

    pl_out_text(o, "<header>\n<h1>");
    outside(o, sweep_name(d));
    pl_out_f(o,
             "</h1>\n<p class=\"sub\">%" PRIu32 " arm%s × %" PRIu32 " context%s × %" PRIu32
             " sample%s × %" PRIu32 " repeat%s",
             d->shape.arms, d->shape.arms == 1 ? "" : "s", d->shape.contexts,
             d->shape.contexts == 1 ? "" : "s", d->shape.samples, d->shape.samples == 1 ? "" : "s",
             d->shape.repeats, d->shape.repeats == 1 ? "" : "s");
    if (started > 0) {
        const time_t s = (time_t)(started / 1000000000);
        struct tm tm;
        if (gmtime_r(&s, &tm) && strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &tm))
            pl_out_f(o, " · begun %s", text);
    }
    pl_out_f(o, " · %s · sweep <code>%.12s</code></p>\n",
             d->prefill_mode ? "prefill only" : "end to end", pl_reader_sha256(d->reader));
    hardware(d, o);
    const uint64_t there = d->done + d->failed;
    snprintf(text, sizeof text, "%s: %" PRIu64 " of %" PRIu64 " trials",
             there < d->rows ? "incomplete" : "complete", there, d->rows);
    pill(o, there < d->rows ? "" : "ok", text);
    if (d->failed) {
        snprintf(text, sizeof text, "%" PRIu64 " failed", d->failed);
        pill(o, "", text);
    }
    pl_dataset_synthetic_text(d, text, sizeof text);
    if (*text)
        pill(o, "", text);
    if (d->prunes)
        pl_out_text(o, "<p class=\"note\">An arm prunes tokens: such results are not "
                       "MLPerf-comparable (its closed rules forbid KV pruning).</p>");
    pl_out_text(o, "\n</header>\n");
}

static void headline_cell(const struct pl_speedup *s, struct pl_out *o)
{
    struct pl_table chip;
    static const struct pl_col col[] = {{"verdict", PL_COL_TEXT, NULL, PL_COL_VERDICT}};

    if (!s || !s->n) {
        pl_out_text(o, "<td class=\"missing\">no pairs</td>");
        return;
    }
    pl_out_f(o, "<td><span class=\"big\">%.3f×</span>", s->ratio.speedup);
    if (isnan(s->ratio.ci_low))
        pl_out_text(o, "<span class=\"ci\">one prompt: no interval</span>");
    else
        pl_out_f(o, "<span class=\"ci\">%.3f – %.3f</span>", s->ratio.ci_low, s->ratio.ci_high);
    pl_table_init(&chip, "chip", "", col, 1);
    pl_table_row(&chip);
    pl_table_text(&chip, pl_verdict_text(s->verdict));
    pl_out_text(o, "<br>");
    if (chip.failed)
        o->st = pl_fail(&o->err, PL_ENOMEM, "the page");
    else
        pl_table_html_value(&chip, 0, 0, o);
    pl_table_release(&chip);
    pl_out_f(o, "<span class=\"ci\">%" PRIu64 " pair%s</span></td>", s->n, s->n == 1 ? "" : "s");
}

static void headline(const struct pl_report *r, struct pl_out *o)
{
    const struct pl_dataset *d = r->data;
    bool any = false;

    pl_out_text(o, "<section id=\"headline\">\n<h2>Headline</h2>\n");
    for (uint32_t a = 0; a < d->shape.arms; a++)
        any |= d->baseline[a] != a;
    if (!any) {
        pl_out_text(o, "<p>No arm has a baseline other than itself, so nothing is compared.</p>\n"
                       "</section>\n");
        return;
    }
    pl_out_f(o,
             "<div class=\"scroll head\"><table><caption>%s: speedup over the baseline, 95 %% "
             "interval, verdict</caption>\n<thead><tr><th scope=\"col\">arm</th>"
             "<th scope=\"col\">baseline</th>",
             d->prefill_mode ? "Prefill" : "End to end");
    for (uint32_t c = 0; c < d->shape.contexts; c++) {
        char text[PL_CONTEXT_TEXT];
        pl_context_text(pl_reader_context(d->reader, c), text);
        pl_out_f(o, "<th scope=\"col\">%s</th>", text);
    }
    pl_out_text(o, "</tr></thead>\n<tbody>\n");
    for (uint32_t a = 0; a < d->shape.arms; a++) {
        if (d->baseline[a] == a)
            continue;
        pl_out_text(o, "<tr><th scope=\"row\">");
        pl_out_esc(o, PL_ESC_HTML, d->arms[a]);
        pl_out_text(o, "</th><td>");
        pl_out_esc(o, PL_ESC_HTML, d->arms[d->baseline[a]]);
        pl_out_text(o, "</td>");
        for (uint32_t c = 0; c < d->shape.contexts; c++)
            headline_cell(pl_speedups_find(&r->speedups, a, c, PL_METRIC_E2E), o);
        pl_out_text(o, "</tr>\n");
    }
    pl_out_text(o, "</tbody></table></div>\n");
    for (size_t i = 0; i < r->tables[PL_TABLE_SPEEDUP].n_notes; i++) {
        pl_out_text(o, "<p class=\"note\">");
        pl_out_esc(o, PL_ESC_HTML, r->tables[PL_TABLE_SPEEDUP].notes[i]);
        pl_out_text(o, "</p>\n");
    }
    pl_out_text(o, "</section>\n");
}

/* ---- sections ---- */

/* A sentence an arm: which lever would pay most. */
static void levers(const struct pl_dataset *d, struct pl_out *o)
{
    struct pl_levers l;
    pl_out_text(o, "<ul class=\"note\">\n");
    for (size_t i = 0; pl_levers_get(d, i, &l); i++) {
        char text[PL_LEVERS_TEXT], context[PL_CONTEXT_TEXT];
        pl_levers_text(&l, text);
        pl_context_text(pl_reader_context(d->reader, l.context), context);
        pl_out_text(o, "<li><b>");
        pl_out_esc(o, PL_ESC_HTML, d->arms[l.arm]);
        pl_out_f(o, "</b>, %s: %s</li>\n", context, text);
    }
    pl_out_text(o, "</ul>\n");
}

static void table(const struct pl_report *r, enum pl_table_id id, struct pl_out *o)
{
    const struct pl_table *t = &r->tables[id];
    if (t->n_rows == 0) {
        for (size_t i = 0; i < t->n_notes && i < 1; i++) {
            pl_out_text(o, "<p class=\"note\">");
            pl_out_esc(o, PL_ESC_HTML, t->notes[i]);
            pl_out_text(o, "</p>\n");
        }
        return;
    }
    pl_out_f(o, "<details%s><summary>", t->n_rows <= OPEN_ROWS ? " open" : "");
    pl_out_esc(o, PL_ESC_HTML, t->title);
    pl_out_f(o, " (%zu row%s)</summary>\n", t->n_rows, t->n_rows == 1 ? "" : "s");
    pl_table_write_html(t, id != PL_TABLE_SPEEDUP, o);
    pl_out_text(o, "</details>\n");
}

static void section(struct pl_out *o, const char *id, const char *title)
{
    pl_out_f(o, "<section id=\"%s\">\n<h2>%s</h2>\n", id, title);
}

void pl_report_html(const struct pl_report *r, const char *dir, struct pl_out *o)
{
    const struct pl_dataset *d = r->data;

    pl_out_text(o, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                   "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                   "<meta name=\"color-scheme\" content=\"light dark\">\n<title>");
    outside(o, sweep_name(d));
    pl_out_f(o, " – paceline report</title>\n<style>%s</style>\n</head>\n<body>\n<main>\n", style);
    top(d, o);
    pl_out_text(o, "<nav aria-label=\"sections\"><a href=\"#headline\">Headline</a>"
                   "<a href=\"#warnings\">Warnings</a><a href=\"#speedup\">Speedup</a>"
                   "<a href=\"#latency\">Latency</a>");
    if (r->tables[PL_TABLE_ENERGY].n_rows)
        pl_out_text(o, "<a href=\"#energy\">Energy</a>");
    if (r->tables[PL_TABLE_KERNELS].n_rows)
        pl_out_text(o, "<a href=\"#kernels\">Kernels</a>");
    if (r->tables[PL_TABLE_ACCEPTANCE].n_rows)
        pl_out_text(o, "<a href=\"#drafting\">Drafting</a>");
    if (r->tables[PL_TABLE_TABLE2].n_rows)
        pl_out_text(o, "<a href=\"#pruning\">Pruning</a>");
    if (r->tables[PL_TABLE_QUALITY].n_rows)
        pl_out_text(o, "<a href=\"#quality\">Quality</a>");
    pl_out_text(o, "<a href=\"#failures\">Failures</a>"
                   "<a href=\"#provenance\">Provenance</a></nav>\n");
    headline(r, o);
    section(o, "warnings", "Warnings");
    if (r->tables[PL_TABLE_WARNINGS].n_rows)
        pl_table_write_html(&r->tables[PL_TABLE_WARNINGS], true, o);
    else
        pl_out_text(o, "<p class=\"note\">none</p>\n");
    pl_out_text(o, "</section>\n");
    section(o, "speedup", "Speedup");
    figure(r, PL_FIGURE_SPEEDUP, dir, o);
    table(r, PL_TABLE_SPEEDUP, o); /* its notes stand under the headline */
    if (d->n_devices > 1)
        table(r, PL_TABLE_SPEEDUP_DEVICES, o);
    pl_out_text(o, "</section>\n");
    section(o, "latency", "Latency and memory");
    figure(r, PL_FIGURE_LATENCY, dir, o);
    figure(r, PL_FIGURE_PERFORMANCE, dir, o);
    table(r, PL_TABLE_LATENCY, o);
    table(r, PL_TABLE_OUTLIERS, o);
    table(r, PL_TABLE_MEMORY, o);
    table(r, PL_TABLE_KV, o);
    figure(r, PL_FIGURE_MEMORY_LATENCY, dir, o);
    figure(r, PL_FIGURE_CONTEXT_SCALING, dir, o);
    table(r, PL_TABLE_CONTEXT_SCALING, o);
    pl_out_text(o, "</section>\n");
    if (r->tables[PL_TABLE_ENERGY].n_rows) {
        section(o, "energy", "Energy");
        table(r, PL_TABLE_ENERGY, o);
        pl_out_text(o, "</section>\n");
    }
    if (r->tables[PL_TABLE_KERNELS].n_rows) {
        section(o, "kernels", "Kernels");
        table(r, PL_TABLE_KERNELS, o);
        pl_out_text(o, "</section>\n");
    }
    if (r->tables[PL_TABLE_ACCEPTANCE].n_rows) {
        section(o, "drafting", "Drafting");
        figure(r, PL_FIGURE_DRAFT_SPEEDUP, dir, o);
        levers(d, o);
        table(r, PL_TABLE_SPEEDUP_ANALYSIS, o);
        figure(r, PL_FIGURE_LANES, dir, o);
        figure(r, PL_FIGURE_TIMELINE, dir, o);
        figure(r, PL_FIGURE_ACCEPTANCE, dir, o);
        table(r, PL_TABLE_ACCEPTANCE, o);
        figure(r, PL_FIGURE_POSITION, dir, o);
        figure(r, PL_FIGURE_VERIFY_COST, dir, o);
        table(r, PL_TABLE_VERIFY_COST, o);
        figure(r, PL_FIGURE_ACCEPT_TO_SPEEDUP, dir, o);
        table(r, PL_TABLE_ACCEPT_TO_SPEEDUP, o);
        pl_out_text(o, "</section>\n");
    }
    if (r->tables[PL_TABLE_TABLE2].n_rows) {
        section(o, "pruning", "Pruning");
        figure(r, PL_FIGURE_LENGTH, dir, o);
        table(r, PL_TABLE_TABLE2, o);
        pl_out_text(o, "</section>\n");
    }
    if (r->tables[PL_TABLE_QUALITY].n_rows) {
        section(o, "quality", "Quality");
        figure(r, PL_FIGURE_PARETO, dir, o);
        table(r, PL_TABLE_QUALITY, o);
        pl_out_text(o, "</section>\n");
    }
    section(o, "failures", "Failures");
    figure(r, PL_FIGURE_FAILURES, dir, o);
    table(r, PL_TABLE_FAILURES, o);
    pl_out_text(o, "</section>\n");
    section(o, "provenance", "Provenance");
    table(r, PL_TABLE_PROVENANCE, o);
    pl_out_text(o, "</section>\n</main>\n</body>\n</html>\n");
}
