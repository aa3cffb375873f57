#!/usr/bin/env python3
"""Draws the dashboards over the last 24 hours of a Prometheus, to be looked at without a Grafana.

    preview.py URL END OUT      END in seconds since 1970; one PNG a dashboard into the folder OUT

It reads the JSON that Grafana would get and draws each panel in its place on the grid, with its unit, legend and
thresholds. It is near to what Grafana shows, not the same. A query that fails stops it; a panel without data says so.
"""

import datetime
import json
import math
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

HERE = Path(__file__).resolve().parent
DAY = 86_400
STEP = 300

# Pixels, as Grafana has them on a screen of usual width.
COLUMN, LINE, GAP, DPI = 80, 38, 4, 80
HEAD = 50

PAGE, PANEL, BORDER, TEXT, FAINT = "#111217", "#181b1f", "#2c2f36", "#ccccdc", "#8e8e9c"
COLORS = {"green": "#73bf69", "yellow": "#f2cc0c", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2"}
# The first of Grafana's classic palette.
PALETTE = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a"]


# --- asking ---


def substituted(expr, seconds):
    """As Grafana does, all variables at "all"."""
    for variable, value in [
        ("$__rate_interval", f"{STEP}s"),
        ("$__interval", "1m"),
        ("$__range", f"{seconds}s"),
        ("$job", ".+"),
        ("$instance", ".+"),
        ("$service", ".*"),
        ("$model", ".*"),
        ("$limit", ".*"),
    ]:
        expr = expr.replace(variable, value)
    if "$" in expr:
        sys.exit(f"a variable is not known here: {expr}")
    return expr


class Prometheus:
    def __init__(self, url, end):
        self.url, self.end = url.rstrip("/"), end

    def ask(self, path, **parameters):
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            sys.exit(f"{parameters['query']}\n{error.read().decode(errors='replace')}")

    def series(self, panel, target):
        """Labels and samples (times, values) of each series; NaN and infinity are gaps."""
        seconds = range_of(panel, self.end)
        expr = substituted(target["expr"], seconds)
        if target["instant"]:
            found = [(one["metric"], [one["value"]]) for one in self.ask("query", query=expr, time=self.end)]
        else:
            start = self.end - seconds
            answer = self.ask("query_range", query=expr, start=start, end=self.end, step=STEP)
            found = [(one["metric"], one["values"]) for one in answer]
        return [(labels, numbers(samples)) for labels, samples in found]


def range_of(panel, end):
    since = panel.get("timeFrom")
    if since is None:
        return DAY
    if since != "now/M":
        sys.exit(f"{panel['title']}: this reads no timeFrom but now/M")
    first = datetime.datetime.fromtimestamp(end, datetime.UTC).replace(day=1, hour=0, minute=0, second=0)
    return max(int(end - first.timestamp()), 60)


def numbers(samples):
    pairs = [(float(time), float(text)) for time, text in samples]
    return [(time, value if math.isfinite(value) else math.nan) for time, value in pairs]


def name_of(target, labels):
    legend = target["legendFormat"]
    if legend == "__auto":
        return ", ".join(labels.values()) or "value"
    return re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found[1], ""), legend)


# --- showing numbers ---


def scaled(value, steps, base, digits):
    """The value with the first of the signs that leaves less than `base` of it."""
    for sign in steps[:-1]:
        if abs(value) < base:
            break
        value /= base
    else:
        sign = steps[-1]
    return f"{plain(value, digits)}{sign}"


def plain(value, digits):
    if digits is not None:
        return f"{value:.{digits}f}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def duration(value, digits):
    if value == 0:
        return "0 s"
    units = [(86_400, " d"), (3_600, " h"), (60, " min"), (1, " s"), (1e-3, " ms"), (1e-6, " µs")]
    size, sign = next((unit for unit in units if abs(value) >= unit[0]), units[-1])
    return f"{plain(value / size, digits)}{sign}"


