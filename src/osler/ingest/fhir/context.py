"""What a converter may ask about the other resources of its record."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from osler.ingest.fhir.documents import Found
from osler.ingest.fhir.fields import Json, child, children, concept, reference, string, when
from osler.ingest.fhir.records import Coding, Concept, When

_resource = msgspec.json.Decoder(dict[str, Any], float_hook=str)  # numbers keep their digits


def decode(found: Found) -> dict[str, Any] | None:
    """All of a resource; None where it turns out to be malformed."""
    try:
        return _resource.decode(found.raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def reference_key(text: str) -> str:
    """What is the same for all ways to refer to a resource: "Type/id", or a URN.

    >>> reference_key("https://fhir.example/r4/Condition/7/_history/2")
    'Condition/7'
    """
    if text.startswith("urn:"):
        return text
    if text.count("/") > 1:
        text = "/".join(text.partition("/_history/")[0].rsplit("/", 2)[-2:])
    return text


class Context:
    """The resources that may be referred to, and what was found wrong on the way.

    Args:
        index: resources by `reference_key` of all that they are called.
    """

    def __init__(self, index: Mapping[str, Found]) -> None:
        self._index = index
        self.problems: Counter[str] = Counter()
        self._last: Found | None = None
        self._last_decoded: Json | None = None

    def source(self, text: str) -> str:
        """A reference as answers cite it; itself where it leads out of the record."""
        found = self._index.get(reference_key(text))
        return reference_key(text) if found is None else found.source

    def find(self, text: str, within: Json | None = None) -> Json | None:
        """The resource that a reference points to, or None; never more than one step.

        Args:
            text: the reference.
            within: the resource that it stands in, among whose contained ones "#x" is sought.
        """
        if text.startswith("#"):
            inside = children(within or {}, "contained")
            return next((item for item in inside if item.get("id") == text[1:]), None)
        found = self._index.get(reference_key(text))
        if found is not self._last:
            # Many may refer to one large resource, one after the other.
            self._last, self._last_decoded = found, None if found is None else decode(found)
        return self._last_decoded

    def words(self, value: Json, within: Json) -> str:
        """A Reference in words: its display, or the name of what it points to."""
        if display := string(value, "display"):
            return display
        target = self.find(reference(value), within) if reference(value) else None
        return "" if target is None else concept(child(target, "code")).text

    def words_of_all(self, within: Json, key: str) -> tuple[str, ...]:
        """The words of each Reference of a list, each once."""
        found = (self.words(item, within) for item in children(within, key))
        return tuple(dict.fromkeys(filter(None, found)))

    def reasons(self, resource: Json) -> tuple[str, ...]:
        """`reasonCode` and `reasonReference` in words, each once."""
        coded = (concept(item).text for item in children(resource, "reasonCode"))
        referred = self.words_of_all(resource, "reasonReference")
        return tuple(dict.fromkeys([*filter(None, coded), *referred]))

    def date(self, value: Json, *keys: str) -> When | None:
        """The first of some dates that is there."""
        for key in keys:
            if (text := value.get(key)) is not None:
                if (found := when(text)) is not None:
                    return found
                self.problems["a date that is none"] += 1
        return None

    def common(self, resource: Json, found: Found, what: Concept) -> dict[str, Any]:
        """What every event has, but its dates."""
        encounter = reference(child(resource, "encounter"))
        notes = [string(item, "text") for item in children(resource, "note")]
        if not what.text:
            self.problems["no name or code"] += 1
        return {
            "source": found.source,
            "what": what,
            "status": string(resource, "status"),
            "encounter": self.source(encounter) if encounter else "",
            "comments": tuple(filter(None, notes)),
        }


Converter = Callable[[Json, Found, Context], Any]


def named(text: str, code: Coding | None = None) -> Concept:
    """A concept of words that FHIR gives outside a CodeableConcept."""
    return Concept(text, (code,) if code else ())
