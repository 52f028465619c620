/* plot.c: lines and bars as PNG or SVG, drawn by cairo.
** Why here: a run shows its loss and its scores without another program. One look: white ground, light grid, the data in the
** foreground, a legend in one row under the title, labels that never run into each other. */
#include <cairo-svg.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "picture.h"

/* Okabe and Ito's colours (told apart also by the colour-blind), in an order that keeps neighbours apart; yellow is darkened. */
static const double colours[][3] = {
  {0.00,  0.45, 0.70},
  { 0.84, 0.37, 0.00},
  { 0.00, 0.62, 0.45},
  { 0.80, 0.47, 0.65},
  { 0.34, 0.71, 0.91},
  { 0.90, 0.62, 0.00},
  { 0.40, 0.40, 0.45},
  { 0.70, 0.65, 0.10},
};
enum { FONT = 13, TITLE = 17, LEGEND_MARK = 22, MAX_TICKS = 64 };

typedef struct scale {
  double low, high; /* of the data, or their log10 */
  double from, to;  /* pixels */
  bool log;
  double tick[MAX_TICKS];
  char label[MAX_TICKS][24];
  int n_ticks;
} scale;

static bool usable(double v, bool log_scale) { return isfinite(v) && (!log_scale || v > 0); }
static double place(const scale *s, double v) {
  return s->from + ((s->log ? log10(v) : v) - s->low) / (s->high - s->low) * (s->to - s->from);
}

/* ---- ranges and ticks ------------------------------------------------------------------------------------------------- */

static void add_tick(scale *s, double value, int decimals) {
  if (s->n_ticks == MAX_TICKS) return;
  char *label = s->label[s->n_ticks];
  s->tick[s->n_ticks++] = value;
  if (decimals < 0) snprintf(label, sizeof s->label[0], "%g", value);
  else snprintf(label, sizeof s->label[0], "%.*f", decimals, value == 0 ? 0.0 : value); /* never -0 */
}

static void linear_ticks(scale *s, double room) {
  double wanted = fmax(2, fabs(s->to - s->from) / room), raw = (s->high - s->low) / wanted;
  double unit = pow(10, floor(log10(raw))), step = raw <= unit       ? unit
                                                   : raw <= 2 * unit ? 2 * unit
                                                   : raw <= 5 * unit ? 5 * unit
                                                                     : 10 * unit;
  int decimals = step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-9);
  bool wide = fmax(fabs(s->low), fabs(s->high)) >= 1e6 || decimals > 6;
  double first = ceil(s->low / step - 1e-9);
  for (int i = 0; i < MAX_TICKS && (first + i) * step <= s->high + 1e-9 * step; i++)
    add_tick(s, (first + i) * step, wide ? -1 : decimals);
}

static void log_ticks(scale *s, double room) {
  double decades = s->high - s->low, wanted = fmax(2, fabs(s->to - s->from) / room);
  if (decades < 0.7) { /* within a decade: even steps read better */
    scale plain = { .low = pow(10, s->low), .high = pow(10, s->high), .from = s->from, .to = s->to };
    linear_ticks(&plain, room);
    for (int i = 0; i < plain.n_ticks; i++) {
      s->tick[i] = plain.tick[i];
      memcpy(s->label[i], plain.label[i], sizeof plain.label[i]);
    }
    s->n_ticks = plain.n_ticks;
    return;
  }
  int every = (int)fmax(1, ceil(decades / wanted));
  bool between = decades * 3 <= wanted;
  for (int k = (int)floor(s->low + 1e-9); k <= (int)ceil(s->high); k++) {
    if (every > 1 && k % every != 0) continue;
    for (int m = 1; m <= (between ? 5 : 1); m = m == 1 ? 2 : m == 2 ? 5 : 10) {
      double v = m * pow(10, k);
      if (log10(v) < s->low - 1e-9 || log10(v) > s->high + 1e-9) continue;
      add_tick(s, v, k >= -4 && k < 6 ? (k < 0 ? -k : 0) : -1);
    }
  }
}

