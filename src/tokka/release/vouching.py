"""Whose signature counts at a point of the trail: keys enrolled and dismissed, sessions opened.

Acts, in order → why nobody vouches for one. What an actor may do is another question (`duties`).

>>> people = People()
>>> people.fault(signed, canonical_json(signed.act).encode())
"suzuki isn't enrolled at that point"
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tokka.release.chain import holds
from tokka.release.records import Act, Signed

API_KEY = "api_key"  # the part of a note's details that is about an API key
NEVER_BY_SESSION = ("enrol", "dismiss")
NEVER = "9999"  # sorts after every date


@dataclass(frozen=True, slots=True)
class _Session:
    """An API key that is bound to an actor."""

    actor: str
    public_key: str
    expires: str


@dataclass(slots=True)
class People:
    """Whose signature counts at a point of the trail. `actors`: name → public key; `sessions`: the
    API key's id → session."""

    actors: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, _Session] = field(default_factory=dict)
    begun: bool = False  # somebody was enrolled once

    def fault(self, signed: Signed, data: bytes) -> str | None:
        """Why nobody vouches for this act, or None. `data` is its canonical JSON."""
        act = signed.act
        key = self.actors.get(act.actor)
        if act.kind == "enrol" and not self.begun and act.details.get("name") == act.actor:
            key = str(act.details.get("public_key", ""))  # the first one enrols himself
        if key is None:
            return f"{act.actor} isn't enrolled at that point"
        if signed.method == "key":
            held = holds(key, data, signed.signature)
            return None if held else f"the signature isn't {act.actor}'s"
        session = self.sessions.get(signed.session)
        if act.kind in NEVER_BY_SESSION:
            return f"{act.kind} can't be done in a session"
        if session is None or session.actor != act.actor or session.expires <= act.at:
            return f"the session {signed.session} isn't one of {act.actor} at that point"
        if not holds(session.public_key, data, signed.signature):
            return f"the signature isn't of {act.actor}'s session {signed.session}"
        return None

    def follow(self, act: Act) -> None:
        """Take in an act that somebody vouched for."""
        details = act.details
        if act.kind == "enrol":
            self.begun = True
            self.actors[str(details.get("name"))] = str(details.get("public_key", ""))
        elif act.kind == "dismiss":
            self.actors.pop(str(details.get("name")), None)
        elif act.kind == "note" and isinstance(details.get(API_KEY), dict):
            said = details[API_KEY]
            if said.get("does") == "revoke":
                self.sessions.pop(str(said.get("id")), None)
            elif said.get("actor") == act.actor and said.get("public_key"):
                # Whoever issues a key sees its secret: nobody opens a session for another.
                self.sessions[str(said.get("id"))] = _Session(
                    act.actor, str(said["public_key"]), str(said.get("expires") or NEVER)
                )
