#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""plot.py FOLDER JSON...: figures of what `devmem-bench MODE --json` measured, as SVG.

A figure is made if all it shows was measured; the same input gives the same bytes. Bars and points
are medians, their whiskers the extremes of the rounds.
"""
import pathlib
import sys

import matplotlib
matplotlib.use('svg')
import matplotlib.pyplot as plt

from tables import Runs

matplotlib.rcParams.update({
    'svg.hashsalt': 'devmem',  # ids would be random
    'svg.fonttype': 'none',
    'font.family': 'sans-serif',
    'font.size': 9,
    'axes.grid': True,
    'axes.axisbelow': True,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'grid.color': '#dddddd',
})
OURS, PEER, LIMIT = '#1f6f8b', '#b9b9b9', '#b3402a'


class Missing(Exception):
    """Something that a figure shows was not measured."""


def one(runs, name, **params):
    found = runs.select(name, **params)
    if len(found) != 1:
        raise Missing(f'{name} {params}')
    return found[0]


def some(runs, name, **params):
    found = runs.select(name, **params)
    if not found:
        raise Missing(f'{name} {params}')
    return found


def whiskers(results):
    return [[r['median'] - r['min'] for r in results], [r['max'] - r['median'] for r in results]]


def limit(axes, value, text):
    """A line that something promised or physical does not let one cross."""
    axes.axhline(value, color=LIMIT, linewidth=1, linestyle='--')
    axes.annotate(text, (0, value), xycoords=('axes fraction', 'data'), xytext=(3, 3),
                  textcoords='offset points', color=LIMIT, fontsize=8)


def from_zero(axes, results):
    """Medians decide the scale: a round that was disturbed may leave it."""
    axes.set_ylim(0, 1.3 * max(r['median'] for r in results))


def figure(width, height, panels=1):
    fig, axes = plt.subplots(1, panels, figsize=(width, height), layout='constrained',
                             squeeze=False)
    return fig, list(axes[0])


# What may be named here and lacks in what was measured is left out of a figure; what a figure is
# about must be there.
IN_ORDER = {'region': 'opaque', 'payload': 1448, 'late_percent': 0, 'run': 1, 'order': 'in turn',
            'late_packets': 0}
STAGES = {'allocate': '#b9b9b9', 'poll': '#8f9fb3', 'parse': '#1f6f8b', 'lookup': '#4aa3a2',
          'tcp': '#0d3b52', 'release': '#99c1b9', 'ack': '#7a5c61', 'events': '#c9ada7',
          'deliver': '#e0a458', 'token return': '#c8553d', 'transmitted': '#d9d2c5'}
RECEIVERS = {'devmem': OURS, 'veth': '#8a8a8a', 'loopback': '#b9b9b9',
             'veth, MSG_TRUNC': '#dcdcdc'}


def count(n):
    """A number in few characters."""
    if not isinstance(n, int):
        return n
    for least, unit, suffix in ((1, 10 ** 6, 'M'), (10, 10 ** 3, 'k'), (1, 2 ** 10, 'Ki')):
        if n % unit == 0 and n >= least * unit:
            return f'{n // unit}{suffix}'
    return f'{n:,}'


def any_of(runs, name, **params):
    found = runs.select(name, **params)
    return found[0]['median'] if len(found) == 1 else None


def rx_stages(runs):
    """Where a packet's cycles go, and what it costs elsewhere."""
    fig, (ours, peers) = figure(10, 3.4, 2)
    connections = sorted({r['params']['connections'] for r in some(runs, 'rx.stage', order='in turn')})
    left = [0.0] * len(connections)
    for stage, color in STAGES.items():
        widths = [one(runs, 'rx.stage', stage=stage, order='in turn', connections=n)['median']
                  for n in connections]
        ours.barh([count(n) for n in connections], widths, 0.6, left=left, color=color,
                  label=stage)
        left = [x + w for x, w in zip(left, widths)]
    ours.invert_yaxis()
    ours.set_xlabel('cycles per packet, by stage')
    ours.set_ylabel('connections')
    ours.legend(frameon=False, fontsize=7, ncols=4, loc='upper center', bbox_to_anchor=(0.45, 1.25))

    bars = []
    for n in (1, 1000):
        bars.append((f'devmem, {count(n)}', one(runs, 'rx', **IN_ORDER, connections=n), OURS))
    for n in (1, 1000):
        bars.append((f'lwIP, {count(n)}',
                     one(runs, 'rx.lwip', checksum='as shipped', connections=n), PEER))
    for how in ('ring pools, rte_pktmbuf_free_bulk', 'our pools, as a shard puts them'):
        bars.append(('mbufs: ' + how.split(',')[0], one(runs, 'chain', how=how), LIMIT))
    labels, results, colors = zip(*reversed(bars))
    peers.barh(labels, [r['median'] for r in results], 0.6, xerr=whiskers(results), color=colors,
               error_kw={'linewidth': 0.8})
    for y, r in enumerate(results):
        peers.annotate(f"{r['median']:,.0f}", (r['max'], y), xytext=(4, 0),
                       textcoords='offset points', va='center', fontsize=8)
    peers.set_xscale('log')
    peers.margins(x=0.15)
    peers.set_xlabel('cycles per packet, all in')
    hundred = any_of(runs, 'limit.cycles_per_packet_100g_1500')
    if hundred is not None:
        peers.axvline(hundred, color=LIMIT, linewidth=1, linestyle='--')
        peers.annotate('100 Gbit/s, MTU 1500', (hundred, 1), xycoords=('data', 'axes fraction'),
                       xytext=(3, -8), textcoords='offset points', color=LIMIT, fontsize=8)
    return fig