def shown(value, field):
    if math.isnan(value):
        return "–"
    for mapping in field.get("mappings", []):
        known = mapping["options"].get(f"{value:g}")
        if known:
            return known["text"]
    unit, digits = field.get("unit", "none"), field.get("decimals")
    if unit == "percentunit":
        return f"{plain(value * 100, digits)}%"
    if unit == "currencyUSD":
        return "$" + scaled(value, ["", "K", "M"], 1000, digits)
    if unit == "s":
        return duration(value, digits)
    if unit == "bytes":
        return scaled(value, [" B", " KiB", " MiB", " GiB"], 1024, digits)
    if unit == "short":
        return scaled(value, ["", " K", " Mil", " Bil"], 1000, digits if abs(value) < 1000 or digits else 1)
    return plain(value, digits) + {"reqps": " req/s", "ops": " ops/s"}.get(unit, "")


def color_of(value, field):
    for mapping in field.get("mappings", []):
        known = mapping["options"].get(f"{value:g}")
        if known:
            return COLORS[known["color"]]
    color = "green"
    for step in field["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            color = step["color"]
    return COLORS[color]


def field_of(panel, matcher, name):
    """What holds for one query or column: the panel's defaults and its own."""
    field = dict(panel["fieldConfig"]["defaults"])
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"] == {"id": matcher, "options": name}:
            field |= {said["id"]: said["value"] for said in override["properties"]}
    return field


# --- the page ---


class Page:
    """A figure in pixels, from the upper left."""

    def __init__(self, dashboard):
        height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
        self.width, self.height = 24 * COLUMN, HEAD + height * LINE
        self.figure = plt.figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI, facecolor=PAGE)
        self.text(12, 32, dashboard["title"], size=16, weight="bold")
        links = " · ".join(link["title"] for link in dashboard["links"])
        self.text(self.width - 12, 32, links, color=FAINT, ha="right")

    def text(self, x, y, words, size=10, color=TEXT, **more):
        # Money would be read as mathematics.
        words = words.replace("$", r"\$")
        self.figure.text(x / self.width, 1 - y / self.height, words, fontsize=size, color=color, **more)

    def bounds(self, x, y, w, h):
        """The same as matplotlib has it: shares of the figure, from the lower left."""
        return x / self.width, 1 - (y + h) / self.height, w / self.width, h / self.height

    def box(self, x, y, w, h):
        left, bottom, width, height = self.bounds(x, y, w, h)
        where = {"transform": self.figure.transFigure, "zorder": -1}
        self.figure.add_artist(Rectangle((left, bottom), width, height, facecolor=PANEL, edgecolor=BORDER, **where))

    def axes(self, x, y, w, h):
        axes = self.figure.add_axes(self.bounds(x, y, w, h), facecolor=PANEL)
        axes.tick_params(colors=FAINT, labelsize=8, length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    def place(self, panel):
        grid = panel["gridPos"]
        return (
            grid["x"] * COLUMN + GAP,
            HEAD + grid["y"] * LINE + GAP,
            grid["w"] * COLUMN - 2 * GAP,
            grid["h"] * LINE - 2 * GAP,
        )


def clipped(words, pixels):
    """What fits of it; a letter of this size has about six pixels."""
    most = max(int(pixels / 6), 4)
    return words if len(words) <= most else words[: most - 1] + "…"


def nothing(page, panel, x, y, w, h):
    words = panel["fieldConfig"]["defaults"].get("noValue", "No data")
    page.text(x + w / 2, y + h / 2 + 16, words, size=14, color=FAINT, ha="center", va="center")


# --- the kinds ---


def draw_stat(page, panel, answers, x, y, w, h):
    series = [(target, one) for target, found in answers for one in found]
    if not series:
        return nothing(page, panel, x, y, w, h)
    for place, (target, (_, samples)) in enumerate(series):
        field = field_of(panel, "byFrameRefID", target["refId"])
        value = samples[-1][1]
        middle = x + w * (place + 0.5) / len(series)
        page.text(middle, y + h / 2 + 14, shown(value, field), 26, color_of(value, field), ha="center", va="center")


def draw_bars(page, panel, answers, x, y, w, h):
    field = panel["fieldConfig"]["defaults"]
    rows = [(name_of(target, labels), samples[-1][1]) for target, found in answers for labels, samples in found]
    if not rows:
        return nothing(page, panel, x, y, w, h)
    most = max(value for _, value in rows) or 1
    height = min((h - 40) / len(rows), 34)
    for place, (name, value) in enumerate(rows):
        top = y + 34 + place * height
        page.text(x + 12, top + height * 0.65, clipped(name, 210), 9)
        axes = page.axes(x + 230, top + height * 0.15, w - 330, height * 0.7)
        axes.set(xlim=(0, most), ylim=(0, 1), xticks=[], yticks=[])
        axes.barh(0.5, value, 1, color=color_of(value, field))
        page.text(x + w - 12, top + height * 0.65, shown(value, field), 9, color_of(value, field), ha="right")


def table_rows(panel, answers):
    """Rows by the labels that all queries have, as Grafana merges them."""
    organize = next(made["options"] for made in panel["transformations"] if made["id"] == "organize")
    shared = set.intersection(*({*labels} for _, found in answers for labels, _ in found), {*organize["indexByName"]})
    rows = {}
    for target, found in answers:
        for labels, samples in found:
            row = rows.setdefault(tuple(sorted((name, labels[name]) for name in shared)), {})
            row.update(labels)
            column = f"Value #{target['refId']}"
            if column not in organize["excludeByName"]:
                row[organize["renameByName"][column]] = samples[-1][1]
    order, renamed = organize["indexByName"], organize["renameByName"]
    columns = [renamed.get(name, name) for name in sorted(order, key=order.get)]
    sort = panel["options"]["sortBy"]
    key = sort[0]["displayName"] if sort else columns[0]
    return columns, sorted(rows.values(), key=lambda row: row.get(key, -math.inf), reverse=bool(sort))


def draw_table(page, panel, answers, x, y, w, h):
    columns, rows = table_rows(panel, answers)
    if not rows:
        return nothing(page, panel, x, y, w, h)
    width, line = (w - 24) / len(columns), 26
    most = int((h - 62) / line)
    for place, name in enumerate(columns):
        left = x + 12 + place * width
        field = field_of(panel, "byName", name)
        page.text(left, y + 48, clipped(name, width), 9, FAINT, weight="bold")
        for number, row in enumerate(rows[:most]):
            value = row.get(name, "")
            is_colored = isinstance(value, float) and "custom.cellOptions" in field
            words = shown(value, field) if isinstance(value, float) else value
            color = color_of(value, field) if is_colored else TEXT
            page.text(left, y + 48 + (number + 1) * line, clipped(words, width), 9, color)


def line_color(panel, name, place):
    for override in panel["fieldConfig"]["overrides"]:
        matcher, said = override["matcher"], override["properties"][0]
        if matcher["id"] == "byRegexp" and re.search(matcher["options"].strip("/"), name):
            return COLORS[said["value"]["fixedColor"]]
    return PALETTE[place % len(PALETTE)]


def lines_of(panel, answers):
    """Color, name, field, times, values of each line."""
    place = 0
    for target, found in answers:
        field = field_of(panel, "byFrameRefID", target["refId"])
        for labels, samples in found:
            if all(math.isnan(value) for _, value in samples):
                continue
            by_time = dict(samples)
            first, last = samples[0][0], samples[-1][0]
            # A gap is drawn as one.
            times = [first + STEP * place for place in range(int((last - first) / STEP) + 1)]
            name = name_of(target, labels)
            yield line_color(panel, name, place), name, field, times, [by_time.get(time, math.nan) for time in times]
            place += 1


def draw_lines(axes, panel, lines, begin, end):
    custom = panel["fieldConfig"]["defaults"]["custom"]
    is_stacked = custom["stacking"]["mode"] == "normal"
    base = {}
    step, style = ("post", "steps-post") if custom["lineInterpolation"] == "stepAfter" else (None, "default")
    for color, _, field, times, values in lines:
        is_dashed = "custom.lineStyle" in field
        days = [datetime.datetime.fromtimestamp(time, datetime.UTC) for time in times]
        lower = [base.get(time, 0.0) if is_stacked else 0.0 for time in times]
        upper = [low + value for low, value in zip(lower, values)]
        axes.plot(days, upper, color=color, linewidth=1, linestyle="--" if is_dashed else "-", drawstyle=style)
        if not is_dashed:
            alpha = custom["fillOpacity"] / 100
            axes.fill_between(days, lower, upper, color=color, alpha=alpha, linewidth=0, step=step)
        if is_stacked:
            base |= {time: value for time, value in zip(times, upper) if not math.isnan(value)}
    axes.set_xlim(*(datetime.datetime.fromtimestamp(time, datetime.UTC) for time in (begin, end)))


def draw_timeseries(page, panel, answers, x, y, w, h, end):
    lines = list(lines_of(panel, answers))
    if not lines:
        return nothing(page, panel, x, y, w, h)
    defaults = panel["fieldConfig"]["defaults"]
    most = max(2, int((h - 150) / 17))
    rows = min(len(lines), most)
    axes = page.axes(x + 72, y + 36, w - 86, h - 36 - 28 - 17 * (rows + 1))
    draw_lines(axes, panel, lines, end - range_of(panel, end), end)
    low, high = axes.get_ylim()
    if defaults["custom"]["thresholdsStyle"]["mode"] != "off":
        for step in defaults["thresholds"]["steps"][1:]:
            axes.axhline(step["value"], color=COLORS[step["color"]], linestyle=(0, (6, 4)), linewidth=1, alpha=0.8)
    # As in Grafana, a threshold far away does not squeeze the lines.
    bottom, top = defaults.get("min", low), defaults.get("max", high if high > low else low + 1)
    axes.set_ylim(bottom, top * 1.02 if "max" in defaults else top)
    axes.grid(color=BORDER, linewidth=0.6)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    plainly = {**defaults, "mappings": []}
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, plainly).replace("$", r"\$")))
    axes.xaxis.set_major_formatter(matplotlib.dates.DateFormatter("%H:%M"))
    legend(page, lines, panel["options"]["legend"]["calcs"][1], x, y + h - 17 * (rows + 1), w, rows)


