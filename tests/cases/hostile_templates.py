"""Templates that take all the memory or time there is, each in its own way."""

from __future__ import annotations

TIME = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "power": "{{ (10 ** 9) ** (10 ** 8) }}",
    "comparisons": "{{ (['a' * 999999 ~ 'b'] * 300000).count('a' * 1000000) }}",
    "search": "{{ ('a' * 20000000).count('a' * 9999999 ~ 'b') }}{% for i in range(9999) %}"
    "{{ ('a' * 20000000).find('a' * 9999999 ~ 'b') }}{% endfor %}",
    "lists without end": "{% set ns = namespace(l=[1, 2]) %}{% for i in range(99999) %}"
    "{% set ns.l = ns.l | map('string') | list %}{% endfor %}",
    "select": "{% for i in range(40) %}{{ ([1] * 8000000) | select('none') | list }}{% endfor %}",
}
MEMORY = {
    "folded replace": "{{ ('x' * 1000000) | replace('x', 'y' * 5000) | length }}",
    "folded indent": "{{ [[1]] | tojson(indent=1000000000) }}",
    "doubled by +": "{% set ns = namespace(s='x') %}{% for i in range(60) %}"
    "{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "doubled by ~": "{% set ns = namespace(s='x') %}{% for i in range(60) %}"
    "{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "doubled lists": "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}"
    "{% set ns.l = ns.l + ns.l %}{% endfor %}",
    "times": "{{ 'x' * 10000000000 }}",
    "ljust": "{{ 'x'.ljust(10000000000) }}",
    "center": "{{ 'x' | center(10000000000) }}",
    "format width": "{{ '%10000000000d' % 1 }}",
    "format method": "{{ '{:10000000000}'.format('x') }}",
    "join": "{{ range(99999) | join('x' * 999999) }}",
    "wordwrap": "{{ ('x' * 99999) | wordwrap(1, wrapstring='y' * 999999) }}",
    "indent": "{{ ('x\n' * 99999) | indent(99999) }}",
    "slice": "{{ [1] | slice(10000000000) | list }}",
    "batch": "{{ [1] | batch(10000000000, 'x') | list }}",
    "output": "{% for i in range(9999) %}{{ 'x' * 99999 }}{% endfor %}",
    "literals": "{% for i in range(99999) %}{% for i in range(99999) %}xxxxxxxxxxxxxxxxxxxxxxxx"
    "{% endfor %}{% endfor %}",
    "set block": "{% set a %}{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}{% endset %}",
}
REFUSED = {
    "deep expression": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep blocks": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "deep loops": "{% for x in y %}" * 50 + "{% endfor %}" * 50,
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "lipsum": "{{ lipsum(1000000) }}",
    "long range": "{% for x in range(10 ** 9) %}{% endfor %}",
    "private names": "{{ ''.__class__.__mro__ }}",
    "mutation": "{{ messages.append(1) }}",
    "globals": "{{ cycler.__init__.__globals__.os }}",
    "another file": "{% include '/etc/passwd' %}",
    "origins": "{{ 'x'._origins.hex() }}",
}
HOSTILE = {**TIME, **MEMORY, **REFUSED}