/* The range of one axis: what was asked for, else the data's, opened a little. */
static void set_range(scale *s, double low, double high, double asked_low, double asked_high, double margin, bool near_zero) {
  if (!(low <= high)) low = s->log ? 0.1 : 0, high = 1; /* no data */
  if (s->log) low = log10(low), high = log10(high);
  double span = high - low;
  if (span <= 0) span = s->log ? 0.5 : fmax(fabs(low) * 0.2, 1e-12);
  double open_low = low - margin * span, open_high = high + margin * span;
  if (high == low && margin == 0) open_low = low - span / 2, open_high = high + span / 2;
  if (near_zero && !s->log) { /* an axis that nearly reaches 0 goes there */
    if (low >= 0 && low < 0.4 * high) open_low = 0;
    if (high <= 0 && high > 0.4 * low) open_high = 0;
  }
  s->low = usable(asked_low, s->log) ? (s->log ? log10(asked_low) : asked_low) : open_low;
  s->high = usable(asked_high, s->log) ? (s->log ? log10(asked_high) : asked_high) : open_high;
  if (!(s->high > s->low)) s->high = s->low + (s->log ? 1 : fmax(1e-12, fabs(s->low) * 0.1));
}

/* ---- drawing ------------------------------------------------------------------------------------------------------------ */

static void ink(cairo_t *cr, double grey) { cairo_set_source_rgb(cr, grey, grey, grey + 0.02 < 1 ? grey + 0.02 : 1); }

static double text_width(cairo_t *cr, const char *text) {
  cairo_text_extents_t e;
  cairo_text_extents(cr, text, &e);
  return e.x_advance;
}

/* Text with its anchor at x (0 left, 0.5 middle, 1 right end), baseline y. */
static void write_text(cairo_t *cr, const char *text, double x, double y, double anchor) {
  cairo_move_to(cr, x - anchor * text_width(cr, text), y);
  cairo_show_text(cr, text);
}

