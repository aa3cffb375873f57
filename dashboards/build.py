#!/usr/bin/env python3
"""Makes the dashboards from `source/*.toml`. The standard library of Python 3.11 is all it needs.

    build.py            writes the JSON files beside this one
    build.py --check    writes nothing; fails where a file is not what its source makes

Sources say what is on a dashboard; this file knows how Grafana wants it said. Two things are done here so that no panel
can get them wrong: every selector gets the matchers of the dashboard's variables for labels that its family has (by
docs/metrics.md), and panels are laid out in the order of the source on lines of 24 columns.
"""

import json
import re
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
METRICS = HERE.parent / "docs" / "metrics.md"
COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

# $__rate_interval becomes at least four of these, so rates have samples up to a scrape interval of two minutes.
MIN_STEP = "1m"

# Name: label, the query of its choices, what "All" matches. A label that can be empty is matched by `.*`.
VARIABLES = {
    "job": ("Job", "label_values(tacho_build_info, job)", ".+"),
    "instance": ("Instance", "label_values(tacho_build_info, instance)", ".+"),
    "service": ("Service", "label_values(tacho_requests_total, service)", ".*"),
    "model": ("Model", "label_values(tacho_llm_calls_total, model)", ".*"),
    "limit": ("Limit", "label_values(tacho_limit_limit, limit)", ".*"),
}

# What a source may say, so that a misspelt key stops the build.
DASHBOARD_KEYS = {"title", "uid", "description", "variables", "from", "refresh", "row"}
ROW_KEYS = {"title", "panel"}
PANEL_KEYS = {
    "title", "text", "show", "size", "unit", "queries", "decimals", "min", "max", "steps", "values", "since", "stack",
    "none", "exemplars", "sort", "line", "worst", "colors",
}
QUERY_KEYS = {"expr", "legend", "column", "labels_only", "unit", "decimals", "steps", "values", "dashed"}
SHOWN_AS = {"stat": "stat", "time": "timeseries", "bars": "bargauge", "table": "table"}


class Fault(Exception):
    """A source that cannot become a dashboard."""


def demand(holds, what):
    if not holds:
        raise Fault(what)


def known(where, given, keys):
    demand(set(given) <= keys, f"{where}: unknown {sorted(set(given) - keys)}")


# --- queries ---


def families():
    """The labels of each family, from the tables of docs/metrics.md."""
    rows = re.findall(r"^\| `(tacho_\w+)` \| \w+ \| ([^|]*) \|", METRICS.read_text(), re.MULTILINE)
    return {name: re.findall(r"`(\w+)`", labels) for name, labels in rows} | {"up": []}


FAMILIES = families()
SELECTOR = re.compile(r"(?<![\w\"$])(tacho_\w+|up)\b(?:\{([^}]*)\})?")


def scoped(expr, variables):
    """The expression with the matchers of these variables in each selector, but for labels that it matches itself."""

    def matched(found):
        name, given = found[1], found[2] or ""
        family = name if name in FAMILIES else re.sub(r"_(bucket|sum|count)$", "", name)
        demand(family in FAMILIES, f"{name} is no family of docs/metrics.md: {expr}")
        labels = {"job", "instance", *FAMILIES[family]}
        taken = set(re.findall(r"(\w+)\s*[=!]", given))
        matchers = [f'{name}=~"${name}"' for name in variables if name in labels - taken]
        return f"{found[1]}{{{', '.join(matchers + ([given] if given else []))}}}"

    return SELECTOR.sub(matched, re.sub(r"\s+", " ", expr.strip()))


def target(query, panel, variables, letter):
    instant = panel["show"] != "time"
    return {
        "datasource": DATASOURCE,
        "editorMode": "code",
        "exemplar": panel.get("exemplars", False),
        "expr": scoped(query["expr"], variables),
        "format": "table" if panel["show"] == "table" else "time_series",
        "instant": instant,
        "interval": MIN_STEP,
        "legendFormat": query.get("legend", "__auto"),
        "range": not instant,
        "refId": letter,
    }


# --- what is alike in all kinds of panels ---


def thresholds(steps):
    """`["green", [0.8, "yellow"]]` as Grafana has it."""
    first, *rest = steps
    colors = [{"color": first, "value": None}] + [{"color": color, "value": value} for value, color in rest]
    return {"mode": "absolute", "steps": colors}


def mappings(values):
    """`{ "0" = ["away", "red"] }` as Grafana has it."""
    shown = {
        value: {"text": text, "color": color, "index": index}
        for index, (value, (text, color)) in enumerate(sorted(values.items()))
    }
    return [{"type": "value", "options": shown}]


def properties(said):
    """What a panel says of all its fields, or a query of its own."""
    made = {key: said[key] for key in ("unit", "decimals", "min", "max") if key in said}
    if "steps" in said:
        made["thresholds"] = thresholds(said["steps"])
    if "values" in said:
        made["mappings"] = mappings(said["values"])
    return made


