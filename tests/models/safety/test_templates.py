"""Templates that try to leave their sandbox or to take all time are refused; real ones are not."""

from pathlib import Path

import pytest

from tokka.errors import IntegrityError
from tokka.models.safety import templates
from tokka.models.safety.templates import MAX_CHARACTERS, check_template

pytest.importorskip("jinja2")

STOCK = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ messages[0].content | trim }}"
    "{% endif %}{% set ns = namespace(last=-1, seen='') %}"
    "{% macro show(m, depth) %}{% if depth %}{{ show(m, depth - 1) }}{% endif %}{% endmacro %}"
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}"
    "{% set ns.last = loop.index0 %}{% set ns.seen = ns.seen ~ m['content'] ~ '-' * 40 %}"
    "{% generation %}{{ '<' ~ m.role ~ '>' + m.content.split('</think>')[-1] ~ '</' ~ m.role }}"
    "{% endgeneration %}{{ show(m, 3) }}{{ loop.index0 % 2 }}{% endfor %}"
    "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(',') }}"
    "{{ strftime_now('%d %b %Y') }}{{ '%.2f' % 1.5 }}{{ '{}'.format(1) }}{{ [1] | tojson }}"
    "{% if add_generation_prompt %}{{ raise_exception('never') if false else '<|im_start|>' }}"
    "{% endif %}"
)


def refusal(template: str) -> str:
    with pytest.raises(IntegrityError) as refused:
        check_template(template, "tokenizer_config.json")
    return str(refused.value)


def test_what_real_templates_do_passes() -> None:
    check_template(STOCK, "here")
    check_template("{{ raise_exception('no system') }}", "here")  # said to whoever renders
    check_template("{{ unknown_function(1) }}", "here")
    check_template("", "here")


def test_the_templates_of_known_models_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(pytest.importorskip("trl").__file__).with_name("chat_templates")
    monkeypatch.setattr(templates, "_rehearse", lambda template: "")  # a child each: ten seconds
    found = sorted(folder.glob("*.jinja"))
    assert len(found) > 10
    for path in found:
        check_template(path.read_text(encoding="utf-8"), path.name)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ ''.__class__ }}", "looks up __class__"),
        ("{{ messages[0]._secret }}", "looks up _secret"),
        ("{{ ''['__class__'] }}", "names __class__"),
        ("{{ x['func_globals'] }}", "names func_globals"),
        ("{{ ''|attr('upper') }}", "the filter attr"),
        ("{{ ['']|map('attr', 'upper') }}", "the filter attr"),
        ("{{ ['']|map(name) }}", "whose name it computes"),
        ("{{ lipsum }}", "uses lipsum"),
        ("{{ cycler.next }}", "uses cycler"),
        ("{{ self.title() }}", "uses self"),
        ("{{ '{0.real}'.format(1) }}", "isn't plain"),
        ("{{ '{:>99999}'.format(1) }}", "isn't plain"),
        ("{{ messages[0].content.format(1) }}", "isn't plain"),
        ("{{ ''['format'](1) }}{{ x['format_map'](y) }}", "isn't plain"),
        ("{{ '{0[a]}'|format }}", "isn't plain"),
        ("{{ '%99999d' % 1 }}", "isn't plain"),
        ("{{ '%*d' % (9, 1) }}", "isn't plain"),
        ("{% include 'x' %}", "loads another template"),
        ("{% import 'x' as y %}", "loads another template"),
        ("{% from 'x' import y %}", "loads another template"),
        ("{% extends 'x' %}", "loads another template"),
        ("{% for i in range(10**9) %}{% endfor %}", "raises to a power"),
        ("{{ range(1000000000) }}", "counts to more than"),
        ("{{ 'a' * 9999 * n * 9999 }}", "counts to more than"),
        ("{% set ns.x = ns.x ~ ns.x %}", "joins a value with itself"),
        ("{% if false %}{% set x = x + 'a' + x %}{% endif %}", "joins a value with itself"),
        ("{% if %}", "is no Jinja"),
        ("{{ x|nofilter }}", "TemplateAssertionError"),
        ("{{ " + "(" * 5000, "nested too deeply"),
        ("x" * (MAX_CHARACTERS + 1), "has 131,073 characters"),
    ],
)
def test_what_no_chat_needs_is_refused_with_its_place(template: str, reason: str) -> None:
    said = refusal(template)
    assert reason in said
    assert said.startswith("tokenizer_config.json: the chat template")
    assert "publisher" in said


def test_a_branch_that_never_runs_is_looked_at_too() -> None:
    assert "(line 2)" in refusal("{% if false %}\n{{ ''.__class__ }}{% endif %}")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
         "more time or memory"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
        ("{% set ns = namespace(x='a') %}{% for i in range(40) %}"
         "{% set ns.x = [ns.x, ns.x]|join %}{% endfor %}", "more memory|more time"),
        ("{% for i in range(9999) %}{{ messages[0].content }}{% endfor %}", "without end"),
        ("{{ ''['__cl' ~ 'ass__']['__mro__' if false else '_' ~ '_mro__'] }}",
         "names __mro__"),
        ("{% set a = '_' %}{{ ''[a ~ a ~ 'class' ~ a ~ a]() }}", "leave its sandbox"),
    ],
)  # fmt: skip
def test_what_only_rendering_shows_ends_a_child_and_not_the_caller(
    template: str, reason: str
) -> None:
    with pytest.raises(IntegrityError, match=reason):
        check_template(template, "here")


def test_one_template_is_rehearsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(templates, "_rehearse", lambda template: seen.append(template) or "")
    for _ in range(3):
        check_template("{{ messages }} once", "here")
    assert seen == ["{{ messages }} once"]


def test_a_child_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "TIMEOUT_SECONDS", 0.0)
    assert "takes more time" in refusal("{{ messages }} given up")
    templates._reason.cache_clear()
