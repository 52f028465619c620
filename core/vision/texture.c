/* texture.c: painted worlds, so that everything can be tried with no download: a landscape, and a creature to walk through it.
** Noise: gradient noise on the integer lattice (Perlin, "Improving noise", 2002, fade curve 6t^5 - 15t^4 + 10t^3) summed over
** octaves; cells after Worley 1996. The creature is a smooth union of capsules given by their distance functions (polynomial
** smooth minimum), lit as if inflated. All numbers come from a hash of the seed: no state, any number of threads.
** Shapes: landscape u8 (H,W,3); creature u8 (H,W,4), alpha 0 or 255. */
#include <string.h>
#include "warp.h"

typedef struct rgb {
  float r, g, b;
} rgb;

static uint32_t mix(uint32_t a, uint32_t b, uint32_t seed) {
  uint32_t h = seed ^ (a * 0x9e3779b1u) ^ (b * 0x85ebca77u);
  h = (h ^ (h >> 15)) * 0x2c1b3c6du;
  h = (h ^ (h >> 12)) * 0x297a2d39u;
  return h ^ (h >> 15);
}

static float unit(uint32_t a, uint32_t b, uint32_t seed) { return (float)(mix(a, b, seed) >> 8) * (1.0f / 16777216.0f); }
static float between(uint32_t seed, uint32_t which, float low, float high) {
  return low + (high - low) * unit(which, 0x51ed27u, seed);
}
static float clamp01(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }
static float step01(float low, float high, float x) {
  x = clamp01((x - low) / (high - low));
  return x * x * (3 - 2 * x);
}
static rgb blend(rgb a, rgb b, float t) { return (rgb){ a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t }; }
static rgb shade(rgb a, float k) { return (rgb){ a.r * k, a.g * k, a.b * k }; }

static float corner(int32_t ix, int32_t iy, float dx, float dy, uint32_t seed) {
  static const float gradient[8][2] = {
    {1,         0       },
    { 0.7071f,  0.7071f },
    { 0,        1       },
    { -0.7071f, 0.7071f },
    { -1,       0       },
    { -0.7071f, -0.7071f},
    { 0,        -1      },
    { 0.7071f,  -0.7071f}
  };
  const float *g = gradient[mix((uint32_t)ix, (uint32_t)iy, seed) & 7];
  return g[0] * dx + g[1] * dy;
}

/* Gradient noise, about -0.7..0.7. */
static float noise(float x, float y, uint32_t seed) {
  float fx = floorf(x), fy = floorf(y);
  int32_t ix = (int32_t)fx, iy = (int32_t)fy;
  float dx = x - fx, dy = y - fy;
  float u = dx * dx * dx * (dx * (dx * 6 - 15) + 10), v = dy * dy * dy * (dy * (dy * 6 - 15) + 10);
  float a = corner(ix, iy, dx, dy, seed), b = corner(ix + 1, iy, dx - 1, dy, seed);
  float c = corner(ix, iy + 1, dx, dy - 1, seed), d = corner(ix + 1, iy + 1, dx - 1, dy - 1, seed);
  a += (b - a) * u;
  c += (d - c) * u;
  return a + (c - a) * v;
}

/* Octaves of noise, each at twice the frequency and 'fall' of the strength; about -1..1. */
static float octaves(float x, float y, int n, float fall, uint32_t seed) {
  float sum = 0, strength = 1, total = 0;
  for (int i = 0; i < n; i++) {
    sum += noise(x, y, seed + (uint32_t)i * 101u) * strength;
    total += strength;
    strength *= fall;
    x = x * 2 + 17.3f, y = y * 2 - 9.1f;
  }
  return sum / total * 1.6f;
}

/* Distance to the nearest and the second nearest of one point per cell. */
static void cells(float x, float y, uint32_t seed, float *first, float *second, uint32_t *which) {
  int32_t cx = (int32_t)floorf(x), cy = (int32_t)floorf(y);
  *first = *second = 9;
  *which = 0;
  for (int32_t j = cy - 1; j <= cy + 1; j++)
    for (int32_t i = cx - 1; i <= cx + 1; i++) {
      float px = (float)i + unit((uint32_t)i, (uint32_t)j, seed), py = (float)j + unit((uint32_t)i, (uint32_t)j, seed + 7);
      float d = sqrtf((px - x) * (px - x) + (py - y) * (py - y));
      if (d < *first) *second = *first, *first = d, *which = mix((uint32_t)i, (uint32_t)j, seed + 13);
      else if (d < *second) *second = d;
    }
}

