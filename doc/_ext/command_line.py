"""The ``command-line`` directive: the options of the App, from the dataclasses that make them."""

import re
from dataclasses import fields

from sphinx.util.docutils import SphinxDirective

from brainnrds.analyses import options
from brainnrds.cli import OPTIONS


class CommandLine(SphinxDirective):
    """``.. command-line::`` makes a section of each class of options."""

    has_content = False

    def run(self):
        lines, told = [], set()
        kinds = (*OPTIONS.values(), options.EncodeGroupOptions, options.PredictOptions)
        for kind in (options.Selection, *kinds):
            for owner in reversed([k for k in kind.__mro__ if hasattr(k, "title")]):
                own = owner.__dict__.get("__annotations__", {})
                rows = [about for about in fields(owner) if about.name in own and about.metadata]
                if rows and owner.__name__ not in told:
                    lines += self._section(owner, rows)
                told.add(owner.__name__)
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)

    def _section(self, owner, rows):
        title = owner.title[0].upper() + owner.title[1:]
        about = " ".join(owner.__doc__.split())
        lines = [title, "-" * len(title), "", about, ""]
        lines += [".. list-table::", "   :widths: 30 18 52", "   :header-rows: 1", ""]
        lines += ["   * - Option", "     - Default", "     - Meaning"]
        for about in rows:
            name = options.flag(about)
            metavar = about.metadata["metavar"]
            taken = " ".join(metavar) if isinstance(metavar, tuple) else metavar or ""
            several = " ..." if about.metadata["many"] in (True, "*") else ""
            default = options.shown_default(about) or ""
            meaning = about.metadata["help"].replace("*", r"\*").rstrip(".")
            meaning = re.sub(r"(--[\w-]+)", r"``\1``", meaning) + "."
            if about.metadata["choices"]:
                meaning += f" One of {', '.join(options.choices_of(about))}."
            if not about.metadata["in_key"]:
                meaning += " Does not decide the result."
            if about.metadata["content"]:
                meaning += " A file or folder decides by its content."
            lines += [f"   * - ``{name}`` {taken}{several}", f"     - {default}"]
            lines += [f"     - {meaning}"]
        return [*lines, ""]


def setup(app):
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
