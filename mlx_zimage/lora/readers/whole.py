"""Changes that are stored as whole weights."""

from ..forms import Dense, Form, Replacement
from ..group import Group, Shapes, Values


def diff_shapes(group: Group) -> Shapes:
    return {"diff": group.shape}


def diff(group: Group, values: Values) -> Form:
    return Dense(values["diff"])


def set_shapes(group: Group) -> Shapes:
    return {"set_weight": group.shape}


def replacement(group: Group, values: Values) -> Form:
    return Replacement(values["set_weight"])
