"""Methods text of an analysis, with citations, from the parameters that it recorded."""

import functools
import json
import re
from importlib.resources import files

import jinja2
import markupsafe

from brainnrds._checks import InputError

__all__ = ["link_citations", "load_references", "methods_text"]


def methods_text(analysis, parameters):
    """Write the methods of an analysis as a text to be used in a paper.

    Parameters
    ----------
    analysis : str
        Name of a text in ``templates/methods_<analysis>.txt``, for example "encode".
    parameters : dict
        What the analysis recorded. Every sentence needs the parameters it speaks of: what is
        missing is left out, never guessed.

    Returns
    -------
    text : str
        Paragraphs divided by empty lines; citations as ``[@key]``.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("brainnrds.reporting", "templates"), autoescape=False
    )
    try:
        template = environment.get_template(f"methods_{analysis}.txt")
    except jinja2.TemplateNotFound as error:
        known = sorted(
            name.removeprefix("methods_").removesuffix(".txt")
            for name in environment.list_templates()
            if name.startswith("methods_")
        )
        raise InputError(f"`analysis` must be one of {known}; got {analysis!r}.") from error
    paragraphs = re.split(r"\n\s*\n", template.render(p=parameters))
    return "\n\n".join(" ".join(text.split()) for text in paragraphs if text.strip())


@functools.cache
def load_references():
    """Read what can be cited: dict of key -> dict with `text` and, where known, `url`."""
    source = files("brainnrds.reporting") / "templates" / "references.json"
    return json.loads(source.read_text(encoding="utf-8"))


def link_citations(text, cited=()):
    """Turn ``[@key]`` into numbered links to the list of references.

    Parameters
    ----------
    text : str
        Plain text: everything else in it is escaped.
    cited : sequence of str, default=()
        Keys that have numbers already.

    Returns
    -------
    html : markupsafe.Markup
    cited : list of str
        Keys in the order of their numbers.
    """
    cited = list(cited)

    def link(match):
        numbers = []
        for key in re.findall(r"@([\w-]+)", match.group()):
            if key not in cited:
                cited.append(key)
            number = cited.index(key) + 1
            numbers.append(f'<a href="#ref-{number}">{number}</a>')
        return "[" + ", ".join(numbers) + "]"

    paragraphs = [
        re.sub(r"\[@[^]]+\]", link, str(markupsafe.escape(paragraph)))
        for paragraph in text.split("\n\n")
    ]
    html = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    return markupsafe.Markup(html), cited