static rgb hex(uint32_t c) { return (rgb){ (float)(c >> 16 & 255), (float)(c >> 8 & 255), (float)(c & 255) }; }

typedef struct paint_job {
  uint8_t *to;
  int64_t h, w;
  uint32_t seed;
  const void *more;
} paint_job;

/* ---- landscape ------------------------------------------------------------------------------------------------------ */

/* Sky above and at the horizon, cloud, far and near hills, two colours of the ground. */
static const uint32_t palettes[][7] = {
  {0x5b8fc9,  0xc9dcea, 0xf4f4f0, 0x8aa0b4, 0x5d7a4a, 0x7d9350, 0xa39a5c}, /* meadow */
  { 0x7aa3c4, 0xe8d9bd, 0xfaf0de, 0xb59a84, 0xa8804f, 0xcda768, 0xb58a52}, /* steppe */
  { 0x6d7f96, 0xc3c7c9, 0xdadcdc, 0x76838c, 0x44584a, 0x55684a, 0x6e6a55}, /* overcast moor */
  { 0x3f6fb5, 0xf0c9a0, 0xfbe3c8, 0x7c6f94, 0x5a5a54, 0x6d7a48, 0x86704c}, /* evening */
  { 0x86b6dd, 0xe6f0f6, 0xffffff, 0xa9bccd, 0x7f95a3, 0xdfe6ea, 0xb9c6cf}, /* snow */
  { 0x5aa0c8, 0xd6e9ec, 0xf7faf8, 0x6f9a9c, 0x3f7050, 0x4f8a4d, 0x7f8f4a}, /* forest edge */
};

static void landscape_rows(void *context, int64_t begin, int64_t end) {
  const paint_job *job = context;
  uint32_t s = job->seed;
  const uint32_t *palette = palettes[mix(1, 2, s) % PN_LENGTH(palettes)];
  rgb sky = hex(palette[0]), low_sky = hex(palette[1]), cloud = hex(palette[2]), far = hex(palette[3]), near = hex(palette[4]);
  rgb ground_a = hex(palette[5]), ground_b = hex(palette[6]);
  float unit_length = (float)job->h, horizon = between(s, 3, 0.26f, 0.42f), cover = between(s, 4, -0.25f, 0.25f);
  for (int64_t y = begin; y < end; y++)
    for (int64_t x = 0; x < job->w; x++) {
      float u = (float)x / unit_length, v = (float)y / unit_length; /* 1 = the height of the picture */
      float rise = clamp01(v / horizon);
      rgb c = blend(sky, low_sky, rise * rise);
      float puff = octaves(u * 2.2f, v * 6, 6, 0.55f, s + 11);
      c = blend(c, cloud, 0.9f * step01(cover, cover + 0.6f, puff) * (1 - 0.4f * rise));
      for (int k = 0; k < 3; k++) { /* hills, the far one first, each lower, nearer, rougher */
        float base = horizon - 0.10f + 0.05f * (float)k,
              ridge = base + 0.10f * octaves(u * (1.3f + (float)k * 0.8f) + 31 * (float)k, 0.5f, 5, 0.45f, s + 20 + (uint32_t)k);
        ridge += 0.006f * (float)k * octaves(u * 45, 3.5f, 3, 0.6f, s + 30 + (uint32_t)k); /* trees on the skyline */
        if (v < ridge) continue;
        float rough = octaves(u * 14 * (float)(k + 1), v * 22 * (float)(k + 1), 5, 0.6f, s + 40 + (uint32_t)k);
        rgb hill = shade(blend(far, near, 0.5f * (float)k), 1 + (0.10f + 0.12f * (float)k) * rough);
        c = blend(hill, low_sky, 0.35f - 0.15f * (float)k);
      }
      float edge = horizon + 0.02f + 0.012f * octaves(u * 6, 1.5f, 4, 0.5f, s + 50);
      if (v > edge) { /* ground: a plane in perspective, so its texture grows towards the viewer */
        float depth = 0.16f / (v - horizon + 0.05f), gx = (u - 0.9f) * depth * 4.2f, gy = depth * 6;
        float patch = octaves(gx * 0.9f, gy * 0.9f, 5, 0.55f, s + 60), blades = octaves(gx * 22, gy * 9, 4, 0.75f, s + 61);
        float fine = octaves(u * 95, v * 60, 3, 0.8f, s + 62);
        c = blend(ground_a, ground_b, step01(-0.35f, 0.45f, patch + 0.35f * blades));
        c = shade(c, 0.98f + 0.26f * blades + 0.10f * fine + 0.14f * patch);
        float first, second;
        uint32_t which;
        cells(gx * 3.1f, gy * 3.1f, s + 70, &first, &second, &which);
        float size = 0.05f + 0.15f * (float)(which & 255) / 255.0f;
        if ((which >> 8 & 7) == 0 && first < size) { /* a stone, lit from the upper left */
          float k = 0.75f + 0.5f * clamp01(1 - first / size) + 0.25f * noise(gx * 30, gy * 30, s + 71);
          c = blend(c, shade((rgb){ 150, 146, 140 }, k), step01(size, size * 0.8f, first));
        } else if ((which >> 8 & 7) == 1 && first < 0.22f) { /* a tuft: darker, ragged */
          c = shade(c, 1 - 0.45f * step01(0.22f, 0.05f, first + 0.10f * blades));
        }
        c = blend(c, low_sky, 0.22f * step01(0.12f, 0, v - edge)); /* haze */
      }
      float du = (u - 0.5f * (float)job->w / unit_length), dv = v - 0.5f;
      float light =
          1 - 0.10f * (du * du + dv * dv) + 0.07f * octaves(u * 0.8f, v * 0.8f, 2, 0.5f, s + 80); /* vignette, drifting shade */
      c = shade(c, light);
      uint8_t *p = job->to + 3 * (y * job->w + x);
      float grain = 5 * (unit((uint32_t)x, (uint32_t)y, s + 90) - 0.5f);
      p[0] = pn_to_byte(c.r + grain), p[1] = pn_to_byte(c.g + grain), p[2] = pn_to_byte(c.b + grain);
    }
}

