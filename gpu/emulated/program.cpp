/* program.cpp: convolutions and element-wise steps by the definition, in doubles. */
#include "emulated/program.h"
#include <algorithm>
#include <atomic>

namespace fake {

/* ---- tensors ---------------------------------------------------------------------------------------------------------------- */

int64_t tensor::count(void) const {
  int64_t n = 1;
  for (int64_t size : dims) n *= size;
  return n;
}

int64_t tensor::extent(void) const {
  int64_t last = 0;
  for (size_t d = 0; d < dims.size(); d++) last += (dims[d] - 1) * strides[d];
  return (last + 1) * (int64_t)size_of(type);
}

bool tensor::overlaps_itself(void) const {
  std::vector<std::pair<int64_t, int64_t>> axes;
  for (size_t d = 0; d < dims.size(); d++)
    if (dims[d] > 1) axes.emplace_back(strides[d], dims[d]);
  std::sort(axes.begin(), axes.end());
  int64_t reach = 1; /* of what smaller strides cover */
  for (auto &axis : axes) {
    if (axis.first < reach) return true;
    reach = axis.first * (axis.second - 1) + reach;
  }
  return false;
}

bool tensor::operator==(const tensor &o) const {
  return id == o.id && type == o.type && is_virtual == o.is_virtual && dims == o.dims && strides == o.strides;
}

/* Calls f(offset in elements) for each element, channels fastest: the order in which values are held while a program runs. */
template <typename F> static void each(const tensor &t, F f) {
  size_t n = t.dims.size();
  std::vector<size_t> order = { 0 };
  for (size_t d = 2; d < n; d++) order.push_back(d);
  if (n > 1) order.push_back(1);
  numbers at(n, 0);
  int64_t offset = 0;
  for (int64_t left = t.count(); left > 0; left--) {
    f(offset);
    for (size_t k = n; k-- > 0;) {
      size_t d = order[k];
      offset += t.strides[d];
      if (++at[d] < t.dims[d]) break;
      offset -= t.dims[d] * t.strides[d];
      at[d] = 0;
    }
  }
}

typedef std::vector<double> values;

static values load(const tensor &t, const void *p) {
  values v;
  v.reserve((size_t)t.count());
  each(t, [&](int64_t offset) { v.push_back(get(p, offset, t.type)); });
  return v;
}

static void store(const tensor &t, void *p, const values &v) {
  size_t i = 0;
  each(t, [&](int64_t offset) { put(p, offset, t.type, v[i++]); });
}

bool tensors_collide(const tensor &out, const void *out_at, const tensor &in, const void *in_at) {
  const char *a = (const char *)out_at, *b = (const char *)in_at;
  if (a + out.extent() <= b || b + in.extent() <= a) return false;
  std::vector<bool> taken((size_t)out.extent());
  int64_t wide = (int64_t)size_of(out.type);
  each(out, [&](int64_t offset) {
    for (int64_t k = 0; k < wide; k++) taken[(size_t)(offset * wide + k)] = true;
  });
  bool found = false;
  wide = (int64_t)size_of(in.type);
  each(in, [&](int64_t offset) {
    for (int64_t k = 0; k < wide; k++) {
      int64_t at = b + offset * wide + k - a;
      found |= at >= 0 && at < out.extent() && taken[(size_t)at];
    }
  });
  return found;
}

/* ---- convolutions -------------------------------------------------------------------------------------------------------------- */

struct shape { /* space as three axes; those that are not there are 1 */
  int64_t n, c, groups, k, size[3], made[3], taps[3], low[3], stride[3], dilation[3];
};

static shape shape_of(const step &s, const tensor &x, const tensor &w, const tensor &y) {
  shape g = {
    x.dims[0],   x.dims[1],   x.dims[1] / w.dims[1], y.dims[1],   {1,  1, 1},
    { 1, 1, 1},
                { 1, 1, 1},
                { 0, 0, 0},
                { 1, 1, 1},
                { 1, 1, 1}
  };
  size_t n = x.dims.size() - 2;
  for (size_t d = 0; d < n; d++) {
    size_t to = d + 3 - n;
    g.size[to] = x.dims[d + 2];
    g.made[to] = y.dims[d + 2];
    g.taps[to] = w.dims[d + 2];
    g.low[to] = s.low[d];
    g.stride[to] = s.stride[d];
    g.dilation[to] = s.dilation[d];
  }
  return g;
}

/* f(place of x, place of y, tap) for every product of a pixel, a pixel and a filter's tap; places count pixels. */
template <typename F> static void pairs(const shape &g, F f) {
  for (int64_t n = 0; n < g.n; n++)
    for (int64_t a = 0; a < g.made[0]; a++)
      for (int64_t b = 0; b < g.made[1]; b++)
        for (int64_t c = 0; c < g.made[2]; c++)
          for (int64_t i = 0; i < g.taps[0]; i++)
            for (int64_t j = 0; j < g.taps[1]; j++)
              for (int64_t k = 0; k < g.taps[2]; k++) {
                int64_t t = a * g.stride[0] - g.low[0] + i * g.dilation[0], y = b * g.stride[1] - g.low[1] + j * g.dilation[1],
                        x = c * g.stride[2] - g.low[2] + k * g.dilation[2];
                if (t < 0 || t >= g.size[0] || y < 0 || y >= g.size[1] || x < 0 || x >= g.size[2]) continue;
                f(((n * g.size[0] + t) * g.size[1] + y) * g.size[2] + x, ((n * g.made[0] + a) * g.made[1] + b) * g.made[2] + c,
                  (i * g.taps[1] + j) * g.taps[2] + k);
              }
}

/* (group, k, tap, c), as filters are held, to (group, tap, c, k) and back. */
static values turned(const values &w, const shape &g, bool back) {
  int64_t taps = g.taps[0] * g.taps[1] * g.taps[2], cs = g.c / g.groups, ks = g.k / g.groups;
  values v(w.size());
  for (int64_t group = 0; group < g.groups; group++)
    for (int64_t k = 0; k < ks; k++)
      for (int64_t tap = 0; tap < taps; tap++)
        for (int64_t c = 0; c < cs; c++) {
          size_t held = (size_t)(((group * ks + k) * taps + tap) * cs + c),
                 other = (size_t)(((group * taps + tap) * cs + c) * ks + k);
          if (back) v[held] = w[other];
          else v[other] = w[held];
        }
  return v;
}

static values convolve(const step &s, const shape &g, const values &a, const values &b, size_t count) {
  int64_t taps = g.taps[0] * g.taps[1] * g.taps[2], cs = g.c / g.groups, ks = g.k / g.groups;
  values out(count, 0.0);
  if (s.what == act::forward) {
    values w = turned(b, g, false);
    pairs(g, [&](int64_t from, int64_t to, int64_t tap) {
      for (int64_t group = 0; group < g.groups; group++) {
        const double *x = &a[(size_t)(from * g.c + group * cs)];
        double *y = &out[(size_t)(to * g.k + group * ks)];
        for (int64_t c = 0; c < cs; c++) {
          const double *row = &w[(size_t)(((group * taps + tap) * cs + c) * ks)];
          for (int64_t k = 0; k < ks; k++) y[k] += x[c] * row[k];
        }
      }
    });
  } else if (s.what == act::data)
    pairs(g, [&](int64_t to, int64_t from, int64_t tap) {
      for (int64_t group = 0; group < g.groups; group++) {
        const double *dy = &a[(size_t)(from * g.k + group * ks)];
        double *dx = &out[(size_t)(to * g.c + group * cs)];
        for (int64_t k = 0; k < ks; k++) {
          const double *row = &b[(size_t)(((group * ks + k) * taps + tap) * cs)];
          for (int64_t c = 0; c < cs; c++) dx[c] += dy[k] * row[c];
        }
      }
    });
  else {
    pairs(g, [&](int64_t at, int64_t from, int64_t tap) {
      for (int64_t group = 0; group < g.groups; group++) {
        const double *x = &a[(size_t)(at * g.c + group * cs)], *dy = &b[(size_t)(from * g.k + group * ks)];
        for (int64_t c = 0; c < cs; c++) {
          double *row = &out[(size_t)(((group * taps + tap) * cs + c) * ks)];
          for (int64_t k = 0; k < ks; k++) row[k] += x[c] * dy[k];
        }
      }
    });
    out = turned(out, g, true);
  }
  return out;
}

/* Bits that are never the same twice, as those of an engine that adds in any order. */
static double noise(void) {
  static std::atomic<uint64_t> counter{ 1 };
  uint64_t z = counter.fetch_add(0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (double)(z >> 11) * 0x1p-53 - 0.5;
}

static values run_convolution(const program &p, const step &s, const std::map<int64_t, values> &held, const values &old,
                              manner how) {
  const tensor &out = p.tensors.at(s.out);
  values a = held.at(s.in[0]), b = held.at(s.in[1]);
  if (how.tf32) {
    if (p.tensors.at(s.in[0]).type == number::f32)
      for (double &v : a) v = to_tf32(v);
    if (p.tensors.at(s.in[1]).type == number::f32)
      for (double &v : b) v = to_tf32(v);
  }
  const tensor &first = p.tensors.at(s.in[0]), &second = p.tensors.at(s.in[1]);
  shape g = s.what == act::forward ? shape_of(s, first, second, out)
            : s.what == act::data  ? shape_of(s, out, second, first)
                                   : shape_of(s, first, out, second);
  values v = convolve(s, g, a, b, (size_t)out.count());
  for (size_t i = 0; i < v.size(); i++) {
    if (how.noisy) v[i] *= 1 + noise() * 0x1p-18;
    v[i] = s.alpha * v[i] + (s.beta != 0 ? s.beta * old[i] : 0);
  }
  return v;
}

/* ---- steps behind one ------------------------------------------------------------------------------------------------------------ */

/* The value of `t`, an axis of size 1 repeated, for each element of `y`. */
static values spread(const tensor &t, const values &v, const tensor &y) {
  tensor view = y;
  int64_t reach = 1; /* strides over v as it is held: channels fastest */
  size_t n = t.dims.size();
  view.strides.assign(n, 0);
  for (size_t k = 0; k < n; k++) {
    size_t d = k == 0 ? std::min<size_t>(1, n - 1) : k < n - 1 ? n - k : 0;
    view.strides[d] = t.dims[d] > 1 ? reach : 0;
    reach *= t.dims[d];
  }
  values out;
  out.reserve((size_t)y.count());
  each(view, [&](int64_t offset) { out.push_back(v[(size_t)offset]); });
  return out;
}

static double pointwise(const step &s, double x, double b) {
  switch (s.mode) {
  case CUDNN_POINTWISE_ADD: return x + b;
  case CUDNN_POINTWISE_SUB: return x - b;
  case CUDNN_POINTWISE_MUL: return x * b;
  case CUDNN_POINTWISE_MIN: return x < b ? x : b;
  case CUDNN_POINTWISE_MAX: return x > b ? x : b;
  case CUDNN_POINTWISE_RELU_FWD:
    if (std::isnan(x)) return s.keeps_nan ? x : s.floor;
    return x < s.floor ? s.floor + s.slope * (x - s.floor) : x > s.ceiling ? s.ceiling : x;
  default: return x;
  }
}

static values run_pointwise(const program &p, const step &s, const std::map<int64_t, values> &held) {
  const tensor &y = p.tensors.at(s.out);
  values x = spread(p.tensors.at(s.in[0]), held.at(s.in[0]), y), b;
  if (s.n_in > 1) b = spread(p.tensors.at(s.in[1]), held.at(s.in[1]), y);
  for (size_t i = 0; i < x.size(); i++) x[i] = pointwise(s, s.alpha * x[i], s.n_in > 1 ? s.beta * b[i] : 0);
  return x;
}

/* ---- all of it ------------------------------------------------------------------------------------------------------------------- */

void program_run(const program &p, const std::map<int64_t, void *> &where, manner how) {
  std::map<int64_t, values> held;
  for (const step &s : p.steps) {
    for (int i = 0; i < s.n_in; i++)
      if (!held.count(s.in[i])) held[s.in[i]] = load(p.tensors.at(s.in[i]), where.at(s.in[i]));
    const tensor &out = p.tensors.at(s.out);
    values old;
    if (s.what != act::pointwise && s.beta != 0) old = load(out, where.at(s.out));
    values v = s.what == act::pointwise ? run_pointwise(p, s, held) : run_convolution(p, s, held, old, how);
    if (out.is_virtual) {
      for (double &x : v) { /* what lies between is of its type, too */
        double rounded;
        put(&rounded, 0, out.type, x);
        x = get(&rounded, 0, out.type);
      }
      held[s.out] = std::move(v);
    } else store(out, where.at(s.out), v);
  }
}

void program_spoil(const program &p, const std::map<int64_t, void *> &where) {
  const tensor &out = p.tensors.at(p.steps.back().out);
  store(out, where.at(out.id), values((size_t)out.count(), std::nan("")));
}

} /* namespace fake */
