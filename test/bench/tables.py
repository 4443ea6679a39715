#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""tables.py DOCUMENT JSON...: write what `devmem-bench MODE --json` measured into a document.

Between a marker of the document and the end of it stands a table, which is replaced:

    <!-- results NAME [KEY=VALUE]... -->    medians (and extremes), those with these parameters;
                                            the last parameter left makes columns
    <!-- asks [PREFIX] -->                  asks of that name, or whose names begin with it and a dot
    <!-- baselines -->  <!-- conditions --> one column for each file
    ...
    <!-- end -->

Of two results with one name and parameters the later file's counts. A marker that selects nothing
keeps its table and is an error.
"""
import json
import re
import shlex
import sys


class Runs:
    """The outputs of several runs."""

    def __init__(self, paths):
        self.runs = []
        self.results, self.asks = {}, {}
        for path in paths:
            with open(path, encoding='utf-8') as file:
                run = json.load(file)
            self.runs.append(run)
            for result in run['results']:
                self.results[result['name'], json.dumps(result['params'])] = result
            for ask in run['asks']:
                self.asks[ask['name']] = ask

    def select(self, name, **params):
        """Results with these parameters, given as text or as what they are."""
        return [r for (n, _), r in self.results.items()
                if n == name and all(str(r['params'].get(k)) == str(v) for k, v in params.items())]


def number(value):
    """With three digits that mean something."""
    if value is None:
        return 'not measured'
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ', '.join(map(number, value))
    if isinstance(value, int):
        return f'{value:,}'
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f'{value:,.{digits}f}' if abs(value) >= 1 else f'{value:.3g}'


def layout(rows):
    lines = ['| ' + ' | '.join(row) + ' |' for row in rows]
    lines.insert(1, '|---' * len(rows[0]) + '|')
    return '\n'.join(lines) + '\n'


def cell(result):
    low, high = number(result['min']), number(result['max'])
    return number(result['median']) + (f' ({low}–{high})' if low != high else '')


def results_table(runs, name, *filters):
    chosen = runs.select(name, **dict(f.split('=', 1) for f in filters))
    if not chosen:
        return None
    keys = list(chosen[0]['params'])
    varying = [k for k in keys if len({str(r['params'].get(k)) for r in chosen}) > 1] or keys[-1:]
    unit = chosen[0]['unit']
    *lead, last = varying
    if all(isinstance(r['params'].get(last), int) for r in chosen):
        chosen.sort(key=lambda r: r['params'][last])  # stable: lines stay in order
    if len(varying) == 1:
        rows = [[last, unit]]
        rows += [[number(r['params'][last]), cell(r)] for r in chosen]
        return layout(rows)
    columns, lines = [], {}
    for r in chosen:
        column = number(r['params'].get(last))
        if column not in columns:
            columns.append(column)
        lines.setdefault(tuple(number(r['params'].get(k)) for k in lead), {})[column] = cell(r)
    rows = [lead + [f'{last} {c}, {unit}' if c == columns[0] else c for c in columns]]
    rows += [list(line) + [cells.get(c, '') for c in columns] for line, cells in lines.items()]
    return layout(rows)


def asks_table(runs, prefix=''):
    chosen = [a for name, a in runs.asks.items()
              if prefix in ('', name) or name.startswith(prefix + '.')]
    if not chosen:
        return None
    rows = [['ask', 'want', 'got', 'holds']]
    rows += [[f"`{a['name']}`", a['want'].replace('<=', '≤').replace('>=', '≥'), number(a['got']),
              'yes' if a['holds'] else '**no**'] for a in chosen]
    return layout(rows)


def by_run_table(runs, what):
    """What all runs agree on, and a table of the rest."""
    keys = list(dict.fromkeys(k for run in runs.runs for k in run[what]))
    if not keys:
        return None
    values = {k: [number(run[what].get(k, '')) for run in runs.runs] for k in keys}
    same = [k for k in keys if len(set(values[k])) == 1]
    rows = [[''] + [run['mode'] for run in runs.runs]]
    rows += [[k] + values[k] for k in keys if k not in same]
    text = ', '.join(f'{k} {values[k][0]}' for k in same)
    return (text + '\n\n' if text else '') + (layout(rows) if len(rows) > 1 else '')


def main():
    document, runs = sys.argv[1], Runs(sys.argv[2:])
    with open(document, encoding='utf-8') as file:
        text = file.read()
    missing = []

    def replace(match):
        kind, *arguments = shlex.split(match[1])
        table = (results_table(runs, *arguments) if kind == 'results' else
                 asks_table(runs, *arguments) if kind == 'asks' else by_run_table(runs, kind))
        if table is None:
            missing.append(match[1])
            return match[0]
        return f'<!-- {match[1]} -->\n{table}<!-- end -->'

    text = re.sub(r'<!-- ((?:results|asks|baselines|conditions)\b[^>]*?) -->\n.*?<!-- end -->',
                  replace, text, flags=re.DOTALL)
    with open(document, 'w', encoding='utf-8') as file:
        file.write(text)
    for marker in missing:
        print(f'tables.py: {document}: nothing was measured for "{marker}"', file=sys.stderr)
    return 1 if missing else 0


if __name__ == '__main__':
    sys.exit(main() if len(sys.argv) > 2 else __doc__)