static int paint(pn_tensor **out, const char *what, int64_t h, int64_t w, int64_t channels, uint64_t seed, const void *more,
                 void (*rows)(void *, int64_t, int64_t)) {
  if (h < 8 || w < 8 || h > 8192 || w > 8192)
    return pn_fail("%s: height and width must be in 8..8192, got %lld x %lld", what, (long long)h, (long long)w);
  int64_t shape[3] = { h, w, channels };
  if (pn_tensor_new(out, PN_U8, 3, shape, PN_ROWS, PN_CPU)) return -1;
  paint_job job = { (uint8_t *)pn_bytes_of(*out), h, w, mix((uint32_t)seed, (uint32_t)(seed >> 32), 0x2545f491u), more };
  pn_parallel(h, 4, rows, &job);
  return 0;
}

int pn_paint_landscape(pn_tensor **out, int64_t h, int64_t w, uint64_t seed) {
  return paint(out, "landscape", h, w, 3, seed, NULL, landscape_rows);
}

/* ---- creature ------------------------------------------------------------------------------------------------------- */

typedef struct capsule {
  float ax, ay, bx, by, ra, rb;
} capsule; /* from a to b, radius ra to rb; far limbs are drawn first */
enum { MAX_PARTS = 24 };
typedef struct creature {
  capsule part[MAX_PARTS];
  int n_far, n; /* parts 0..n_far-1 are the limbs of the far side */
  float eye_x, eye_y, eye_r;
} creature;

static void limb(creature *c, float ax, float ay, float bx, float by, float ra, float rb) {
  if (c->n < MAX_PARTS) c->part[c->n++] = (capsule){ ax, ay, bx, by, ra, rb };
}

