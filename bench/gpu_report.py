"""What bench/gpu.py knows so far, on disk at every moment, and how its time is shared out. Standard Python alone."""
import json
import os
import time


def limit(shares, i, rest):
    """Seconds that part i may take when `rest` are left of the budget: its share and all that earlier parts left over; where they, or building,
    took more than was meant, its part of what there is. So all of them end within the budget, whatever each does."""
    due = sum(shares[i:])
    return rest * shares[i] / due if rest < due else rest - (due - shares[i])


class Report:
    """Parts, figures and notes; every change is written at once, and a reader never sees half of it."""

    def __init__(self, out, parts, began, **about):
        self.out, self.began, self.about, self.info = out, began, about, {}
        self.parts = [dict(part=name, state="not reached", why="", seconds=0.0, share=share) for name, share in parts]
        self.figures, self.notes = [], []
        os.makedirs(out, exist_ok=True)
        self.write()

    def put(self, name, text):
        path = os.path.join(self.out, name)
        with open(path + ".new", "w") as f:
            f.write(text)
        os.replace(path + ".new", path)

    def write(self):
        seconds = round(time.monotonic() - self.began, 1)
        self.put("report.json", json.dumps(dict(info=self.info, **self.about, seconds=seconds, parts=self.parts, figures=self.figures, notes=self.notes), indent=1))
        text = [f"# bench/gpu.sh, {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC", ""]
        if self.about["small"] or self.about["device"] == "cpu":
            where = "an emulated GPU" if self.about["emulated"] else self.about["device"]
            text += [f"**Rehearsal: toy sizes on {where}, a trial of the script; no figure below says anything of a GPU.**", ""]
        text += self.info.get("gpus", [])
        text += ["", "| part | state | s | of |", "|---|---|---:|---:|"]
        for p in self.parts:
            text.append(f"| {p['part']} | {p['state']}{': ' + p['why'] if p['why'] else ''} | {p['seconds']:.1f} | {p.get('limit', p['share']):.0f} |")
        text += ["", "| figure | value | aim | | |", "|---|---:|---|---|---|"]
        for g in self.figures:
            met = "" if g["met"] is None else "met" if g["met"] else "short"
            text.append(f"| {g['name']} | {g['value']:.6g} {g['unit']} | {g['aim']} | {met} | {g['note']} |")
        for n in self.notes:
            text += ["", n]
        self.put("report.md", "\n".join(text) + "\n")
