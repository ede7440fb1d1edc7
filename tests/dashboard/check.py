"""Checks a dashboard against Grafana's own schema, which its SDK is generated from: each key must
be known, and each value of its type. Prints what is wrong; the exit code says whether anything is.
"""

import enum
import json
import sys
import typing

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard


def as_json(model):
    return json.loads(json.dumps(model, cls=JSONEncoder))


def lost(given, known, at):
    """The keys of `given` that are not in `known`, which is what the SDK read of it."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            if key in known:
                yield from lost(value, known[key], f"{at}.{key}")
            else:
                yield f"{at}.{key}: Grafana has no such key"
    elif isinstance(given, list) and isinstance(known, list) and len(given) == len(known):
        for nth, pair in enumerate(zip(given, known)):
            yield from lost(*pair, f"{at}[{nth}]")
    elif given != known:
        yield f"{at}: {given!r} is read as {known!r}"


def mistyped(value, hint, at):
    """What is wrong with a value of the SDK that should be of the type `hint`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (object, typing.Any):
        found = fields(value, at)  # such as the options of a panel, by its type
    elif origin is typing.Union:
        found = of_union(value, arguments, at)
    elif origin is typing.Literal:
        found = refuse(value in arguments, value, hint, at)
    elif origin is list:
        found = elements(value, list, arguments[0], at)
    elif origin is dict:
        found = elements(value, dict, arguments[1], at)
    elif issubclass(hint, enum.Enum):
        found = refuse(value in [item.value for item in hint], value, hint, at)
    elif isinstance(value, dict) and hasattr(hint, "from_json"):
        found = unread(value, hint, at)
    elif not is_a(value, hint):
        found = refuse(False, value, hint, at)
    else:
        found = fields(value, at)
    yield from found


def of_union(value, hints, at):
    """A value is judged by the alternative that has its class, if there is one."""
    fitting = [hint for hint in hints if (hint is type(None)) == (value is None)]
    own = [hint for hint in fitting if type(value) is hint] or fitting or hints
    return min([list(mistyped(value, hint, at)) for hint in own], key=len)


def unread(value, hint, at):
    """A part that the SDK keeps as it is."""
    model = hint.from_json(value)
    return [*lost(value, as_json(model), at), *fields(model, at)]


def elements(value, kind, hint, at):
    if not isinstance(value, kind):
        yield from refuse(False, value, kind, at)
        return
    for key, element in value.items() if kind is dict else enumerate(value):
        yield from mistyped(element, hint, f"{at}[{key}]")


def fields(value, at):
    if hasattr(value, "to_json"):
        for name, hint in typing.get_type_hints(type(value)).items():
            yield from mistyped(getattr(value, name), hint, f"{at}.{name}")


def is_a(value, hint):
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def refuse(is_right, value, hint, at):
    return [] if is_right else [f"{at}: {value!r} is not of the type {hint}"]


def wrong_with(dashboard):
    try:
        model = Dashboard.from_json(dashboard)
    except Exception as error:  # whatever the SDK makes of nonsense
        return [f"it cannot be read: {error!r}"]
    at = "dashboard"
    unknown = [panel.type_val for panel in model.panels if isinstance(panel.options, dict)]
    types = [f"{at}.panels: Grafana has no panel of the type {name!r}" for name in unknown]
    return [*types, *lost(dashboard, as_json(model), at), *fields(model, at)]


plugins.register_default_plugins()
with open(sys.argv[1], encoding="utf-8") as file:
    faults = wrong_with(json.load(file))
print(*faults, sep="\n", end="\n" if faults else "")
sys.exit(bool(faults))
