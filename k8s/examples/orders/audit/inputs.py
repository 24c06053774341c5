"""Reads what check.py is given, and says which file and line is wrong when it can't."""

import datetime
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from jsontext import load  # noqa: E402


class BadInput(Exception):
    """A file that can't be read or has another shape than expected."""


def document(path):
    try:
        return load(pathlib.Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: {error}")


def lines(path, required):
    """JSON lines, each an object with at least the members `required`."""
    try:
        data = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: {error}")
    objects = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = load(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}:{number}: {error}")
        missing = [name for name in required if not isinstance(value, dict) or name not in value]
        if missing:
            raise BadInput(f"{path}:{number}: no {', '.join(missing)}")
        objects.append(value)
    return objects


def listed(path, required):
    """The objects of a `-o json` list: an array, or an object whose one array member it is."""
    value = document(path)
    if isinstance(value, dict):
        arrays = [member for member in value.values() if isinstance(member, list)]
        value = arrays[0] if len(arrays) == 1 else None
    if not isinstance(value, list):
        raise BadInput(f"{path}: expected a list")
    for entry in value:
        if not isinstance(entry, dict) or any(name not in entry for name in required):
            raise BadInput(f"{path}: expected objects with {', '.join(required)}, found {str(entry)[:100]}")
    return value


def rows(path):
    """{key: row} of a read model's dump: an object of rows by key, or a list of {"key", "row"}."""
    value = document(path)
    if isinstance(value, dict) and all(isinstance(row, dict) for row in value.values()):
        return value
    by_key = {}
    for entry in listed(path, ["key", "row"]):
        if entry["key"] in by_key:
            raise BadInput(f"{path}: the key {entry['key']} is there twice")
        by_key[entry["key"]] = entry["row"]
    return by_key


STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


def instant(text):
    """(seconds, nanoseconds) of an RFC 3339 timestamp, or None. Two spellings of one moment are equal."""
    match = STAMP.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    try:
        moment = datetime.datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
    except ValueError:
        return None
    return int(moment.timestamp()), int((match[2] or "0").ljust(9, "0"))
