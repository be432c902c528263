"""What a converter may ask about the other resources of its record."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from osler.ingest.fhir.documents import Found
from osler.ingest.fhir.fields import (
    Json,
    children,
    concept,
    is_null,
    plain,
    reference,
    remembering,
    string,
    when,
    words_of_all,
)
from osler.ingest.fhir.records import Coding, Concept, When


def decode(found: Found) -> Json | None:
    """A resource's fields; None where it turns out to be malformed."""
    try:
        str(found.raw, "utf-8")  # all else was checked when its fields were found
        return found.fields
    except UnicodeDecodeError:
        return None


@remembering
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
        self._last_within: Json | None = None
        self._contained: dict[str | None, Json] = {}

    def source(self, text: str) -> str:
        """A reference as answers cite it; itself where it leads out of the record."""
        found = self._index.get(reference_key(text))
        return reference_key(text) if found is None else found.source

    def find(self, link: str, within: Json | None = None) -> Json | None:
        """The resource that a reference points to, or None; never more than one step.

        Args:
            link: the reference.
            within: the resource that it stands in, among whose contained ones "#x" is sought.
        """
        # Many may refer to one large resource, one after the other.
        if link.startswith("#"):
            if within is not self._last_within:
                self._last_within = within
                inside = children(within or {}, "contained")
                self._contained = {plain(item, "id"): item for item in reversed(inside)}
            return self._contained.get(link[1:])
        found = self._index.get(reference_key(link))
        if found is not self._last:
            self._last, self._last_decoded = found, None if found is None else decode(found)
        return self._last_decoded

    def words(self, value: Json, within: Json) -> str:
        """A Reference in words: its display, or the name of what it points to."""
        if display := string(value, "display"):
            return display
        link = string(value, "reference")
        target = self.find(link, within) if link else None
        return "" if target is None else concept(target, "code").text

    def words_of_all(self, within: Json, key: str) -> tuple[str, ...]:
        """The words of each Reference of a list, each once."""
        found = (self.words(item, within) for item in children(within, key))
        return tuple(dict.fromkeys(filter(None, found)))

    def reasons(self, resource: Json) -> tuple[str, ...]:
        """`reasonCode` and `reasonReference` in words, each once."""
        coded = words_of_all(resource, "reasonCode")
        referred = self.words_of_all(resource, "reasonReference")
        return tuple(dict.fromkeys(coded + referred)) if referred else coded

    def date(self, value: Json, *keys: str) -> When | None:
        """The first of some dates that is there."""
        for key in keys:
            if key in value:
                if (found := when(value, key)) is not None:
                    return found
                if not is_null(value, key):
                    self.problems["a date that is none"] += 1
        return None

    def common(self, resource: Json, found: Found, what: Concept) -> dict[str, Any]:
        """What every event has, but its dates."""
        encounter = reference(resource, "encounter")
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
