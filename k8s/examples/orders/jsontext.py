"""JSON with exact decimal numbers: Python's own writer knows only binary floating point, in which 0.1 + 0.2 is
not 0.3, and money must not pass through that."""

import json
from decimal import Decimal


def load(data):
    """Numbers become int or Decimal with the digits they are written in. Raises ValueError."""

    def no_constant(name):
        raise ValueError(f"{name} is no JSON number")

    try:
        return json.loads(data, parse_float=Decimal, parse_constant=no_constant)
    except ArithmeticError as error:  # an exponent beyond what Decimal holds
        raise ValueError(error)


def dump(value):
    """Compact, on one line, in UTF-8; a Decimal is written in plain digits, with the zeros it has at its end."""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dict):
        return "{" + ",".join(f"{dump(key)}:{dump(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(dump(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)