def override(matcher, options, made):
    return {"matcher": {"id": matcher, "options": options}, "properties": [{"id": k, "value": v} for k, v in made]}


def defaults(panel):
    plain = {"color": {"mode": "thresholds"}, "mappings": [], "thresholds": thresholds(["green"])}
    if "none" in panel:
        plain["noValue"] = panel["none"]
    return plain | properties(panel)


# --- the kinds ---


def stat(panel, _letters):
    options = {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "auto",
        "wideLayout": True,
    }
    return options, defaults(panel), []


def timeseries(panel, letters):
    has_lines = "steps" in panel
    custom = {
        "drawStyle": "line",
        "fillOpacity": 40 if panel.get("stack") else 8,
        "lineInterpolation": "stepAfter" if panel.get("line") == "steps" else "linear",
        "lineWidth": 1,
        "showPoints": "auto",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if panel.get("stack") else "none"},
        "thresholdsStyle": {"mode": "dashed" if has_lines else "off"},
    }
    options = {
        "legend": {
            "calcs": ["lastNotNull", panel.get("worst", "max")],
            "displayMode": "table",
            "placement": "bottom",
            "showLegend": True,
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    field = defaults(panel) | {"color": {"mode": "palette-classic"}, "custom": custom}
    own = [
        override("byRegexp", f"/{names}/", [("color", {"mode": "fixed", "fixedColor": color})])
        for names, color in panel.get("colors", {}).items()
    ]
    for letter, query in zip(letters, panel["queries"]):
        said = list(properties(query).items())
        if query.get("dashed"):
            said += [("custom.lineStyle", {"fill": "dash", "dash": [8, 8]}), ("custom.fillOpacity", 0)]
        if said:
            own.append(override("byFrameRefID", letter, said))
    return options, field, own


def bargauge(panel, _letters):
    options = {
        "displayMode": "basic",
        "minVizHeight": 16,
        "minVizWidth": 8,
        "namePlacement": "left",
        "orientation": "horizontal",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showUnfilled": True,
        "sizing": "auto",
        "valueMode": "color",
    }
    return options, {"min": 0} | defaults(panel), []


def table(panel, _letters):
    options = {
        "cellHeight": "sm",
        "footer": {"countRows": False, "fields": "", "reducer": ["sum"], "show": False},
        "showHeader": True,
        "sortBy": [{"desc": True, "displayName": panel["sort"]}] if "sort" in panel else [],
    }
    field = defaults(panel) | {"custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True}}
    own = []
    for query in panel["queries"]:
        said = list(properties(query).items())
        if "steps" in query or "values" in query:
            said.append(("custom.cellOptions", {"type": "color-text"}))
        if said:
            own.append(override("byName", query["column"], said))
    return options, field, own


def transformations(panel, letters):
    """Tables: the answers side by side, one row for each label set, columns as the source names and orders them."""
    if panel["show"] != "table":
        return []
    columns = {f"Value #{letter}": query.get("column") for letter, query in zip(letters, panel["queries"])}
    demand(len(columns) > 1, f"table `{panel['title']}`: Grafana numbers the columns only of several queries")
    names = {name: column for name, column in columns.items() if column}
    hidden = {name: True for name in ["Time", *(name for name, column in columns.items() if not column)]}
    # A column that is not in this order would come last: the labels by which the queries group are to be the first.
    grouped = " ".join(found for query in panel["queries"] for found in re.findall(r"\bby \(([^)]*)\)", query["expr"]))
    labels = [label for label in dict.fromkeys(re.findall(r"\w+", grouped)) if label != "le"]
    order = {name: place for place, name in enumerate([*labels, *names])}
    organize = {"excludeByName": hidden, "indexByName": order, "renameByName": names}
    return [{"id": "merge", "options": {}}, {"id": "organize", "options": organize}]


KINDS = {"stat": stat, "time": timeseries, "bars": bargauge, "table": table}


def made_panel(panel, variables, place):
    where = f"panel `{panel.get('title')}`"
    known(where, panel, PANEL_KEYS)
    for key in ("title", "text", "show", "size", "unit", "queries"):
        demand(key in panel, f"{where} has no {key}")
    demand(panel["show"] in KINDS, f"{where}: show is one of {sorted(KINDS)}")
    letters = "ABCDEFGHIJKLMNOP"[: len(panel["queries"])]
    for query in panel["queries"]:
        known(where, query, QUERY_KEYS)
        heads = ("column" in query) + query.get("labels_only", False)
        demand(heads == (panel["show"] == "table"), f"{where}: queries of a table alone have a column or `labels_only`")
    options, field, own = KINDS[panel["show"]](panel, letters)
    made = {
        "datasource": DATASOURCE,
        "description": re.sub(r"\s+", " ", panel["text"].strip()),
        "fieldConfig": {"defaults": field, "overrides": own},
        "gridPos": place,
        "options": options,
        "targets": [target(query, panel, variables, letter) for letter, query in zip(letters, panel["queries"])],
        "title": panel["title"],
        "transformations": transformations(panel, letters),
        "type": SHOWN_AS[panel["show"]],
    }
    if "since" in panel:
        made |= {"timeFrom": panel["since"], "hideTimeOverride": True}
    return made


# --- the whole ---


class Grid:
    """Places panels from left to right. Lines must be full and of one height, or the eye finds no order in them."""

    def __init__(self):
        self.x = self.y = self.height = 0

    def row(self):
        demand(self.x == 0, "a line is not full before a new row")
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": self.y}
        self.y += 1
        return place

    def panel(self, title, width, height):
        demand(self.x + width <= COLUMNS, f"`{title}` does not fit into its line of {COLUMNS} columns")
        demand(self.x == 0 or self.height == height, f"`{title}` is not as high as its neighbours")
        place = {"h": height, "w": width, "x": self.x, "y": self.y}
        self.x, self.height = self.x + width, height
        if self.x == COLUMNS:
            self.x, self.y = 0, self.y + height
        return place


def made_panels(rows, variables):
    grid, panels = Grid(), []
    for row in rows:
        known(f"row `{row.get('title')}`", row, ROW_KEYS)
        if "title" in row:
            place = grid.row()
            panels.append({"collapsed": False, "gridPos": place, "panels": [], "title": row["title"], "type": "row"})
        for panel in row["panel"]:
            panels.append(made_panel(panel, variables, grid.panel(panel["title"], *panel["size"])))
    demand(grid.x == 0, "the last line is not full")
    # Numbers of panels are not of a Grafana instance: they are the places in this file, and links to a panel need them.
    return [{"id": number, **panel} for number, panel in enumerate(panels, 1)]


def made_variable(name, before):
    """A variable offers what is there for what was chosen in those before it."""
    label, query, everything = VARIABLES[name]
    function, selector, of = re.fullmatch(r"(\w+)\((\w+), (\w+)\)", query).groups()
    query = f"{function}({scoped(selector, before)}, {of})".replace("{}", "")
    return {
        "allValue": everything,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "datasource": DATASOURCE,
        "definition": query,
        "hide": 0,
        "includeAll": True,
        "label": label,
        "multi": True,
        "name": name,
        "options": [],
        "query": query,
        "refresh": 2,
        "regex": "",
        "skipUrlSync": False,
        "sort": 1,
        "type": "query",
    }


def templating(variables):
    source = {
        "current": {},
        "hide": 0,
        "includeAll": False,
        "label": "Data source",
        "multi": False,
        "name": "datasource",
        "options": [],
        "query": "prometheus",
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
        "type": "datasource",
    }
    return {"list": [source] + [made_variable(name, variables[:place]) for place, name in enumerate(variables)]}


def link(other):
    return {
        "asDropdown": False,
        "icon": "dashboard",
        "includeVars": True,
        "keepTime": True,
        "tags": [],
        "targetBlank": False,
        "title": other["title"],
        "tooltip": other["description"],
        "type": "link",
        "url": f"/d/{other['uid']}",
    }


def dashboard(source, others):
    known(source["title"], source, DASHBOARD_KEYS)
    return {
        "annotations": {"list": []},
        "description": source["description"],
        "editable": False,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "id": None,
        "links": [link(other) for other in others],
        "panels": made_panels(source["row"], source["variables"]),
        "refresh": source["refresh"],
        "schemaVersion": 39,
        "tags": ["tacho", "llm"],
        "templating": templating(source["variables"]),
        "time": {"from": source["from"], "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "title": source["title"],
        "uid": source["uid"],
        "version": 1,
        "weekStart": "",
    }


def built():
    """Text by path, of all dashboards."""
    sources = {path: tomllib.loads(path.read_text()) for path in sorted((HERE / "source").glob("*.toml"))}
    texts = {}
    for path, source in sources.items():
        others = [other for other in sources.values() if other is not source]
        try:
            made = dashboard(source, others)
        except Fault as fault:
            sys.exit(f"{path.name}: {fault}")
        texts[HERE / f"{source['uid']}.json"] = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
    return texts


def main():
    texts = built()
    stray = sorted(path.name for path in HERE.glob("*.json") if path not in texts)
    if sys.argv[1:] == ["--check"]:
        old = [path.name for path, text in texts.items() if not path.exists() or path.read_text() != text]
        if old or stray:
            sys.exit(f"not what the sources make: {', '.join(old + stray)}; run `make dashboards`")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        for path, text in texts.items():
            path.write_text(text)
        if stray:
            sys.exit(f"without a source: {', '.join(stray)}")


if __name__ == "__main__":
    main()
