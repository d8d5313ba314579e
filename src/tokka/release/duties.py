"""Who may do what, as data, and the one question that every act must pass.

Signed act × Books → nothing, or NotPermitted with the reason. `replay` asks it again of a whole
trail: what stands there although it wasn't allowed has no effect and is named.

>>> permit(signed, books)
NotPermitted: approve: tanaka built aoba-1, so tanaka may not approve it; ask sato or suzuki
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from pydantic import ValidationError

from tokka.errors import UsageError
from tokka.records import fingerprint
from tokka.release.keys import holds, normal_public_key
from tokka.release.records import (
    DUTIES,
    Act,
    ActKind,
    Actor,
    Duty,
    Entry,
    Signed,
    Stage,
)
from tokka.release.standing import (
    API_KEY,
    QUORUM,
    Books,
    KeyDetails,
    ReleaseDetails,
    Version,
    actor_of,
    days_later,
    model_of,
    moment,
    person,
)

SKEW = timedelta(minutes=5)  # by which the clocks of two machines may differ
DIGEST = re.compile(r"[0-9a-f]{64}")
MODEL = re.compile(r"\w[\w.+-]{0,63}")


class NotPermitted(UsageError):
    """Somebody may not do that, or not now, or not that way."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may do one kind of act. `about` is what it must name; `builder`: whether who built the
    version may; `session`: whether a session may vouch for it; `why`: whether it needs a comment.
    """

    duties: frozenset[Duty]
    about: Literal["ledger", "model", "version", "any"]
    builder: bool = True
    session: bool = False
    why: bool = False


def _by(*duties: Duty) -> frozenset[Duty]:
    return frozenset(duties)


RULES: dict[ActKind, Rule] = {
    "enrol": Rule(_by("owner"), "ledger"),
    "dismiss": Rule(_by("owner"), "ledger"),
    "register": Rule(_by("owner", "developer"), "model"),
    "release": Rule(_by("developer"), "version"),
    "validate": Rule(_by("validator"), "version", builder=False),
    "approve": Rule(_by("approver"), "version", builder=False, session=True),
    "reject": Rule(_by("approver", "validator"), "version", builder=False, session=True, why=True),
    "withdraw": Rule(_by("owner", "approver"), "version", why=True),
    "serve": Rule(_by("owner", "developer"), "version"),
    "retire": Rule(_by("owner"), "version"),
    "note": Rule(frozenset(DUTIES), "any", session=True),
    "evidence": Rule(frozenset(DUTIES), "any"),
}

# From which stage an act may come, and to which it may lead. "" is a version that isn't there yet;
# what isn't listed is refused. Notes and evidence change no stage and are allowed in each.
NEXT: dict[tuple[Stage | Literal[""], ActKind], tuple[Stage, ...]] = {
    ("", "release"): ("draft",),
    ("draft", "validate"): ("validated",),
    ("validated", "validate"): ("validated",),
    ("approved", "validate"): ("approved",),
    ("serving", "validate"): ("serving",),
    ("draft", "approve"): ("draft", "approved"),  # only in a tier that asks no validation
    ("validated", "approve"): ("validated", "approved"),
    ("approved", "approve"): ("approved",),
    ("serving", "approve"): ("serving",),
    ("draft", "reject"): ("rejected",),
    ("validated", "reject"): ("rejected",),
    ("approved", "withdraw"): ("withdrawn",),
    ("serving", "withdraw"): ("withdrawn",),
    ("approved", "serve"): ("serving",),
    ("serving", "serve"): ("serving",),
    ("draft", "retire"): ("retired",),
    ("validated", "retire"): ("retired",),
    ("approved", "retire"): ("retired",),
    ("serving", "retire"): ("retired",),
}


def permit(signed: Signed, books: Books, clock: str | None = None) -> None:
    """Raise NotPermitted unless this act may be done now, by this actor, vouched for in this way.
    With a `clock` (UTC), the act's time must be the present."""
    act = signed.act
    _in_time(act, books, clock)
    _once(act, books)
    if not books.actors:
        _first(signed)
        return
    actor = _active(act, books)
    _vouched(signed, actor, books)
    rule = RULES[act.kind]
    if not rule.duties & set(actor.duties):
        raise NotPermitted(
            f"{act.kind}: {act.actor} is {_words(actor.duties)}; that takes the duty "
            f"{_words(d for d in DUTIES if d in rule.duties)}"
        )
    if rule.why and not act.comment.strip():
        raise NotPermitted(f"{act.kind}: say why, with --comment")
    if rule.about == "ledger" and (act.model or act.version is not None or act.digest):
        raise NotPermitted(f"{act.kind}: is about no model, got {act.model!r}")
    if rule.about == "version":
        _of_version(act, books, rule)
    elif rule.about == "any":
        _of_anything(act, books)
    if act.kind in _OWN:
        _OWN[act.kind](act, books)


