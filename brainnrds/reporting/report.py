"""One self-contained HTML page per subject or group, collected from files by their BIDS names.

Nothing is computed or drawn here: an analysis that died half way still has a report, and a
failed figure cannot lose a result.
"""

import base64
import csv
import re
import string
import time
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path

import jinja2
import yaml

import brainnrds
from brainnrds.io import InputError, load_json
from brainnrds.io.derivatives import atomic_path
from brainnrds.reporting.methods import link_citations, load_references, methods_text

__all__ = ["write_report"]

_MIME = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".html": "text/html",
}
_MOST_DIGITS = 18
_MAX_ROWS = 500
_MAX_VIEWER = 15e6  # bytes; a larger one is linked


def write_report(output_dir, subject=None, *, spec=None, title=None, max_video_mb=16.0):
    """Write the report of one subject, or of the group.

    Collects, below ``<output_dir>/sub-<subject>/`` (for the group: ``<output_dir>/group/``),

    * figures and clips in ``figures/`` folders (pages are linked) and ``*_table.tsv`` anywhere,
      placed and captioned by `spec` through their BIDS entities; figures that it does not mention
      come last;
    * the ``"Description"`` in a JSON file beside a figure or table, and for tables the description
      and unit of each column;
    * records named ``*_provenance.json``, one per analysis, all keys optional: ``Analysis``,
      ``Summary`` (dict of name -> number or text), ``Parameters`` (dict), ``Methods`` (text with
      citations as ``[@key]``; made from ``Parameters`` by :func:`methods_text` where it is
      missing), ``Command``, ``Device``, ``Seconds``, ``Seeds`` (dict), ``Versions`` (dict),
      ``Warnings`` (dict of message -> count).

    Parameters
    ----------
    output_dir : path
        The derivatives folder that the analyses wrote to.
    subject : str or None, default=None
        Label without "sub-". None: the group.
    spec : path or None, default=None
        Sections, items and captions; None takes ``bids_specs/report.yml``.
    title : str or None, default=None
    max_video_mb : float, default=16.0
        A longer clip is linked by its relative path instead of being embedded. In megabytes.

    Returns
    -------
    path : Path
        ``<output_dir>/sub-<subject>.html`` or ``<output_dir>/group.html``.

    Raises
    ------
    InputError
        When nothing was written for the subject, or the spec is not one.
    """
    output_dir = Path(output_dir)
    name = "group" if subject is None else f"sub-{str(subject).removeprefix('sub-')}"
    folder = output_dir / name
    if not folder.is_dir():
        raise InputError(f"No outputs of {name} to report: expected the folder {folder}.")
    sections = _load_spec(spec)
    problems = []
    records = _read_records(folder, problems)
    found = _find_files(folder)
    filled = _fill_sections(sections, found, output_dir, max_video_mb * 1e6, problems)
    methods, references = _methods(records, problems)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("brainnrds.reporting", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _format_number
    page = environment.get_template("report.html").render(
        title=title or ("Group report" if subject is None else f"Report of {name}"),
        name=name,
        data_set=_data_set_name(output_dir),
        version=brainnrds.__version__,
        written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        sections=filled,
        records=records,
        methods=methods,
        references=references,
        problems=problems,
    )
    path = output_dir / f"{name}.html"
    with atomic_path(path) as unfinished:
        Path(unfinished).write_text(page, encoding="utf-8")
    return path


# finding files -----------------------------------------------------------------------------------


@dataclass
class _File:
    path: Path
    entities: dict
    sidecar: dict = field(default_factory=dict)


def _parse_name(path):
    """Entities of a BIDS name, or of a group's, with `suffix` and `extension`."""
    stem, dot, extension = path.name.partition(".")
    *pairs, suffix = stem.removeprefix("group_").split("_")
    entities = dict(re.fullmatch(r"([a-zA-Z]+)-(.+)", pair).groups() for pair in pairs)
    return entities | {"suffix": suffix, "extension": dot + extension}


def _natural(path):
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def _find_files(folder):
    found, root = [], folder.resolve()
    for path in sorted(folder.rglob("*"), key=_natural):
        is_figure = path.suffix in _MIME and "figures" in path.relative_to(folder).parts[:-1]
        is_table = path.name.endswith("_table.tsv")
        hidden = path.name.startswith(".")  # a write that was interrupted
        if hidden or not path.is_file() or not (is_figure or is_table):
            continue
        if not path.resolve().is_relative_to(root):  # a link out of the output folder
            continue
        try:
            entities = _parse_name(path)
        except AttributeError:  # not a BIDS name: shown last
            entities = {"suffix": path.stem, "extension": path.suffix}
        found.append(_File(path, entities))
    return found


def _matches(entities, wanted):
    return all(_fits(entities.get(entity), patterns) for entity, patterns in wanted.items())


def _fits(value, patterns):
    if value is None or patterns is None:
        return value is patterns
    patterns = patterns if isinstance(patterns, list) else [patterns]
    return any(fnmatchcase(value, str(pattern)) for pattern in patterns)


def _load_spec(spec):
    source = files("brainnrds.bids_specs") / "report.yml" if spec is None else Path(spec)
    try:
        sections = yaml.safe_load(source.read_text(encoding="utf-8"))["sections"]
        for section in sections:
            section["id"], section["title"], section["items"]  # noqa: B018 : must be there
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(
            f"The report specification {source} must be YAML with sections that have an id, a "
            f"title and items; got {type(error).__name__}: {error}."
        ) from error
    return sections


# filling sections --------------------------------------------------------------------------------


class _Entities(string.Formatter):
    def get_value(self, key, args, kwargs):
        return kwargs.get(key, "")


def _fill(text, entities):
    return " ".join(_Entities().vformat(text, (), entities).split())


def _fill_sections(sections, found, output_dir, max_video, problems):
    filled, taken = [], set()
    for section in sections:
        blocks = []
        for item in section["items"]:
            wanted = section.get("entities", {}) | item.get("entities", {})
            for file in found:
                if file.path in taken or not _matches(file.entities, wanted):
                    continue
                taken.add(file.path)
                blocks.append(
                    _block(
                        file,
                        _fill(item.get("title", ""), file.entities),
                        _fill(item.get("caption", ""), file.entities),
                        output_dir,
                        max_video,
                        problems,
                    )
                )
        if blocks:
            filled.append(
                {
                    "id": section["id"],
                    "title": section["title"],
                    "text": section.get("text", ""),
                    "blocks": blocks,
                }
            )
    others = [f for f in found if f.path not in taken and f.path.suffix in _MIME]
    if others:
        blocks = [_block(f, "", "", output_dir, max_video, problems) for f in others]
        filled.append({"id": "other", "title": "Other figures", "text": "", "blocks": blocks})
    return filled


def _block(file, title, caption, output_dir, max_video, problems):
    """Everything the template needs to show one file."""
    sidecar = _read_json(file.path.with_name(file.path.name.split(".")[0] + ".json"), problems)
    description = sidecar.get("Description", "")
    relative = file.path.relative_to(output_dir).as_posix()
    block = {
        "title": title or file.path.name.split(".")[0],
        "caption": " ".join(part for part in (caption, str(description)) if part),
        "path": relative,
        "anchor": re.sub(r"\W+", "-", relative),
    }
    if file.path.suffix == ".tsv":
        return block | {"kind": "table"} | _read_table(file.path, sidecar, problems)
    mime = _MIME[file.path.suffix]
    size = file.path.stat().st_size
    if size == 0:
        problems.append(f"{relative} is empty.")
    kind = {"video": "video", "text": "page"}.get(mime.split("/")[0], "image")
    if file.entities["suffix"] in ("viewer", "slices") and size < _MAX_VIEWER:
        kind, source = "viewer", file.path.read_text(encoding="utf-8")
    elif kind == "page" or (kind == "video" and size > max_video):
        source = relative
    else:
        source = f"data:{mime};base64,{base64.b64encode(file.path.read_bytes()).decode()}"
    return block | {"kind": kind, "source": source}


def _read_table(path, sidecar, problems):
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problems.append(f"{path.name} could not be read: {error}.")
        rows = []
    header, body = (rows[0], rows[1:]) if rows else ([], [])
    columns = []
    for i, name in enumerate(header):
        about = sidecar.get(name, {})
        about = about if isinstance(about, dict) else {"Description": str(about)}
        values = [row[i] for row in body if i < len(row) and row[i] not in ("", "n/a")]
        columns.append(
            {
                "name": name,
                "description": about.get("Description", ""),
                "units": about.get("Units", ""),
                "numeric": bool(values) and all(map(_is_number, values)),
            }
        )
    return {"columns": columns, "rows": body[:_MAX_ROWS], "n_rows": len(body)}


def _is_number(text):
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True


def _format_number(value):
    """Four significant digits for numbers, whole numbers with separators, the rest as it is."""
    if isinstance(value, bool) or value is None:
        return str(value)
    text = str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if re.fullmatch(r"[+-]?\d+", text):
        # a label such as 007 or an index is no quantity to be reformatted
        is_count = 5 <= len(text) <= _MOST_DIGITS and not text.startswith("0")
        return f"{int(text):,}" if is_count else text
    if not _is_number(text):
        return text
    return f"{float(text):.4g}"


# sidecars ----------------------------------------------------------------------------------------


def _read_json(path, problems):
    if not path.exists():
        return {}
    try:
        return load_json(path)
    except (OSError, InputError) as error:
        problems.append(f"{path.name} could not be read: {error}".replace(str(path), path.name))
        return {}


def _read_records(folder, problems):
    keys = ("Analysis", "Command", "Device", "Seconds")
    dicts = ("Summary", "Seeds", "Parameters", "Versions", "Warnings")
    records = []
    for path in sorted(folder.rglob("*_provenance.json"), key=_natural):
        content = _read_json(path, problems)
        if not content:
            continue
        record = {key: content.get(key) for key in keys}
        record |= {key: _flatten(content.get(key) or {}) for key in dicts}
        record["Methods"] = content.get("Methods")
        record["raw_parameters"] = content.get("Parameters") or {}
        record["Analysis"] = str(record["Analysis"] or path.name)
        records.append(record)
    return records


def _flatten(content, prefix=""):
    """Nested dicts as one level of "a.b" -> value, so that a table can show them."""
    if not isinstance(content, dict):
        content = {"": content}
    flat = {}
    for key, value in content.items():
        name = f"{prefix}.{key}".strip(".")
        if isinstance(value, dict) and value:
            flat |= _flatten(value, name)
        else:
            flat[name] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return flat


def _methods(records, problems):
    paragraphs, keys = [], []
    for record in records:
        text = record["Methods"]
        if text is None:
            try:
                text = methods_text(record["Analysis"], record["raw_parameters"])
            except ValueError:  # an analysis of which no text is known
                continue
        html, keys = link_citations(str(text), keys)
        paragraphs.append({"analysis": record["Analysis"], "html": html})
    known = load_references()
    for key in keys:
        if key not in known:
            problems.append(f"The methods text cites [@{key}], which is not known.")
    return paragraphs, [known.get(key, {"text": key}) for key in keys]


def _data_set_name(output_dir):
    content = _read_json(output_dir / "dataset_description.json", [])
    return str(content.get("Name", output_dir.name))