def rx_connections(runs):
    """Cycles as connections leave the caches."""
    fig, (axes,) = figure(7, 3.2)
    for order, color, label in (('in turn', OURS, 'each in turn'),
                                ('zipf', PEER, "by Zipf's law")):
        found = sorted(some(runs, 'rx', **IN_ORDER | {'order': order}),
                       key=lambda r: r['params']['connections'])
        axes.errorbar([r['params']['connections'] for r in found], [r['median'] for r in found],
                      whiskers(found), color=color, marker='o', markersize=4, capsize=2,
                      linewidth=1.2, label=label)
    for n, bar in ((1, 75), (1000, 130), (10_000, 160), (1_000_000, 300)):
        axes.plot([n / 1.6, n * 1.6], [bar, bar], color=LIMIT, linewidth=1.4,
                  label='asked for' if n == 1 else None)
    axes.set_xscale('log')
    from_zero(axes, some(runs, 'rx', **IN_ORDER | {'order': 'zipf'}) +
              some(runs, 'rx', **IN_ORDER))
    axes.set_xlabel('connections')
    axes.set_ylabel('cycles per packet')
    axes.legend(frameon=False, loc='upper left')
    return fig


def grouped(axes, groups, kinds, colors, width=0.8):
    """Bars: `groups` of {kind: result}, where a group need not have all kinds."""
    each = width / len(kinds)
    for i, kind in enumerate(kinds):
        here = [(x, group[kind]) for x, group in enumerate(groups) if kind in group]
        if here:
            axes.bar([x + (i - (len(kinds) - 1) / 2) * each for x, _ in here],
                     [r['median'] for _, r in here], each * 0.92,
                     yerr=whiskers([r for _, r in here]), color=colors[kind], label=kind,
                     error_kw={'linewidth': 0.8})


def e2e(runs):
    """Goodput beside the kernel's."""
    cells = {}
    for r in some(runs, 'e2e.goodput'):
        p = dict(r['params'])
        receiver = p.pop('receiver')
        cells.setdefault(tuple(p.items()), {})[receiver] = r
    labels = []
    for cell in map(dict, cells):
        words = [f"MTU {cell['mtu']}", '' if cell['tso'] else 'no TSO',
                 f"{cell['flows']} flows" if cell['flows'] > 1 else '',
                 f"{cell['queues']} queues" if cell['queues'] > 1 else '',
                 f"{cell['held_mib']} MiB held" if cell['held_mib'] else '']
        labels.append('\n'.join(filter(None, words)))
    fig, (axes,) = figure(max(7, 0.85 * len(cells)), 3.6)
    grouped(axes, list(cells.values()), list(RECEIVERS), RECEIVERS)
    axes.set_xticks(range(len(labels)), labels, fontsize=7)
    axes.set_ylabel('goodput, Gbit/s')
    for name, text in (('limit.copy_to_256k', 'a copy into 256 KiB'),
                       ('limit.copy_to_1g', 'a copy into 1 GiB')):
        value = any_of(runs, name)
        if value is not None:
            limit(axes, value, text)
    axes.legend(frameon=False, ncols=4, loc='lower center', bbox_to_anchor=(0.5, 1))
    return fig