def replay(entries: Iterable[Entry]) -> Books:
    """What a trail adds up to. Entries that weren't allowed stand in `Books.refused`."""
    books = Books()
    for entry in entries:
        follow(books, entry)
    return books


def follow(books: Books, entry: Entry) -> None:
    """Take one more entry in, if it was allowed; else note why not."""
    try:
        permit(entry.signed, books)
    except NotPermitted as error:
        books.follow(entry, refusal=str(error))
    else:
        books.follow(entry)


# ---- of every act -------------------------------------------------------------------------------


def _in_time(act: Act, books: Books, clock: str | None) -> None:
    times = [act.at, *([act.expires] if act.expires else [])]
    try:
        at, *_ = [moment(text) for text in times]
    except ValueError as error:
        raise NotPermitted(
            f"{act.kind}: times are UTC such as 2026-11-23T01:02:03Z, got {', '.join(times)}"
        ) from error
    if books.at and at < moment(books.at) - SKEW:
        raise NotPermitted(
            f"{act.kind}: its time {act.at} is before the last act's, {books.at}; set the clock"
        )
    if clock is not None and abs(at - moment(clock)) > SKEW:
        raise NotPermitted(f"{act.kind}: its time {act.at} isn't now ({clock}); set the clock")


def _once(act: Act, books: Books) -> None:
    if fingerprint(act) in books.acts:
        raise NotPermitted(f"{act.kind}: this act of {act.at} is in the trail already")
    if not books.number:
        return
    if act.head and act.head not in books.hashes:
        raise NotPermitted(
            f"{act.kind}: it was signed over another trail (head {act.head[:12]}); sign it again"
        )
    if not act.head:
        raise NotPermitted(f"{act.kind}: it doesn't say which head its actor saw; sign it again")


def _first(signed: Signed) -> None:
    act = signed.act
    if act.kind != "enrol":
        raise NotPermitted(
            f"{act.kind}: nobody is enrolled yet; begin with: tokka actor new NAME --duty owner"
        )
    actor = _enrolled(act)
    if actor.name != act.actor or "owner" not in actor.duties:
        raise NotPermitted(
            "enrol: the first actor is an owner and enrols himself; begin with: "
            "tokka actor new NAME --duty owner"
        )
    if signed.method != "key" or not holds(signed, actor.public_key):
        raise NotPermitted(f"enrol: not signed by the key of {actor.name}")


def _active(act: Act, books: Books) -> Actor:
    actor = books.actors.get(act.actor)
    if actor is None:
        raise NotPermitted(
            f"{act.kind}: {act.actor} isn't enrolled; an owner enrols with: "
            f"tokka actor new {act.actor} --duty …"
        )
    if actor.until is not None:
        raise NotPermitted(f"{act.kind}: {act.actor} was dismissed at {actor.until}")
    return actor


def _vouched(signed: Signed, actor: Actor, books: Books) -> None:
    act = signed.act
    if signed.method == "key":
        if not holds(signed, actor.public_key):
            raise NotPermitted(f"{act.kind}: not signed by the enrolled key of {act.actor}")
        return
    if not RULES[act.kind].session or API_KEY in act.details:
        raise NotPermitted(f"{act.kind}: takes a signature by {act.actor}'s key, not a session")
    session = books.sessions.get(signed.session)
    if session is None or session.actor != act.actor:
        raise NotPermitted(f"{act.kind}: no API key {signed.session!r} is bound to {act.actor}")
    if session.revoked or (session.expires is not None and session.expires <= act.at):
        raise NotPermitted(f"{act.kind}: the API key {signed.session} is revoked or has expired")
    if not holds(signed, session.public_key):
        raise NotPermitted(f"{act.kind}: not vouched for by a session of {act.actor}")


# ---- of acts about a version --------------------------------------------------------------------