/* A body about one unit long, y downwards, looking to the right. */
static void grow(creature *c, uint32_t s) {
  memset(c, 0, sizeof *c);
  float leg = between(s, 10, 0.22f, 0.55f), fat = between(s, 11, 0.15f, 0.23f), neck = between(s, 12, 0.10f, 0.50f),
        lean = between(s, 13, 0.1f, 0.5f);
  float hip = -0.38f, shoulder = 0.34f, thick = between(s, 14, 0.045f, 0.075f), head = between(s, 15, 0.10f, 0.14f),
        snout = between(s, 16, 0.08f, 0.22f);
  float foot = fat * 0.6f + leg, sway = between(s, 17, -0.06f, 0.06f);
  limb(c, hip + 0.10f, 0.05f, hip + 0.16f + sway, foot * 0.55f, thick * 1.5f, thick),
      limb(c, hip + 0.16f + sway, foot * 0.55f, hip + 0.08f, foot - 0.02f, thick, thick * 0.8f);
  limb(c, shoulder - 0.12f, 0.05f, shoulder - 0.16f - sway, foot * 0.55f, thick * 1.5f, thick),
      limb(c, shoulder - 0.16f - sway, foot * 0.55f, shoulder - 0.12f, foot - 0.02f, thick, thick * 0.8f);
  c->n_far = c->n;
  limb(c, hip, 0, shoulder, -0.03f, fat, fat * between(s, 18, 0.85f, 1.1f));
  if (mix(5, 5, s) % 3 == 0) limb(c, -0.05f, -fat * 0.9f, 0.05f, -fat * 0.95f, fat * 0.6f, fat * 0.5f); /* a hump */
  limb(c, hip - 0.04f, 0.02f, hip - 0.02f - sway, foot * 0.5f, thick * 2.0f, thick),
      limb(c, hip - 0.02f - sway, foot * 0.5f, hip - 0.06f, foot, thick, thick * 0.8f);
  limb(c, shoulder + 0.02f, 0.02f, shoulder + 0.06f + sway, foot * 0.5f, thick * 1.8f, thick),
      limb(c, shoulder + 0.06f + sway, foot * 0.5f, shoulder + 0.03f, foot, thick, thick * 0.8f);
  limb(c, hip - 0.06f, foot, hip - 0.02f, foot, thick * 0.9f, thick * 0.8f),
      limb(c, shoulder + 0.03f, foot, shoulder + 0.08f, foot, thick * 0.9f, thick * 0.8f);
  float nx = shoulder + 0.12f + neck * lean, ny = -fat - neck * 0.9f;
  limb(c, shoulder, -fat * 0.35f, nx, ny, fat * 0.75f, head * 0.75f);
  limb(c, nx, ny, nx + snout + 0.05f, ny + 0.06f, head, head * 0.6f);
  limb(c, nx - 0.04f, ny - head * 0.7f, nx - 0.09f, ny - head * between(s, 19, 1.3f, 2.0f), 0.045f, 0.02f); /* an ear */
  float tail = between(s, 20, 0.15f, 0.42f), lift = between(s, 21, -0.30f, 0.25f);
  limb(c, hip - fat * 0.8f, -0.04f, hip - fat - tail * 0.6f, lift * 0.4f, 0.05f, 0.035f),
      limb(c, hip - fat - tail * 0.6f, lift * 0.4f, hip - fat - tail, lift, 0.035f, 0.02f);
  c->eye_x = nx + 0.05f, c->eye_y = ny - 0.015f, c->eye_r = 0.022f;
}

/* Signed distance to a capsule whose radius changes along it (to first order: good enough to be inflated and lit). */
static float distance(const capsule *c, float x, float y) {
  float dx = c->bx - c->ax, dy = c->by - c->ay, t = clamp01(((x - c->ax) * dx + (y - c->ay) * dy) / (dx * dx + dy * dy + 1e-9f));
  float px = x - c->ax - t * dx, py = y - c->ay - t * dy;
  return sqrtf(px * px + py * py) - (c->ra + (c->rb - c->ra) * t);
}

static float smooth_least(float a, float b, float k) {
  float h = clamp01(0.5f + 0.5f * (b - a) / k);
  return b + (a - b) * h - k * h * (1 - h);
}

static float body(const creature *c, int from, int to, float x, float y) {
  float d = 9;
  for (int i = from; i < to; i++) d = smooth_least(d, distance(c->part + i, x, y), 0.05f);
  return d;
}

/* Height above the picture of a body inflated to a round rim. */
static float inflate(float d) {
  float t = clamp01(-d / 0.16f);
  return 0.16f * sqrtf(t * (2 - t));
}

static const uint32_t coats[][3] = {
  /* ground, marking, belly */
  {0xc98a4b,  0x5e3413, 0xead2ae},
  { 0xd9c08b, 0x6b4a22, 0xf3ead2},
  { 0x8d8f94, 0x3a3b40, 0xc9ccd0},
  { 0xe6e3dc, 0x1f1d1c, 0xffffff},
  { 0xb5562c, 0x53200f, 0xf0d9c6},
  { 0x4a4440, 0x1b1817, 0x857a70},
  { 0xd8a23a, 0x2a2018, 0xf5e3b8},
  { 0x7d5a46, 0xdcc9ae, 0xb79a83},
};

