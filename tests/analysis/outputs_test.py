"""outputs_test.py SCENARIO: writes results files of every known kind and their reports, then reads what was written with other programs' parsers:
JSON and CSV hold the same numbers under the same names, the page is whole, well nested, offline and without scripts, figures are SVG and PNG."""
import csv
import html.parser
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

COLUMNS = {
    "speedup": "arm context baseline metric n baseline_ms arm_ms speedup ci_low ci_high verdict quality_metric quality quality_baseline devices",
    "latency": "arm context phase n mean sd p50 p95 p99 p95_needs p99_needs unit limit_pct",
    "context_scaling": "exp_id model arch context_length latency_ms throughput max_memory_gb n sd ci_low ci_high synthetic",
    "failures": "arm context reason failed",
    "warnings": "kind arm context text",
    "provenance": "key value",
}
TABLES = {*COLUMNS, "speedup_devices", "memory", "kv", "energy", "kernels", "outliers", "acceptance", "speedup_analysis", "accept_to_speedup", "verify_cost", "table2", "quality"}
VOID = {"meta", "br", "link", "img", "hr"}


class Page(html.parser.HTMLParser):
    """Fails on tags that do not nest, on scripts, and on anything that would be fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.tags, self.text = [], set(), {}, []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        assert tag not in ("script", "iframe", "img", "object"), tag
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            if name == "id":
                assert value not in self.ids, f"id {value} twice"
                self.ids.add(value)
            if name in ("src", "href", "xlink:href"):
                assert value.startswith("#"), (tag, value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        self.text.append(data)


def refuse_constants(name):
    raise ValueError(name)


def read_tables(folder):
    """JSON and CSV of each table say the same; returns the rows by table."""
    found = {}
    for name in sorted({f.split(".")[0] for f in os.listdir(folder)}):
        with open(os.path.join(folder, name + ".json"), encoding="utf-8") as f:
            data = json.load(f, parse_constant=refuse_constants)
        assert list(data) == ["table", "rows"] and data["table"] == name, data
        with open(os.path.join(folder, name + ".csv"), encoding="utf-8", newline="") as f:
            header, *lines = list(csv.reader(f))
        assert len(lines) == len(data["rows"]), name
        for line, row in zip(lines, data["rows"]):
            assert list(row) == header and len(line) == len(header), (name, header)
            for text, value in zip(line, row.values()):
                if value is None:
                    assert text == "", (name, row)
                elif isinstance(value, list):
                    assert value and [float(x) for x in text.split(" ")] == value, (name, text, value)
                elif isinstance(value, bool):
                    assert text == str(value).lower()
                elif isinstance(value, str):
                    assert text == value, (text, value)
                else:
                    assert float(text) == value and math.isfinite(value), (text, value)
        for want, got in zip(COLUMNS.get(name, "").split(), header):
            assert want == got, (name, header)
        with open(os.path.join(folder, name + ".md"), encoding="utf-8") as f:
            table = [line for line in f.read().split("\n") if line.startswith("|")]
        cells = [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table]
        assert len(table) == len(lines) + 2 and set(cells) == {len(header) + 1}, (name, cells)
        with open(os.path.join(folder, name + ".tex"), encoding="utf-8") as f:
            body = f.read()
        assert body.count("\\\\\n") == len(lines) + 1, name
        found[name] = data["rows"]
    assert set(found) == TABLES, set(found) ^ TABLES
    return found


def read_figures(folder):
    names = sorted(os.listdir(folder))
    for name in names:
        path = os.path.join(folder, name)
        if name.endswith(".svg"):
            root = xml.etree.ElementTree.parse(path).getroot()
            assert root.tag == "{http://www.w3.org/2000/svg}svg", root.tag
        else:
            with open(path, "rb") as f:
                head = f.read(24)
            width, height = struct.unpack(">II", head[16:24])
            assert head[:8] == b"\x89PNG\r\n\x1a\n" and width > 600 and height > 150, (name, width, height)
    return {n.split(".")[0] for n in names}


def read_page(path):
    with open(path, encoding="utf-8") as f:
        text = f.read()
    page = Page()
    page.feed(text)
    page.close()
    assert not page.open, page.open
    assert not re.search(r"url\(\s*['\"]?(?!#)", text) and "@import" not in text
    return page, " ".join(page.text)


def main():
    scenario, gnuplot = sys.argv[1], shutil.which("gnuplot")
    bars, both = {"latency", "performance"}, {"speedup", "latency", "performance"}
    want = {"plain": both | {"context_scaling"}, "scaling": both | {"context_scaling", "memory_latency"}, "hostile": both | {"failures"},
            "empty": set(), "partial": both, "failed": {"failures"}, "one": bars, "single": both, "foreign": both, "prefill": both,
            "drafts": both | {"memory_latency", "speedup_length"},
            "pruned": both | {"context_scaling", "memory_latency", "speedup_length"}}
    with tempfile.TemporaryDirectory(prefix="paceline-report-") as top:
        for name, figures in want.items():
            out = os.path.join(top, "with space and 'quote'", name)
            os.makedirs(os.path.dirname(out), exist_ok=True)
            for _ in range(2 if name == "hostile" else 1):  # over an existing report
                subprocess.run([scenario, name, os.path.join(top, name + ".h5"), out], check=True)
            tables = read_tables(os.path.join(out, "tables"))
            kinds = {r["kind"] for r in tables["warnings"]}
            assert read_figures(os.path.join(out, "figures")) == (figures if gnuplot else set()), name
            assert ("figures" in kinds) == (not gnuplot and bool(figures)), kinds
            page, text = read_page(os.path.join(out, "report.html"))
            assert page.tags.get("svg", 0) == page.tags.get("figcaption", 0) == (len(figures) if gnuplot else 0), page.tags
            assert not [n for n in os.listdir(os.path.join(out, "figures")) if n.startswith(".")]
            synthetic = name not in ("plain", "scaling", "partial", "failed", "one", "single", "pruned")
            labelled = synthetic and name != "empty"
            assert ("synthetic" in kinds) == labelled and ("synthetic: " in text) == labelled, (name, kinds)
            for table in ("speedup", "latency"):
                assert all(r["synthetic"] == synthetic for r in tables[table] if labelled), name
                with open(os.path.join(out, "tables", table + ".md"), encoding="utf-8") as f:
                    assert ("synthetic: " in f.read()) == labelled, (name, table)
            incomplete = name in ("empty", "partial")
            assert ("incomplete" in kinds) == incomplete and ("incomplete:" in text) == incomplete, name
            assert ("MLPerf" in text) == (name in ("drafts", "pruned")), name
            if name == "hostile":
                arms = {r["arm"] for r in tables["latency"]}
                assert "<script>alert(1)</script> & \"a\", 'b'|c\\d_e%$#{}~^" in arms, arms
                assert "naïve → 模型 🙂" in arms, arms
            if name == "scaling":
                rows = tables["context_scaling"]
                assert [r["exp_id"] for r in rows][:3] == ["gpt2-128", "gpt2-256", "gpt2-512"], rows
                assert {(r["exp_id"].split("-")[0], r["arch"]) for r in rows} == {("gpt2", "decoder"), ("t5", "encdec"), ("bert", "encoder")}
                assert all(r["ci_low"] < r["latency_ms"] < r["ci_high"] and r["max_memory_gb"] == 9 * 2**20 / 1e9 for r in rows), rows
            if name == "plain":
                assert {r["verdict"] for r in tables["speedup"]} == {"FASTER", "SLOWER"}
            print(name, "ok")
        hidden = dict(os.environ, PATH="/nonexistent")
        subprocess.run([scenario, "plain", os.path.join(top, "p.h5"), os.path.join(top, "p")], check=True, env=hidden)
        rows = read_tables(os.path.join(top, "p", "tables"))["warnings"]
        assert [r for r in rows if r["kind"] == "figures" and "gnuplot" in r["text"]], rows
        assert not os.listdir(os.path.join(top, "p", "figures"))
        print("without gnuplot ok")
        with open(os.path.join(top, "gnuplot"), "w", encoding="utf-8") as f:  # as on a full disk: half a file, exit code 0
            f.write("#!/bin/sh\nsed -n \"s/^set output '\\(.*\\)'$/\\1/p; /^exit$/q\" | while read -r f; do printf '<svg width=' >\"$f\"; done\n")
        os.chmod(f.name, 0o755)
        subprocess.run([scenario, "plain", os.path.join(top, "h.h5"), os.path.join(top, "h")], check=True, env=dict(os.environ, PATH=f"{top}:/usr/bin:/bin"))
        rows = read_tables(os.path.join(top, "h", "tables"))["warnings"]
        assert [r for r in rows if r["kind"] == "figures" and "could not write it whole" in r["text"]], rows
        assert not os.listdir(os.path.join(top, "h", "figures"))
        print("half-written figures ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