def _of_version(act: Act, books: Books, rule: Rule) -> None:
    if act.model not in books.models:
        raise NotPermitted(f"{act.kind}: no model {act.model!r} in the registry")
    version = books.version(act)
    stage: Stage | Literal[""] = version.stage(act.at) if version else ""
    name = f"{act.model}-{act.version}"
    if (stage, act.kind) not in NEXT:
        if act.kind == "release":
            raise NotPermitted(f"release: {name} is there already; it is {stage}")
        if version is None:
            raise NotPermitted(f"{act.kind}: no version {name} in the registry")
        raise NotPermitted(f"{act.kind}: {name} is {stage}; {_instead(stage, act.kind)}")
    if version is None:
        return
    if act.digest != version.digest:
        raise NotPermitted(
            f"{act.kind}: {name} has the digest {version.digest[:12]}, got {act.digest[:12]!r}; "
            "an act holds for what was examined and for nothing else"
        )
    if not rule.builder and person(act.actor) in version.builders:
        others = _others(books, version, rule.duties)
        raise NotPermitted(
            f"{act.kind}: {act.actor} built {name}, so {act.actor} may not {act.kind} it; "
            + (f"ask {' or '.join(others)}" if others else "nobody else has that duty yet")
        )


def _instead(stage: str, kind: str) -> str:
    known = sorted(k for s, k in NEXT if s == stage)
    if not known:
        return "that is final; release a new version"
    hints = {
        "withdraw": "only what is approved is withdrawn; --reject or --retire ends it",
        "reject": "it has been approved; --withdraw ends that",
        "serve": "only what is approved is served",
    }
    return hints.get(kind, f"from there: {', '.join(known)}")


def _others(books: Books, version: Version, duties: frozenset[Duty]) -> list[str]:
    return [
        name
        for name, actor in sorted(books.active().items())
        if duties & set(actor.duties) and person(name) not in version.builders
    ]


def candidates_for(books: Books, version: Version, duty: Duty, at: str) -> list[str]:
    """Who may still validate or approve a version: has the duty, didn't build it, is kept apart
    from what he did before, and hasn't approved yet."""
    apart = QUORUM[version.tier].apart
    done = {person(a.actor) for a in version.counted(at)}
    barred = done | version.validated_by if duty == "approver" and apart else done
    if duty == "validator":
        barred = {person(a.actor) for a in version.approvals} if apart else set()
    return [n for n in _others(books, version, frozenset((duty,))) if person(n) not in barred]


def _of_anything(act: Act, books: Books) -> None:
    if act.model and act.model not in books.models:
        raise NotPermitted(f"{act.kind}: no model {act.model!r} in the registry")
    if act.version is None:
        return
    version = books.version(act)
    if version is None or act.digest not in ("", version.digest):
        raise NotPermitted(f"{act.kind}: no version {act.model}-{act.version} of that digest")


# ---- of one kind of act -------------------------------------------------------------------------


def _enrol(act: Act, books: Books) -> None:
    actor = _enrolled(act)
    if actor.name in books.active():
        raise NotPermitted(f"enrol: {actor.name} is enrolled already; dismiss the old entry first")
    for other in books.actors:
        if other != actor.name and person(other) == person(actor.name):
            raise NotPermitted(f"enrol: {actor.name} reads like {other}; take another name")
    known = books.owners_of_keys.get(actor.public_key, actor.name)
    if known != actor.name:
        raise NotPermitted(
            f"enrol: that key is {known}'s; one person under two names could approve twice"
        )


def _enrolled(act: Act) -> Actor:
    try:
        actor = actor_of(act)
        normal = normal_public_key(actor.public_key)
    except ValidationError as error:
        raise NotPermitted(f"enrol: {_first_fault(error)}") from error
    except UsageError as error:
        raise NotPermitted(str(error)) from error
    if not actor.duties or normal != actor.public_key:
        raise NotPermitted(f"enrol: {actor.name} needs a duty ({', '.join(DUTIES)}) and a PEM key")
    return actor


def _dismiss(act: Act, books: Books) -> None:
    name = str(act.details.get("name"))
    active = books.active()
    if name not in active:
        raise NotPermitted(f"dismiss: {name!r} isn't enrolled; see: tokka actor list")
    if not any("owner" in a.duties for n, a in active.items() if n != name):
        raise NotPermitted(f"dismiss: {name} is the last owner; enrol another owner first")