static void creature_rows(void *context, int64_t begin, int64_t end) {
  const paint_job *job = context;
  const creature *c = job->more;
  uint32_t s = job->seed, pattern = mix(3, 9, s) % 4;
  const uint32_t *coat = coats[mix(4, 4, s) % PN_LENGTH(coats)];
  rgb ground = hex(coat[0]), marking = hex(coat[1]), belly = hex(coat[2]);
  float x0 = 9, y0 = 9, x1 = -9, y1 = -9;
  for (int i = 0; i < c->n; i++) {
    const capsule *p = c->part + i;
    float r = fmaxf(p->ra, p->rb) + 0.02f;
    x0 = fminf(x0, fminf(p->ax, p->bx) - r), x1 = fmaxf(x1, fmaxf(p->ax, p->bx) + r);
    y0 = fminf(y0, fminf(p->ay, p->by) - r), y1 = fmaxf(y1, fmaxf(p->ay, p->by) + r);
  }
  /* The whole creature fits the picture. */
  float scale = fmaxf((x1 - x0) / (float)job->w, (y1 - y0) / (float)job->h);
  float left = 0.5f * (x0 + x1) - 0.5f * scale * (float)job->w, top = 0.5f * (y0 + y1) - 0.5f * scale * (float)job->h;
  for (int64_t row = begin; row < end; row++)
    for (int64_t column = 0; column < job->w; column++) {
      uint8_t *p = job->to + 4 * (row * job->w + column);
      memset(p, 0, 4);
      float x = left + scale * ((float)column + 0.5f), y = top + scale * ((float)row + 0.5f);
      float near = body(c, c->n_far, c->n, x, y), d = near < 0 ? near : body(c, 0, c->n_far, x, y);
      if (d >= 0) continue;
      bool far = near >= 0;
      int from = far ? 0 : c->n_far, to = far ? c->n_far : c->n;
      const float e = 0.008f;
      float z = inflate(d), zx = (inflate(body(c, from, to, x + e, y)) - z) / e,
            zy = (inflate(body(c, from, to, x, y + e)) - z) / e;
      float fur = octaves(x * 60, y * 28, 3, 0.7f, s + 5), bump = 0.10f * fur, length = sqrtf(zx * zx + zy * zy + 1);
      float light = clamp01((0.40f * zx + 0.62f * zy + 0.68f) / length + bump) * 0.75f + 0.34f;
      float wx = x + 0.04f * noise(x * 6, y * 6, s + 1), wy = y + 0.04f * noise(x * 6 + 40, y * 6, s + 2), first, second;
      uint32_t which;
      float mark = 0;
      if (pattern == 0) { /* patches with pale seams */
        cells(wx * 7, wy * 7, s + 3, &first, &second, &which);
        mark = step01(0.06f, 0.14f, second - first);
      } else if (pattern == 1) { /* stripes */
        mark = step01(-0.15f, 0.15f, sinf(38 * wx + 9 * wy + 3 * noise(x * 3, y * 3, s + 4)));
      } else if (pattern == 2) { /* spots */
        cells(wx * 9, wy * 9, s + 3, &first, &second, &which);
        mark = step01(0.36f, 0.26f, first);
      } else { /* large soft blotches */
        mark = step01(-0.05f, 0.20f, octaves(wx * 3, wy * 3, 3, 0.5f, s + 6));
      }
      rgb colour = blend(ground, marking, 0.9f * mark);
      colour = blend(colour, belly, 0.7f * step01(0.05f, 0.16f, y) * (1 - step01(0.20f, 0.26f, y)));
      colour = shade(colour, 1 + 0.22f * fur + 0.10f * octaves(x * 5, y * 5, 3, 0.5f, s + 7));
      if (far) colour = shade(colour, 0.62f);
      colour = shade(colour, light);
      float ex = x - c->eye_x, ey = y - c->eye_y, eye = sqrtf(ex * ex + ey * ey) / c->eye_r;
      if (!far && eye < 1) colour = eye < 0.75f ? (rgb){ 20, 16, 14 } : shade(colour, 0.5f);
      if (!far && (ex + 0.006f) * (ex + 0.006f) + (ey + 0.007f) * (ey + 0.007f) < 0.00004f) colour = (rgb){ 240, 240, 236 };
      float grain = 6 * (unit((uint32_t)column, (uint32_t)row, s + 8) - 0.5f);
      p[0] = pn_to_byte(colour.r + grain), p[1] = pn_to_byte(colour.g + grain), p[2] = pn_to_byte(colour.b + grain), p[3] = 255;
    }
}

int pn_paint_creature(pn_tensor **out, int64_t h, int64_t w, uint64_t seed) {
  creature c;
  grow(&c, mix((uint32_t)seed, (uint32_t)(seed >> 32), 0x1b873593u));
  return paint(out, "creature", h, w, 4, seed, &c, creature_rows);
}
