"""Writes chat.json: what transformers gives for templates.

    make_chat.py FOLDER_OF_QWEN3_TOKENIZER

Run with transformers 5.23.0 and jinja2 3.1.6. "cases": a template and its text under "variables", null where it is refused; "qwen3": conversations
and the text that the published template of that folder gives, without and with the generation prompt.
"""
import json
import pathlib
import sys

from transformers.utils.chat_template_utils import _compile_jinja_template

VARIABLES = {
    "messages": [{'role': 'system', 'content': ' Be nice. '}, {'role': 'user', 'content': 'Hi\n'}, {'role': 'assistant', 'content': 'Yo', 'tool_calls': [{'function': {'name': 'f', 'arguments': {'a': 1, 'b': [1.5, None, True]}}}]}, {'role': 'user', 'content': [{'type': 'text', 'text': 'é ∑'}]}],
    "bos_token": '<s>',
    "eos_token": '</s>',
    "add_generation_prompt": True,
    "tools": None,
    "n": 7,
    "x": -3,
    "f": 2.5,
    "s": 'Hello wörld',
    "l": [3, 1, 2],
    "d": {'b': 1, 'a': {'c': 2}},
    "empty": [],
    "e": '',
}

# Each shows some part of the language.
TEMPLATES = [
    '{{ s }}',
    '{{ s|upper }} {{ s.title() }} {{ s|capitalize }}',
    "{{ l|sort|join(', ') }} {{ l|sum }} {{l|max}} {{l|min}}",
    '{{ d }} {{ d.items() | list }} {{ l }} {{ \'a\\\'b\' }} {{ [\'it\\\'s\', \'q"\'] }}',
    '{% for m in messages %}{{ loop.index }}/{{ loop.length }} {{ m.role }}{% if not loop.last %},{% endif %}\n{% endfor %}',
    "{%- for m in messages -%}\n  {{ m['role'] }}: {{ m.content | trim if m.content is string else m.content[0].text }}\n{%- endfor %}\nend\n\n",
    "{% set ns = namespace(found=false, i=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.found = true %}{% set ns.i = ns.i + 1 %}{% endif %}{% endfor %}{{ ns.found }} {{ ns.i }}",
    '{{ messages[0].content.strip() }}|{{ messages[::-1][0].role }}|{{ messages[1:]|length }}|{{ s[1:4] }}|{{ s[-3:] }}|{{ s[::-1] }}|{{ s[:100] }}',
    "{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 1.0 }} {{ 1e20 }} {{ 1e-7 }} {{ 0.1 + 0.2 }} {{ -x }} {{ 3 - -2 }} {{ 2 * 3 ~ 'a' ~ 1 + 2 }}",
    '{{ messages[2].tool_calls[0].function | tojson }} {{ d | tojson(indent=2) }} {{ s|tojson }} {{ none|tojson }} {{[]|tojson(indent=4)}}',
    '{% if tools is not none and tools %}A{% elif x is defined and y is not defined %}B{% else %}C{% endif %}',
    "{% macro f(a, b='z', c=none) %}[{{ a }}{{ b }}{{ c }}{{ bos_token }}]{% endmacro %}{{ f(1) }}{{ f('q', c=2) }}",
    'a {# comment #} b\n  {# lone #}\nc\n  {% if true %}\n  x\n  {% endif %}\ny',
    '{% raw %}{{ not }} {% x %}{% endraw %} z',
    '{{ undefined_thing }}|{{ undefined_thing is defined }}|{{ messages[0].foo }}|{{ undefined_thing.x }}',
    "{{ raise_exception('bad') }}",
    "{{ l + [4] }} {{ (1,2) }} {{ (1,) }} {{ {'a': 1, 'b': [true, none]} }}",
    "{{ 'a' in s }} {{ 'H' in s }} {{ 3 in l }} {{ 'b' in d }} {{ 'zz' not in d }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | map(attribute='role') | join(' ') }} {{ messages|rejectattr('tool_calls','defined')|list|length }} {{ l|map('string')|join }} {{ l|select('odd')|list }} {{ l|reject('gt', 1)|list }}",
    '{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{k}}{% endfor %}{% for a in empty %}x{% else %}none{% endfor %}',
    '{% for i in range(10) if i % 2 %}{{ i }}{% if i > 6 %}{% break %}{% endif %}{% endfor %} {% for i in range(5,0,-2) %}{{i}}{% endfor %}',
    '{% set x %}in {{ s }} block{% endset %}{{ x|length }} {{ x }}',
    '{% generation %}gen{% endgeneration %}!',
    "{{ s.split() }} {{ 'a,b,c'.split(',', 1) }} {{ '  a  b '.split() }} {{ 'a,b,c'.rsplit(',',1) }} {{ 'x\ny\n'.splitlines() }}",
    "{{ s.startswith('He') }} {{ s.endswith(('x','ld')) }} {{ s.replace('l','L',2) }} {{ s.find('w') }} {{ s.count('l') }} {{ 'aXbX'.rstrip('X') }} {{ '-'.join(['a','b']) }}",
    "{{ e or 'default' }} {{ e|default('q') }} {{ e|default('q', true) }} {{ zz|default('q') }} {{ zz|d }}",
    "{{ not e }} {{ e and s }} {{ none }} {{ true }} {{ 'x' if e else 'y' }}|{{ 'x' if e }}|",
    '{{ 1 if n is odd else 2 }} {{ n is divisibleby 7 }} {{ n is even }} {{ l is sequence }} {{ d is mapping }} {{ s is iterable }} {{ f is number }} {{ true is number }} {{ n is integer }} {{ true is integer }} {{ f is float}} {{ none is none }} {{ s is string }} {{ true is true }} {{ true is boolean }}',
    "{{ '%s' }} {{ s|replace('l', '') }} {{ s|first }} {{ l|last }} {{ empty|first }} {{ l|reverse|list }} {{ s|reverse }} {{ l|unique|list }} {{ d|dictsort }} {{ '3'|int + 1 }} {{ 'q'|int }} {{ '2.7'|float }} {{ 2.567|round(1) }} {{ 2.5|round }} {{ 7|string ~ 'x' }} {{ s|list|length }} {{ -3|abs }}",
    "{{ 'line1\nline2\n\nline4'|indent(2) }}|{{ 'a\nb'|indent(width=3, first=true) }}",
    '  {%- if true %} a {%- endif %}  b',
    '  {%+ if true %} a {% endif +%}\n  b',
    "{{- ' x ' -}}   y",
    '{% set a, b = 1, 2 %}{{ a }}{{ b }} {% set (c, d2) = (3, 4) %}{{ c + d2 }}',
    '{% for i in [1,2] %}{% set q = i %}{% endfor %}{{ q }}|',
    '{% if true %}{% set q = 5 %}{% endif %}{{ q }}|',
    '{{ \'a\' \'b\' }} {{ \'tab\\t\' }} {{ \'\\u00e9\' }} {{ "q\'" }}',
    "{{ messages[10] }}|{{ l[10] }}|{{ d['zz'] }}|{{ d.get('zz', 4) }} {{ d.get('b') }} {{ d.keys()|list }} {{ d.values()|list }}",
    '{{ loop }}',
    "{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined else '-' }}{{ loop.nextitem is defined }}{{ loop.revindex }}{{ loop.cycle('a','b') }}{% endfor %}",
    '{% endfor %}',
    '{% for x %}',
    '{{ 1 + }}',
    '{{ s | nofilter }}',
    '{% if x is notest %}{% endif %}',
    "{{ 'a' + 1 }}",
    '{{ 1 / 0 }}',
    '{{ l.append(4) }}',
    "{% include 'x' %}",
    '{{ s[0] }} {{ s.0 }} {{ l.1 }} {{ l[-1] }}',
    '{{ "a\\"b" }}{{ \'\\n\' }}x',
    "{{ {} }}{{ {'a':{}}.a }} {{ (1 if true else 2) }} {{ [1,2,][1] }}",
    "{{ x == -3 }} {{ 1 == 1.0 }} {{ 'a' == 1 }} {{ [1] == [1] }} {{ none == none }} {{ 'a' < 'b' }}",
    '\r\na\r\n{% if true %}\r\nb{% endif %}\r\n',
]

