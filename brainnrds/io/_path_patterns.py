"""Path patterns as pybids has them, read: what a path says by the places of its entities."""

import re

from brainnrds._checks import InputError

__all__ = ["PathPattern"]

_PART = re.compile(r"\{(?P<entity>\w+)(?:<(?P<valid>[^<>{}]*)>)?(?:\|[^{}]*)?\}|[\[\]]")
_LABEL = "[0-9a-zA-Z+]+"
_LONGEST = 1000


class PathPattern:
    """A path pattern such as ``sub-{subject}/sub-{subject}_task-{task}_bold{extension<.nii.gz>}``.

    Parameters
    ----------
    text : str
        ``{entity}`` stands for a label, ``{entity<a|b>}`` for one of those given; what is in
        brackets may be absent. An entity that is there twice is the same both times.

    Raises
    ------
    InputError
        Brackets or braces that do not close, no ``{subject}`` or no ``{task}``.
    """

    def __init__(self, text):
        if not isinstance(text, str) or not 0 < len(text) <= _LONGEST:
            raise InputError(f"`derivatives_pattern` must be a path pattern; got {text!r:.80}.")
        self.text = text.strip("/")
        self.depth = self.text.count("/")
        expression, end, depth, seen = "", 0, 0, set()
        for part in _PART.finditer(self.text):
            expression += _literal(self.text[end : part.start()], text)
            end, entity = part.end(), part["entity"]
            if entity is None:
                depth += 1 if part[0] == "[" else -1
                expression += "(?:" if part[0] == "[" else ")?"
            elif entity in seen:
                # where an optional part was absent, there is nothing to repeat
                expression += f"(?P={entity})"
            else:
                seen.add(entity)
                labels = [re.escape(label) for label in (part["valid"] or "").split("|") if label]
                expression += f"(?P<{entity}>{'|'.join(labels) or _LABEL})"
            if depth not in (0, 1):
                break
        expression += _literal(self.text[end:], text)
        lacking = {"subject", "task"} - seen
        if depth or lacking:
            why = f"{{{'} and {'.join(sorted(lacking))}}} in it" if lacking else "pairs of brackets"
            raise InputError(f"`derivatives_pattern` must have {why}; got {text[:200]!r}.")
        self._expression = re.compile(expression)

    def read(self, path):
        """Give the entities of a path, relative to the derivatives, or None where it is another."""
        found = self._expression.fullmatch(path)
        if found is None:
            return None
        labels = {entity: label for entity, label in found.groupdict().items() if label is not None}
        for entity in ("datatype", "suffix", "extension"):
            labels.pop(entity, None)
        return labels


def _literal(text, pattern):
    if re.search(r"[{}<>]", text):
        raise InputError(f"`derivatives_pattern` must have pairs of braces; got {pattern[:200]!r}.")
    return re.escape(text)