def _register(act: Act, books: Books) -> None:
    if not MODEL.fullmatch(act.model) or re.search(r"-\d+$", act.model):
        raise NotPermitted(
            f"register: {act.model!r} is no model name; use letters, digits, '.', '_' or '-', and "
            "no number at the end, which is the version's place"
        )
    try:
        entry = model_of(act)
    except ValidationError as error:
        raise NotPermitted(f"register: {_first_fault(error)}") from error
    empty = [name for name in ("owner", "use", "tier_reason") if not getattr(entry, name).strip()]
    if empty:
        raise NotPermitted(f"register: {act.model} needs {', '.join(empty)}; write release: in it")
    if act.model in books.models and "owner" not in books.actors[act.actor].duties:
        raise NotPermitted(
            f"register: {act.model} is registered; only an owner changes its tier, use or owner"
        )


def _release(act: Act, books: Books) -> None:
    expected = books.last(act.model) + 1
    if act.version != expected:
        raise NotPermitted(f"release: {act.model}'s next version is {expected}, got {act.version}")
    if not DIGEST.fullmatch(act.digest):
        raise NotPermitted(f"release: a digest is 64 hex digits, got {act.digest!r}")
    for known in books.versions.values():
        if known.digest == act.digest:
            raise NotPermitted(f"release: {known.name} has that digest; it is released already")
    try:
        ReleaseDetails.model_validate(act.details)
    except ValidationError as error:
        raise NotPermitted(f"release: {_first_fault(error)}") from error


def _validate(act: Act, books: Books) -> None:
    version = _known(act, books)
    approved = {person(approval.actor) for approval in version.approvals}
    if QUORUM[version.tier].apart and person(act.actor) in approved:
        raise NotPermitted(
            f"validate: {act.actor} approved {version.name}; in tier {version.tier} who approves "
            "and who validates are different people"
        )


def _approve(act: Act, books: Books) -> None:
    version = _known(act, books)
    quorum = QUORUM[version.tier]
    if quorum.validated and not version.validations:
        who = candidates_for(books, version, "validator", act.at)
        raise NotPermitted(
            f"approve: {version.name} isn't validated, as tier {version.tier} asks; "
            + (f"ask {' or '.join(who)}" if who else "enrol a validator who didn't build it")
        )
    if quorum.apart and person(act.actor) in version.validated_by:
        raise NotPermitted(
            f"approve: {act.actor} validated {version.name}; in tier {version.tier} who validates "
            "and who approves are different people"
        )
    latest = days_later(act.at, version.valid_days)
    if act.expires is not None and not act.at < act.expires <= latest:
        raise NotPermitted(
            f"approve: an approval of {version.name} ends after {act.at} and by {latest} "
            f"({version.valid_days} days), got {act.expires}"
        )


def _note(act: Act, books: Books) -> None:
    if API_KEY not in act.details:
        return
    try:
        key = KeyDetails.model_validate(act.details[API_KEY])
    except ValidationError as error:
        raise NotPermitted(f"key: {_first_fault(error)}") from error
    owner = "owner" in books.actors[act.actor].duties
    if key.does == "revoke":
        bound = books.sessions.get(key.id)
        if not owner and (bound is None or bound.actor != act.actor):
            raise NotPermitted(f"key: only an owner revokes {key.id}; {act.actor} is none")
    elif key.actor is None:
        if not owner:
            raise NotPermitted(f"key: only an owner issues API keys; {act.actor} is none")
    elif key.actor != act.actor or not key.public_key:
        # Whoever issues a key sees its secret: he could decide in the other's name.
        raise NotPermitted(f"key: only {key.actor} issues a key with which {key.actor} signs in")
    elif key.id in books.sessions:
        raise NotPermitted(f"key: {key.id} is issued already")


_OWN: dict[ActKind, Callable[[Act, Books], None]] = {
    "enrol": _enrol,
    "dismiss": _dismiss,
    "register": _register,
    "release": _release,
    "validate": _validate,
    "approve": _approve,
    "note": _note,
}


def _known(act: Act, books: Books) -> Version:
    version = books.version(act)
    assert version is not None  # _of_version has refused what isn't there
    return version


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in fault['loc']) or 'details'}: {fault['msg']}"


def _words(duties: Iterable[str]) -> str:
    return " or ".join(duties) or "nothing"
