"""Shows the constructor of equinox modules: like a dataclass, its parameters are the fields."""

from typing import Any

import griffe


class EquinoxFields(griffe.Extension):
    """Adds `__init__` to classes that derive from `equinox.Module` and write none themselves."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Take the annotated attributes of the class in their order."""
        if "__init__" in cls.members or not _is_module(cls):
            return
        parameters = [
            griffe.Parameter(
                name,
                annotation=field.annotation,
                default=_default(field.value),
                kind=griffe.ParameterKind.positional_or_keyword,
            )
            for name, field in cls.members.items()
            if isinstance(field, griffe.Attribute)
            and field.annotation is not None
            and "instance-attribute" in field.labels  # neither a ClassVar nor a property
            and not str(field.annotation).startswith("eqx.AbstractVar")
        ]
        if parameters:
            constructor = griffe.Function("__init__", parameters=griffe.Parameters(*parameters))
            constructor.parent = cls
            cls.set_member("__init__", constructor)


def _is_module(cls: griffe.Class) -> bool:
    known = {
        "eqx.Module",
        "Policy",
        "DynamicGame",
        "TabularGame",
        "PopulationGame",
        "MeanFieldGame",
    }
    return any(str(base) in known for base in cls.bases)


def _default(value: Any) -> Any:
    """`eqx.field(static=True)` says how a field is kept and is no default."""
    return None if value is None or str(value).startswith("eqx.field(") else value
