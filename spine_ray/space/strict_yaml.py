"""YAML without surprises: safe, no key said twice, `1e-3` is a number, and no number is endless."""

import re
from collections.abc import Hashable
from typing import Any

import yaml

_MERGE_TAG = "tag:yaml.org,2002:merge"
_FLOAT_TAG = "tag:yaml.org,2002:float"
_EXPONENT_FLOAT = re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, which also refuses duplicate keys and reads exponents as YAML 1.2 does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != _MERGE_TAG and isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is there twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        """Return a whole number of at most 64 bits: what takes more is no setting, and no float either."""
        value = int(self.construct_yaml_int(node))
        if abs(value) >= 2**63:
            raise yaml.constructor.ConstructorError(None, None, "a number of more than 64 bits", node.start_mark)
        return value


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_whole)
# PyYAML follows YAML 1.1, where a float needs a dot and a signed exponent: `1e-3` would be a string.
_StrictLoader.add_implicit_resolver(_FLOAT_TAG, _EXPONENT_FLOAT, list("-+.0123456789"))


def read_yaml(text: str) -> Any:
    """Return the plain values that a YAML text holds.

    Raises:
        ValueError: If the text is not YAML, says a key twice or asks for anything but plain values.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"not readable as YAML{where}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"not readable as YAML: {' '.join(str(error).split())}") from error


def write_yaml(values: Any) -> str:
    """Return plain values as YAML that any YAML reader understands, keys in their order, with YAML's mark of an end."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110, explicit_end=True)
