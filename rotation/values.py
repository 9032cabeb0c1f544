"""The values behind versions: read out of the form that they are stored in, and found by their key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rotation import form as forms
from rotation import journal as facts
from rotation.errors import Code, Trouble
from rotation.model import Credential, Entry, Version
from rotation.outside import Outside
from rotation.situation import Absent, Observation, Situation, foreign_token


class Values:
    """Reads values. Nothing of them is kept here."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    def read(self, seen: Observation, entry: Entry, version: Version) -> Credential:
        """The credential in a version of an entry, out of the form that it is stored in.

        Raises:
            Trouble: it can not be read, or is not of the declared form (INVALID).
        """
        try:
            return forms.parse(self.stored(entry, version), self.form(seen))
        except forms.FormError as error:
            raise Trouble(Code.INVALID, entry.store, f"{entry.name}: {error}") from None

    def stored(self, entry: Entry, version: Version) -> Credential:
        """What a version of an entry holds, in whatever form that is."""
        return version.credential or self._outside.stores[entry.store].read(entry.name, version)

    def parsed(self, seen: Observation, entry: Entry, version: Version) -> Credential | None:
        """The credential in a version; None when it is not of the declared form."""
        try:
            return self.read(seen, entry, version)
        except Trouble as trouble:
            if trouble.code is Code.INVALID:
                return None
            raise

    def rendered(self, seen: Observation, credential: Credential) -> Credential:
        """A credential as it is to be stored.

        Raises:
            Trouble: it does not fit the declared form (INVALID).
        """
        try:
            return forms.render(credential, self.form(seen))
        except forms.FormError as error:
            raise Trouble(Code.INVALID, seen.policy.issuer, f"{seen.primary.name}: {error}") from None

    def form(self, seen: Observation) -> str:
        """The form that values are to be stored in."""
        return seen.policy.form or forms.default(self._outside.issuer(seen).capabilities.fields)

    def of(self, key: str, s: Situation, *, surely: bool = False) -> Credential | None:
        """The value of a key, from whatever version of the primary still holds it.

        Parameters:
            surely: not from one that may hold another key's: two have one token where a mint arrived twice, and an orphan
                may be either of them.
        """
        seen, primary = s.seen, s.seen.primary
        for version in (primary.current, primary.pending):
            if version is not None and s.key_of(version) == key and s.readable(version):
                return self.read(seen, primary, version)
        store = self._outside.stores[primary.store]
        if (adopted := primary.journal.adopted.get(key)) is not None:
            if not s.in_form(primary.journal.forms.get(key)):
                return None  # read in another form it would be another text, and refused
            try:
                return self.read(seen, primary, Version(adopted, None))
            except Trouble as trouble:
                if trouble.code not in (Code.NOT_FOUND, Code.INVALID):
                    raise
                return None
        for token in (key, *(a.token for a in s.attempts_of(key) if a.token != key)):
            found = store.find(primary.name, token)
            if surely and found is not None and not s.surely_of(found, key):
                continue
            # Of a version whose attempt is forgotten nothing tells the form.
            if found is not None and s.readable(found) and (held := self.parsed(seen, primary, found)) is not None:
                return held
        return None

    def was_stored(self, key: str, s: Situation) -> bool:
        """Whether the primary has a version of a key that we minted, be it readable or not."""
        store, entry = self._outside.stores[s.seen.primary.store], s.seen.primary.name
        return any(store.find(entry, attempt.token) is not None for attempt in s.attempts_of(key))

    def printed(self, written: Mapping[str, str], s: Situation, known: Mapping[str, Credential]) -> Mapping[str, str]:
        """Facts with the fingerprints of the keys that they are about, as far as values are at hand: none is read for it.

        Parameters:
            known: values by key token.
        """
        tokens = {token for kind, _, token in (key.partition(".") for key in written) if kind in facts.PRINTED}
        if not tokens:
            return written
        prints, ids = dict(s.seen.primary.journal.prints), facts.Journal(written).key_ids
        for token in tokens - prints.keys():
            credential = known.get(token) or self._at_hand(token, s)
            if credential is not None and self._outside.prints is not None:
                prints[token] = self._outside.prints(credential, ids.get(token) or s.key_id(token))
        return facts.printed(written, prints)

    def _at_hand(self, key: str, s: Situation) -> Credential | None:
        """The value of a key, where the look has brought it along."""
        primary = s.seen.primary
        for version in (primary.current, primary.pending):
            if version and version.credential and key in (s.key_of(version), foreign_token(primary, version)):
                return self.parsed(s.seen, primary, version)
        return None

    def every(self, key: str, s: Situation) -> Iterator[Credential]:
        """Every value of a key that a store of the secret still gives."""
        if (ours := self.of(key, s)) is not None:
            yield ours
        for entry in s.seen.replicas.values():
            if isinstance(entry, Absent):
                continue
            for version in (entry.current, entry.pending):
                mine = version is not None and s.key_of(version) == key
                if version and mine and (theirs := self.parsed(s.seen, entry, version)) is not None:
                    yield theirs

    def key_in(self, version: Version, s: Situation) -> str | None:
        """Token of the key whose value a version of the primary holds."""
        held = self.parsed(s.seen, s.seen.primary, version)
        if held is None:
            return None
        for key in reversed(s.keys):
            if key != s.current_key and any(ours.same_as(held, trimmed=True) for ours in self.every(key, s)):
                return key
        return None