# Conversations in the manner of the published templates: markers, roles renamed, a system message merged into the next, answers marked.
CHATS = [
    """{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\\n' }}
    {%- if m.role == 'assistant' %}
        {%- generation %}
            {{- m.content + '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- else %}
        {{- m.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
""",
    """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] | trim + '\n\n' %}{% set rest = messages[1:] %}
{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}
{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}
{{ (first if loop.first else '') + m['content'] | trim }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}""",
    """{%- macro turn(role, text, end='</s>') -%}
[{{ role | upper }}] {{ text.strip() }}{{ end if role == 'assistant' }}
{%- endmacro -%}
{%- set ns = namespace(n=0) -%}
{%- for m in messages -%}
{%- set ns.n = ns.n + (1 if m.role == 'user' else 0) -%}
{{- turn(m.role, m.content) }}
{% endfor -%}
{{ ns.n }} questions{% if tools is not none %} with tools{% endif %}
{%- if strftime_now is defined and false %} {{ strftime_now('%d') }}{% endif %}""",
]

TALKS = [
    [("user", "Hi")],
    [("system", " Be kind. "), ("user", "Hi \n"), ("assistant", " Hello!"), ("user", "Bye"), ("assistant", "See you")],
    [("user", "1 + 1?"), ("assistant", "<think>\nhm\n</think>\n\n2"), ("user", "\u00e9?")],
    [("user", "a"), ("user", "b")],
]


def rendered(template, variables):
    try:
        return _compile_jinja_template(template).render(**variables)
    except Exception:
        return None


def talk(pairs, generation):
    return {"messages": [{"role": role, "content": content} for role, content in pairs], "tools": None, "documents": None,
            "add_generation_prompt": generation, "bos_token": "<s>", "eos_token": "</s>"}


def main():
    qwen3 = json.loads((pathlib.Path(sys.argv[1]) / "tokenizer_config.json").read_text())["chat_template"]
    cases = [{"template": t, "variables": VARIABLES, "text": rendered(t, VARIABLES)} for t in TEMPLATES]
    cases += [{"template": t, "variables": talk(p, g), "text": rendered(t, talk(p, g))}
              for t in CHATS for p in TALKS for g in (False, True)]
    out = {"cases": cases,
           "qwen3": [{"messages": talk(p, False)["messages"], "texts": [rendered(qwen3, talk(p, g)) for g in (False, True)]}
                     for p in TALKS]}
    path = pathlib.Path(__file__).parent / "chat.json"
    path.write_text(json.dumps(out, indent=0, ensure_ascii=True) + "\n")


main()
