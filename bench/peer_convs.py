"""The convolutions of FCN-I3D in PyTorch: the peer's side of bench/convs.lua, and a driver of the peer only.

Penumbra never needs Python: bench/all.lua starts this where PyTorch is installed (make peers), and does without it elsewhere.

usage: convs.lua list=shapes json=true | peer_convs.py [--threads 2] [--runs 5] [--precision fp32|bf16]
Reads a JSON object a line (op, shapes, args as bench/convs.lua prints them), prints one a line: forward, dx, dw in seconds, medians
of `runs` after a warm-up, each in the better of the two memory layouts. Padding that PyTorch cannot do inside a convolution (more
after than before) is done before the clock starts.
"""
import argparse, json, statistics, sys, time
import torch


def median_of(runs, f):
    f()
    seconds = []
    for _ in range(runs):
        begin = time.perf_counter()
        f()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def same(n, kernel, stride, dilation):
    total = max((-(-n // stride) - 1) * stride + (kernel - 1) * dilation + 1 - n, 0)
    return total // 2, total - total // 2


def measure(conv, layout, dtype, runs):
    shapes = [None if s == '-' else [int(v) for v in s.split(',')] for s in conv['shapes'].split()]
    args = dict(word.split('=') for word in conv['args'].split())
    triple = lambda name: [int(v) for v in args[name].split(',')]
    x, w = (torch.randn(s).to(dtype).contiguous(memory_format=layout) for s in shapes[:2])
    stride, dilation, groups = triple('stride'), triple('dilation'), int(args['groups'])
    if args['pad'] == 'same':
        pads = [same(shapes[0][2 + d], shapes[1][2 + d], stride[d], dilation[d]) for d in range(3)]
    else:
        flat = triple('pad')
        pads = [(flat[2 * d], flat[2 * d + 1]) for d in range(3)]
    transposed = conv['op'] == 'conv_transpose3d'
    low = [min(p) for p in pads]
    rest = [v for d in (2, 1, 0) for v in (pads[d][0] - low[d], pads[d][1] - low[d])]
    if any(rest) and not transposed:  # a transposed convolution is cropped by what both sides share
        x = torch.nn.functional.pad(x, rest).contiguous(memory_format=layout)
    run = lambda: torch.ops.aten.convolution(x, w, None, stride, low, dilation, transposed, [0, 0, 0], groups)
    with torch.no_grad():
        y = run()
        dy = torch.randn_like(y)
        back = lambda mask: lambda: torch.ops.aten.convolution_backward(
            dy, x, w, None, stride, low, dilation, transposed, [0, 0, 0], groups, mask)
        return {'forward': median_of(runs, run), 'dx': median_of(runs, back([True, False, False])),
                'dw': median_of(runs, back([False, True, False]))}


def main():
    a = argparse.ArgumentParser()
    a.add_argument('--threads', type=int, default=2)
    a.add_argument('--runs', type=int, default=5)
    a.add_argument('--precision', default='fp32')
    o = a.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(o.threads)
    dtype = torch.bfloat16 if o.precision == 'bf16' else torch.float32
    for line in sys.stdin:
        conv = json.loads(line)
        if conv.get('kind') != 'conv':
            continue
        both = [measure(conv, layout, dtype, o.runs) for layout in (torch.contiguous_format, torch.channels_last_3d)]
        print(json.dumps({'kind': 'conv', 'op': conv['op'], 'shapes': conv['shapes'], 'args': conv['args'],
                          **{k: min(b[k] for b in both) for k in both[0]}}), flush=True)


if __name__ == '__main__':
    main()
