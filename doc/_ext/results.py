"""Directives and a role that show what the JSON files of benchmarks and proofs hold.

``:measured:`benchmarks/flow_cpu | rows | 0 | pairs_per_s | .0f``` is one number of a file: the
keys, and how to write it, after a unit if it is to be converted (``GiB`` from bytes, ``min`` from
s); ``text`` takes it as it is. A key that is not there stops the build.

``.. results:: benchmarks`` shows every ``benchmarks/*.json``; without files it says so.
Of the content only this is asked: it is an object. Numbers, texts and flags become rows, lists of
objects and objects of objects become tables; of a table longer than anybody reads, only the number
of its rows is shown.

``.. data-sets::`` is the table of public data sets, of ``proofs/data_sets.json``.
"""

import json
import re
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective, SphinxRole

UNITS = {"GiB": 2**30, "min": 60}
LONG = 12
MOST_ROWS = 24
LAST = ("seeds", "versions", "device", "platform", "seconds", "command", "date")


def words(key):
    """A key as it is read: with spaces, and "number of" for its beginning n_."""
    return re.sub(r"^n_", "number of ", str(key)).replace("_", " ")


def text_of(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
        if numbers and len(value) > LONG:
            ordered = sorted(value)
            return (
                f"{len(value)} values: median {text_of(ordered[len(value) // 2])}, "
                f"{text_of(ordered[0])} to {text_of(ordered[-1])}"
            )
        return ", ".join(map(text_of, value))
    if isinstance(value, dict):
        return "; ".join(f"{words(key)} {text_of(item)}" for key, item in value.items())
    return str(value)


def table(header, rows):
    """A docutils table of texts."""
    rows = list(rows)
    n_columns = max(len(header), *(len(row) for row in rows))
    node = nodes.table(classes=["results"])
    group = nodes.tgroup(cols=n_columns)
    node += group
    group.extend(nodes.colspec(colwidth=1) for _ in range(n_columns))

    def row_of(cells):
        row = nodes.row()
        for cell in [*cells, *[""] * (n_columns - len(cells))]:
            row += nodes.entry("", nodes.paragraph("", "", *_with_options(cell)))
        return row

    if header:
        head = nodes.thead()
        head += row_of(header)
        group += head
    body = nodes.tbody()
    body.extend(row_of(row) for row in rows)
    group += body
    return node


def _with_options(text):
    """Text in which options are literal: else their two hyphens would become a dash."""
    parts = re.split(r"((?<!\w)--[a-z][\w-]*)", text)
    return [nodes.literal("", part) if i % 2 else nodes.Text(part) for i, part in enumerate(parts)]


def tables_of(content, title):
    """Split an object into a table of its plain entries and tables of the nested ones."""
    plain, nested = [], []
    for key in sorted(content, key=lambda key: key in LAST):
        value = content[key]
        rows = None
        if isinstance(value, dict) and value:
            if all(isinstance(item, dict) for item in value.values()):
                rows = [{"": name, **item} for name, item in value.items()]
            elif any(isinstance(item, (dict, list)) for item in value.values()):
                nested.extend(tables_of(value, key))
                continue
        elif isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
            rows = value
        if rows is None:
            plain.append([words(key), text_of(value)])
        elif len(rows) > MOST_ROWS:
            plain.append([words(key), f"{len(rows)} rows, in the file"])
        else:
            header = list(dict.fromkeys(name for row in rows for name in row))
            body = [[text_of(row[name]) if name in row else "" for name in header] for row in rows]
            nested.append((key, table([words(name) for name in header], body)))
    return ([(title, table([], plain))] if plain else []) + nested


def result_section(path, content):
    """A section with the tables of one file."""
    if not isinstance(content, dict):
        content = {"rows": content}
    title = str(content.pop("title", path.stem.replace("_", " ")))
    section = nodes.section(ids=[nodes.make_id(f"{path.parent.name}-{path.stem}")])
    section += nodes.title("", title)
    description = content.pop("description", None)
    if description:
        section += nodes.paragraph("", str(description))
    for name, node in tables_of(content, ""):
        if name:
            section += nodes.paragraph("", "", nodes.strong("", words(name)))
        section += node
    return section


class Results(SphinxDirective):
    required_arguments = 1

    def run(self):
        folder = Path(self.env.srcdir) / self.arguments[0]
        paths = sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
        shown = []
        for path in paths:
            self.env.note_dependency(str(path))
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                continue  # being written
            shown.append(result_section(path, content))
        if not shown:
            note = nodes.note()
            note += nodes.paragraph("", "Nothing has been measured with this version yet.")
            shown = [note]
        return shown


def rows_of_data_sets(content):
    """Data set, what came of it before and now, what is typed, and what is left to be done."""
    for row in content["data_sets"]:
        now = "to its report" if row.get("encode") == 0 else f"refused: {row['reason']}"
        yield [row["title"], row["before"], now, row["typed"], " ".join(row["by_hand"])]


# column of the table of data sets -> its width in per cent
_WIDTHS = {"data set": 14, "before": 12, "now": 18, "what is typed": 26, "by hand": 30}


def _read_data_sets(env):
    path = Path(env.srcdir) / "proofs" / "data_sets.json"
    env.note_dependency(str(path))
    return json.loads(path.read_text(encoding="utf-8"))


class DataSets(SphinxDirective):
    def run(self):
        rows = rows_of_data_sets(_read_data_sets(self.env))
        found = table(list(_WIDTHS), rows)
        found["classes"] = ["costs", "colwidths-given"]  # to be read without scrolling
        for column, width in zip(found.findall(nodes.colspec), _WIDTHS.values(), strict=True):
            column["colwidth"] = width
        return [found]


class Validated(SphinxDirective):
    """What validation says of the data set that is named."""

    required_arguments = 1

    def run(self):
        rows = _read_data_sets(self.env)["data_sets"]
        [row] = [row for row in rows if row["data_set"] == self.arguments[0]]
        command = f"brainnrds-validate bids {row['typed']}"
        text = row["said"] if row["validate"] == 0 else f"brainnrds: {row['reason']}"
        said = nodes.literal_block("", f"$ {command}\n\n{text.strip()}")
        said["language"] = "text"
        return [said]


def measured(folder, text):
    """The number that the text of the role names, as text."""
    name, *keys, form = (part.strip() for part in text.split("|"))
    value = json.loads((Path(folder) / f"{name}.json").read_text(encoding="utf-8"))
    for key in keys:
        value = value[int(key) if isinstance(value, list) else key]
    if form == "text":
        return str(value)
    unit, _, form = form.rpartition(" ")
    return format(value / UNITS[unit] if unit else value, form)


class Measured(SphinxRole):
    def run(self):
        name = self.text.split("|")[0].strip()
        self.env.note_dependency(str(Path(self.env.srcdir) / f"{name}.json"))
        try:
            text = measured(self.env.srcdir, self.text)
        except (OSError, LookupError, ValueError, TypeError) as error:
            message = self.inliner.reporter.warning(
                f"no such number: {self.text} ({error!r})", line=self.lineno
            )
            return [nodes.Text("?")], [message]
        return [nodes.Text(text)], []


def setup(app):
    app.add_directive("data-sets", DataSets)
    app.add_directive("results", Results)
    app.add_directive("validated", Validated)
    app.add_role("measured", Measured())
    return {"parallel_read_safe": True, "version": "1"}