def latency(runs):
    """From a request to its bytes at the application."""
    found = some(runs, 'latency.round_trip')
    sizes = list(dict.fromkeys(r['params']['bytes'] for r in found))
    percentiles = list(dict.fromkeys(r['params']['percentile'] for r in found))
    kinds = list(dict.fromkeys(r['params']['receiver'] for r in found))
    colors = {kind: RECEIVERS.get(kind, PEER) for kind in kinds}
    fig, panels = figure(8, 3.2, len(sizes))
    for axes, size in zip(panels, sizes):
        groups = [{r['params']['receiver']: r for r in found
                   if r['params']['bytes'] == size and r['params']['percentile'] == p}
                  for p in percentiles]
        grouped(axes, groups, kinds, colors)
        axes.set_xticks(range(len(percentiles)), percentiles)
        axes.set_xlabel(f'{size:,} byte' + ('s' if size != 1 else ''))
        axes.set_ylabel('round trip, us')
    panels[0].legend(frameon=False)
    return fig


def pool(runs):
    """The mempool driver beside DPDK's own."""
    ops = ['page_pool', 'ring_mp_mc', 'stack', 'lf_stack']
    cells = [(1, 0), (1, 256), (2, 0), (2, 256)]
    fig, (axes,) = figure(7, 3.2)
    for i, name in enumerate(ops):
        found = [one(runs, 'mempool', lcores=n, cache=c, get=32, put=32, keep=512, ops=name)
                 for n, c in cells]
        axes.bar([x + (i - 1.5) * 0.2 for x in range(len(cells))], [r['median'] for r in found],
                 0.18, yerr=whiskers(found), label=name, error_kw={'linewidth': 0.8},
                 color=OURS if name == 'page_pool' else PEER, alpha=1 - 0.22 * max(i - 1, 0))
    axes.set_yscale('log')
    axes.yaxis.set_major_locator(matplotlib.ticker.FixedLocator([2, 5, 10, 20, 50, 100]))
    axes.yaxis.set_major_formatter('{x:g}')
    axes.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.set_ylim(1, 150)
    axes.set_xticks(range(len(cells)),
                    [f"{n} lcore{'s' * (n > 1)}, {f'cache {c}' if c else 'no cache'}"
                     for n, c in cells])
    axes.set_ylabel('cycles per object, got and put')
    axes.legend(frameon=False, ncols=4, loc='lower center', bbox_to_anchor=(0.5, 1))
    return fig


def line(axes, results, key, color=OURS, label=None):
    axes.errorbar(range(len(results)), [r['median'] for r in results], whiskers(results),
                  color=color, marker='o', markersize=4, capsize=2, linewidth=1.2, label=label)
    axes.set_xticks(range(len(results)), [count(r['params'][key]) for r in results])
    from_zero(axes, results)


def flat(runs):
    """What must not grow."""
    fig, (region, tokens, depth) = figure(10, 3.2, 3)
    line(region, some(runs, 'flat.region', of='pool'), 'region', PEER,
         'a fragment, the pool alone')
    line(region, some(runs, 'flat.region', of='packet'), 'region', OURS, 'a packet, all in')
    region.set_xlabel('region')
    region.set_ylabel('cycles')
    region.legend(frameon=False)
    line(tokens, some(runs, 'flat.tokens'), 'outstanding')
    tokens.set_xlabel('tokens outstanding')
    tokens.set_ylabel('cycles per packet')
    line(depth, some(runs, 'flat.ooo'), 'depth')
    depth.set_xlabel('islands in the reassembly store')
    depth.set_ylabel('cycles per insert')
    return fig


FIGURES = {f.__name__: f for f in (rx_stages, rx_connections, pool, flat, e2e, latency)}


def main():
    folder, runs = pathlib.Path(sys.argv[1]), Runs(sys.argv[2:])
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        try:
            fig = draw(runs)
        except Missing as what:
            print(f'plot.py: no {name}.svg: {what} was not measured', file=sys.stderr)
            continue
        fig.savefig(folder / f'{name}.svg', metadata={'Date': None})
        plt.close(fig)


if __name__ == '__main__':
    sys.exit(main() if len(sys.argv) > 2 else __doc__)