static void font(cairo_t *cr, double size, bool bold) {
  cairo_select_font_face(cr, "sans", CAIRO_FONT_SLANT_NORMAL, bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
  cairo_set_font_size(cr, size);
}

static void colour_of(cairo_t *cr, int i, double alpha) {
  const double *c = colours[(size_t)i % PN_LENGTH(colours)];
  cairo_set_source_rgba(cr, c[0], c[1], c[2], alpha);
}

static void draw_grid(cairo_t *cr, const scale *x, const scale *y, double bottom) {
  cairo_set_line_width(cr, 1);
  for (int i = 0; i < y->n_ticks; i++) {
    double v = floor(place(y, y->tick[i])) + 0.5;
    ink(cr, 0.90);
    cairo_move_to(cr, x->from, v);
    cairo_line_to(cr, x->to, v);
    cairo_stroke(cr);
    ink(cr, 0.35);
    write_text(cr, y->label[i], x->from - 8, v + FONT * 0.36, 1);
  }
  double free_from = -1e9; /* labels along x: one that would touch the one before is left out */
  for (int i = 0; i < x->n_ticks; i++) {
    double v = floor(place(x, x->tick[i])) + 0.5, half = text_width(cr, x->label[i]) / 2;
    ink(cr, 0.94);
    cairo_move_to(cr, v, y->from);
    cairo_line_to(cr, v, y->to);
    cairo_stroke(cr);
    if (v - half < free_from) continue;
    free_from = v + half + 10;
    ink(cr, 0.35);
    write_text(cr, x->label[i], v, bottom + FONT + 6, 0.5);
  }
  ink(cr, 0.55);
  cairo_move_to(cr, x->from, bottom + 0.5);
  cairo_line_to(cr, x->to, bottom + 0.5);
  cairo_stroke(cr);
}

static void draw_line(cairo_t *cr, const scale *x, const scale *y, const pn_series *s, const double *values, int colour,
                      double width, double alpha) {
  colour_of(cr, colour, alpha);
  cairo_set_line_width(cr, width);
  cairo_set_line_join(cr, CAIRO_LINE_JOIN_ROUND);
  cairo_set_line_cap(cr, CAIRO_LINE_CAP_ROUND);
  bool open = false;
  for (int64_t i = 0; i < s->n; i++) {
    double u = s->x ? s->x[i] : (double)(i + 1), v = values[i];
    if (!usable(u, x->log) || !usable(v, y->log)) {
      open = false;
      continue;
    }
    bool next = i + 1 < s->n && usable(s->x ? s->x[i + 1] : 1, x->log) && usable(values[i + 1], y->log);
    double px = place(x, u), py = place(y, v);
    if (open) cairo_line_to(cr, px, py);
    else if (next) cairo_move_to(cr, px, py);
    else { /* a value alone is a dot */ cairo_stroke(cr);
      cairo_arc(cr, px, py, width * 1.6, 0, 2 * M_PI);
      cairo_fill(cr);
    }
    open = open || next;
  }
  cairo_stroke(cr);
}

static void draw_bars(cairo_t *cr, const scale *x, const scale *y, const pn_plot *plot, const pn_series *series, int n_series,
                      double bottom) {
  double cell = (x->to - x->from) / fmax(1, plot->n_groups), bar = cell * 0.78 / n_series, widest = 0;
  char text[24];
  for (int g = 0; g < plot->n_groups; g++) widest = fmax(widest, text_width(cr, plot->groups[g] ? plot->groups[g] : ""));
  bool slanted = widest > cell - 6;
  for (int g = 0; g < plot->n_groups; g++) {
    for (int k = 0; k < n_series; k++) {
      double v = series[k].y[g];
      if (!usable(v, y->log)) continue;
      double left = x->from + cell * (g + 0.11) + bar * k, top = place(y, v), base = y->log || y->low > 0 ? y->from : place(y, 0);
      colour_of(cr, k, 0.9);
      cairo_rectangle(cr, left, fmin(top, base), fmax(1, bar - 1.5), fabs(base - top));
      cairo_fill(cr);
      snprintf(text, sizeof text, fabs(v) < 10 ? "%.2f" : fabs(v) < 100 ? "%.1f" : "%.0f", v);
      font(cr, FONT - 2, false);
      if (text_width(cr, text) <= bar + 2) {
        ink(cr, 0.3);
        write_text(cr, text, left + (bar - 1.5) / 2, v >= 0 ? top - 4 : top + FONT, 0.5);
      }
      font(cr, FONT, false);
    }
    const char *name = plot->groups[g] ? plot->groups[g] : "";
    double middle = x->from + cell * (g + 0.5);
    ink(cr, 0.35);
    if (slanted) {
      cairo_save(cr);
      cairo_translate(cr, middle + 4, bottom + FONT + 2);
      cairo_rotate(cr, -0.6);
      write_text(cr, name, 0, 0, 1);
      cairo_restore(cr);
    } else write_text(cr, name, middle, bottom + FONT + 6, 0.5);
  }
}

/* Rows of legend: draws when asked, returns how many rows it takes. */
static int legend(cairo_t *cr, const pn_series *series, int n, double left, double right, double top, bool bars, bool draw) {
  double x = left;
  int rows = 0;
  for (int i = 0; i < n; i++) {
    const char *name = series[i].name;
    if (!name || !*name) continue;
    double width = LEGEND_MARK + 6 + text_width(cr, name) + 20;
    if (rows == 0) rows = 1;
    else if (x + width - 20 > right) {
      x = left;
      rows++;
    }
    if (draw) {
      double y = top + (rows - 1) * (FONT + 7);
      colour_of(cr, i, 1);
      if (bars) {
        cairo_rectangle(cr, x + 8, y - 10, 11, 11);
        cairo_fill(cr);
      } else {
        cairo_set_line_width(cr, 3);
        cairo_set_line_cap(cr, CAIRO_LINE_CAP_ROUND);
        cairo_move_to(cr, x + 2, y - FONT * 0.36);
        cairo_line_to(cr, x + LEGEND_MARK - 2, y - FONT * 0.36);
        cairo_stroke(cr);
      }
      ink(cr, 0.2);
      write_text(cr, name, x + LEGEND_MARK + 6, y, 0);
    }
    x += width;
  }
  return rows;
}

static void data_range(double *low, double *high, const double *v, int64_t n, bool log_scale) {
  for (int64_t i = 0; v && i < n; i++) {
    if (!usable(v[i], log_scale)) continue;
    *low = fmin(*low, v[i]);
    *high = fmax(*high, v[i]);
  }
}

static void draw(cairo_t *cr, const pn_plot *plot, const pn_series *series, int n_series, double width, double height) {
  bool bars = plot->kind == PN_PLOT_BARS;
  cairo_set_source_rgb(cr, 1, 1, 1);
  cairo_paint(cr);
  font(cr, FONT, false);

  scale x = { .log = !bars && plot->log_x }, y = { .log = plot->log_y };
  double x_low = INFINITY, x_high = -INFINITY, y_low = INFINITY, y_high = -INFINITY;
  for (int i = 0; i < n_series; i++) {
    if (series[i].x) data_range(&x_low, &x_high, series[i].x, series[i].n, x.log);
    else if (series[i].n > 0) x_low = fmin(x_low, 1), x_high = fmax(x_high, (double)series[i].n);
    data_range(&y_low, &y_high, series[i].y, series[i].n, y.log);
    data_range(&y_low, &y_high, series[i].faint, series[i].n, y.log);
  }
  if (bars && !y.log) y_low = fmin(y_low, 0), y_high = fmax(y_high, 0); /* the length of a bar means something only from 0 */
  set_range(&x, x_low, x_high, plot->x_min, plot->x_max, 0, false);
  set_range(&y, y_low, y_high, plot->y_min, plot->y_max, 0.05, true);
  if (bars && !y.log && !(usable(plot->y_min, false)) && y_low == 0) y.low = 0;

  bool titled = plot->title && *plot->title, named_x = plot->x_label && *plot->x_label, named_y = plot->y_label && *plot->y_label;
  double left = 18, right = width - 24, top = titled ? 44 : 18, bottom = height - FONT - 18;
  if (named_x) bottom -= FONT + 10;
  if (bars) {
    double widest = 0;
    for (int g = 0; g < plot->n_groups; g++) widest = fmax(widest, text_width(cr, plot->groups[g] ? plot->groups[g] : ""));
    if (widest > (right - left - 40) / fmax(1, plot->n_groups) - 6)
      bottom -= fmin(widest * 0.56, height * 0.25); /* slanted names */
  }
  if (named_y) left += FONT + 8;
  int rows = legend(cr, series, n_series, left, right, 0, bars, false);
  double legend_top = top + FONT;
  if (rows > 0) top += rows * (FONT + 7) + 8;
  y.from = bottom;
  y.to = top + 4;
  if (y.log) log_ticks(&y, 48);
  else linear_ticks(&y, 48);
  double label = 0;
  for (int i = 0; i < y.n_ticks; i++) label = fmax(label, text_width(cr, y.label[i]));
  x.from = left + label + 8;
  x.to = right;
  if (!bars) {
    if (x.log) log_ticks(&x, 90);
    else linear_ticks(&x, 90);
  }

  draw_grid(cr, &x, &y, bottom);
  cairo_save(cr);
  if (!bars) {
    cairo_rectangle(cr, x.from - 2, y.to - 4, x.to - x.from + 4, y.from - y.to + 6);
    cairo_clip(cr);
    for (int i = 0; i < n_series; i++) {
      if (series[i].faint) draw_line(cr, &x, &y, &series[i], series[i].faint, i, 1, 0.3);
    }
    for (int i = 0; i < n_series; i++) draw_line(cr, &x, &y, &series[i], series[i].y, i, 2, 1);
  } else draw_bars(cr, &x, &y, plot, series, n_series, bottom);
  cairo_restore(cr);

  (void)legend(cr, series, n_series, x.from, right, legend_top, bars, true);
  ink(cr, 0.2);
  if (named_x) write_text(cr, plot->x_label, (x.from + x.to) / 2, height - 12, 0.5);
  if (named_y) {
    cairo_save(cr);
    cairo_translate(cr, 12 + FONT * 0.7, (y.from + y.to) / 2);
    cairo_rotate(cr, -M_PI / 2);
    write_text(cr, plot->y_label, 0, 0, 0.5);
    cairo_restore(cr);
  }
  if (titled) {
    font(cr, TITLE, true);
    ink(cr, 0.12);
    write_text(cr, plot->title, x.from, 30, 0);
  }
}

/* ---- files ---------------------------------------------------------------------------------------------------------------- */

typedef struct growing {
  char *data;
  size_t bytes, room;
} growing;

static cairo_status_t append(void *closure, const unsigned char *data, unsigned int bytes) {
  growing *g = closure;
  if (g->bytes + bytes > g->room) {
    size_t room = 2 * (g->bytes + bytes);
    char *more = realloc(g->data, room);
    if (!more) return CAIRO_STATUS_NO_MEMORY;
    g->data = more;
    g->room = room;
  }
  memcpy(g->data + g->bytes, data, bytes);
  g->bytes += bytes;
  return CAIRO_STATUS_SUCCESS;
}

static int write_pixels(const char *path, cairo_surface_t *surface, int width, int height) {
  cairo_surface_flush(surface);
  const unsigned char *from = cairo_image_surface_get_data(surface);
  int stride = cairo_image_surface_get_stride(surface);
  uint8_t *rgb = pn_alloc((size_t)width * (size_t)height * 3), *png = NULL;
  size_t bytes = 0;
  if (!rgb) return -1;
  for (int row = 0; row < height; row++) {
    for (int column = 0; column < width; column++) {
      uint32_t v;
      memcpy(&v, from + row * stride + 4 * column, 4);
      for (int c = 0; c < 3; c++) rgb[3 * (row * width + column) + c] = (uint8_t)(v >> (16 - 8 * c));
    }
  }
  int rc = pn_png_encode(&png, &bytes, path, rgb, height, width, 3, false);
  if (rc == 0) rc = pn_file_replace(path, png, bytes);
  free(png);
  pn_free(rgb);
  return rc;
}

int pn_plot_write(const char *path, const pn_plot *plot, const pn_series *series, int n_series) {
  if (!path || !plot || (n_series > 0 && !series)) return pn_fail("plot: expected a path, a plot and its series");
  size_t length = strlen(path);
  bool svg = length > 4 && strcmp(path + length - 4, ".svg") == 0;
  if (!svg && !(length > 4 && strcmp(path + length - 4, ".png") == 0))
    return pn_fail("%s: a plot is written as .png or .svg", path);
  int width = plot->width ? plot->width : 960, height = plot->height ? plot->height : 540;
  if (width < 200 || height < 150 || width > 10000 || height > 10000)
    return pn_fail("%s: a plot is 200..10000 by 150..10000 pixels, got %d x %d", path, width, height);
  if (n_series < 0 || n_series > 1000) return pn_fail("%s: a plot has 0..1000 series, got %d", path, n_series);
  for (int i = 0; i < n_series; i++) {
    if (series[i].n < 0 || (series[i].n > 0 && !series[i].y)) return pn_fail("%s: series %d has no values", path, i + 1);
    if (plot->kind == PN_PLOT_BARS && series[i].n != plot->n_groups)
      return pn_fail("%s: series %d has %lld values for %d groups of bars", path, i + 1, (long long)series[i].n, plot->n_groups);
  }
  growing text = { 0 };
  cairo_surface_t *surface = svg ? cairo_svg_surface_create_for_stream(append, &text, width, height)
                                 : cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height);
  cairo_t *cr = cairo_create(surface);
  draw(cr, plot, series, n_series, width, height);
  cairo_status_t status = cairo_status(cr);
  cairo_destroy(cr);
  if (svg) cairo_surface_finish(surface);
  if (status == CAIRO_STATUS_SUCCESS) status = cairo_surface_status(surface);
  int rc = status == CAIRO_STATUS_SUCCESS ? 0 : pn_fail("%s: cannot draw the plot: %s", path, cairo_status_to_string(status));
  if (rc == 0) rc = svg ? pn_file_replace(path, text.data, text.bytes) : write_pixels(path, surface, width, height);
  cairo_surface_destroy(surface);
  free(text.data);
  return rc;
}