def legend(page, lines, worst, x, y, w, rows):
    page.text(x + w - 140, y + 8, "Last", 8, COLORS["blue"], ha="right")
    page.text(x + w - 24, y + 8, worst.capitalize(), 8, COLORS["blue"], ha="right")
    for place, (color, name, field, _, values) in enumerate(lines[:rows]):
        top = y + 8 + (place + 1) * 17
        known = [value for value in values if not math.isnan(value)]
        words = clipped(name, w - 320)
        if place == rows - 1 and len(lines) > rows:
            words += f"  (and {len(lines) - rows} more)"
        page.text(x + 14, top, "▬", 8, color)
        page.text(x + 32, top, words, 8)
        page.text(x + w - 140, top, shown(known[-1], field), 8, ha="right")
        page.text(x + w - 24, top, shown({"min": min, "max": max}[worst](known), field), 8, ha="right")


def draw(prometheus, dashboard, path):
    page = Page(dashboard)
    empty = []
    for panel in dashboard["panels"]:
        x, y, w, h = page.place(panel)
        if panel["type"] == "row":
            page.text(x + 4, y + 22, "▾ " + panel["title"], 11, weight="bold")
            continue
        page.box(x, y, w, h)
        page.text(x + 12, y + 20, clipped(panel["title"], w), 10, weight="bold")
        answers = [(target, prometheus.series(panel, target)) for target in panel["targets"]]
        empty += [] if any(found for _, found in answers) else [panel["title"]]
        kind = {"stat": draw_stat, "bargauge": draw_bars, "table": draw_table}.get(panel["type"])
        if kind:
            kind(page, panel, answers, x, y, w, h)
        else:
            draw_timeseries(page, panel, answers, x, y, w, h, prometheus.end)
    page.figure.savefig(path, dpi=DPI, facecolor=PAGE)
    plt.close(page.figure)
    print(f"{path}" + (f": no data in {', '.join(empty)}" if empty else ""))


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    url, end, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(HERE.glob("*.json")):
        draw(Prometheus(url, end), json.loads(path.read_text()), out / f"{path.stem}.png")


if __name__ == "__main__":
    main()
