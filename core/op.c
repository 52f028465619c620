/* op.c: the registry of operations and their arguments: text and defaults to checked values. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "op.h"

#define OP(name, devices) &pn_op_##name,
static const pn_op *const registry[] = {
#include "ops.def"
  NULL
};
#undef OP
#define OP(name, devices) devices,
static const int devices_of[] = {
#include "ops.def"
  0
};
#undef OP

int pn_n_ops(void) { return PN_N_OPS; }
const pn_op *pn_op_at(int index) { return index >= 0 && index < PN_N_OPS ? registry[index] : NULL; }

const pn_op *pn_op_find(const char *name) {
  for (int i = 0; name && i < PN_N_OPS; i++)
    if (!strcmp(registry[i]->name, name)) return registry[i];
  return NULL;
}

int pn_op_devices_of(const pn_op *op) {
  int place = 0;
  while (place < PN_N_OPS && registry[place] != op) place++;
  return devices_of[place];
}

const char *pn_op_devices(const pn_op *op) {
  int devices = pn_op_devices_of(op);
  return devices == CPU ? "cpu" : devices ? "cpu cuda" : "";
}

const char *pn_op_name(const pn_op *op) { return op->name; }
const char *pn_op_help(const pn_op *op) { return op->help ? op->help : ""; }
const char *pn_op_inputs(const pn_op *op) { return op->inputs; }
const char *pn_op_outputs(const pn_op *op) { return op->outputs ? op->outputs : "y"; }
bool pn_op_differentiable(const pn_op *op) { return op->view || op->cpu.backward; }

bool pn_op_input_constant(const pn_op *op, int index) { return index >= 0 && index < PN_MAX_INPUTS && op->constant_inputs[index]; }

bool pn_op_input_real(const pn_op *op, int index) { return index >= 0 && index < PN_MAX_INPUTS && op->real_inputs[index]; }

bool pn_op_input_integer(const pn_op *op, int index) { return index >= 0 && index < PN_MAX_INPUTS && op->integer_inputs[index]; }

static int count_args(const pn_op *op) {
  int n = 0;
  while (op->args && op->args[n].name) n++;
  return n;
}

const pn_arg *pn_op_arg(const pn_op *op, int index) { return index >= 0 && index < count_args(op) ? &op->args[index] : NULL; }

const char *pn_op_case(const pn_op *op, int index) {
  for (int i = 0; op->cases && op->cases[i]; i++)
    if (i == index) return op->cases[i];
  return NULL;
}

/* ---- values from text ------------------------------------------------------------------------------------------------ */

static int parse_ints(const pn_op *op, const pn_arg *a, const char *text, int most, int64_t *out, int *n) {
  *n = 0;
  for (const char *p = text; *p;) {
    char *end;
    long long v = strtoll(p, &end, 10);
    if (end == p || (*end && *end != ',') || *n == most)
      return pn_fail("%s: %s = \"%s\" is not %s of whole numbers", op->name, a->name, text, most == 1 ? "one" : "a list");
    out[(*n)++] = v;
    p = *end ? end + 1 : end;
  }
  return 0;
}

static int choice_of(const pn_op *op, const pn_arg *a, const char *text, int64_t *out) {
  const char *p = a->choices;
  size_t length = strlen(text);
  for (int64_t i = 0; p; i++) {
    size_t n = strcspn(p, "|");
    if (n == length && !strncmp(p, text, n)) {
      *out = i;
      return 0;
    }
    p = p[n] ? p + n + 1 : NULL;
  }
  return pn_fail("%s: %s = \"%s\" is none of %s", op->name, a->name, text, a->choices);
}

static int parse_value(const pn_op *op, const pn_arg *a, const char *text, pn_value *v) {
  *v = (pn_value){ 0 };
  char *end;
  int n;
  switch (a->kind) {
  case PN_INT:
    if (parse_ints(op, a, text, 1, v->i, &n)) return -1;
    if (n != 1) return pn_fail("%s: %s has no value", op->name, a->name);
    v->n = 1;
    return 0;
  case PN_INT3:
    if (parse_ints(op, a, text, 3, v->i, &n)) return -1;
    if (n == 1) v->i[1] = v->i[2] = v->i[0];
    else if (n != 3) return pn_fail("%s: %s = \"%s\": one number or t,h,w", op->name, a->name, text);
    v->n = 3;
    return 0;
  case PN_PAD3:
    if (!strcmp(text, "same")) {
      v->same = true;
      return 0;
    }
    if (parse_ints(op, a, text, 6, v->i, &n)) return -1;
    if (n == 1) v->i[1] = v->i[2] = v->i[0];
    if (n == 1 || n == 3)
      for (int d = 2; d >= 0; d--) v->i[2 * d] = v->i[2 * d + 1] = v->i[d];
    else if (n != 6)
      return pn_fail("%s: %s = \"%s\": same, one number, t,h,w, or t low,t high,h low,h high,w low,w high", op->name, a->name,
                     text);
    v->n = 6;
    return 0;
  case PN_REAL:
    v->f = strtod(text, &end);
    return end == text || *end ? pn_fail("%s: %s = \"%s\" is not a number", op->name, a->name, text) : 0;
  case PN_BOOL:
    if (strcmp(text, "true") && strcmp(text, "false"))
      return pn_fail("%s: %s = \"%s\" is neither true nor false", op->name, a->name, text);
    v->i[0] = text[0] == 't';
    return 0;
  case PN_CHOICE: return choice_of(op, a, text, v->i);
  case PN_INTS:
    if (parse_ints(op, a, text, 6, v->i, &n)) return -1;
    v->n = n;
    return 0;
  }
  return pn_fail("%s: %s is of an unknown kind", op->name, a->name);
}

static int out_of_range(const pn_op *op, const pn_arg *a, double value) {
  return pn_fail("%s: %s = %.10g is not in %.10g..%.10g", op->name, a->name, value, a->min, a->max);
}

static int check_value(const pn_op *op, const pn_arg *a, const pn_value *v) {
  if (a->kind == PN_REAL) {
    if (!isfinite(v->f)) return pn_fail("%s: %s is not a finite number", op->name, a->name);
    return a->min < a->max && (v->f < a->min || v->f > a->max) ? out_of_range(op, a, v->f) : 0;
  }
  if (a->kind == PN_BOOL || a->kind == PN_CHOICE || v->same || !(a->min < a->max)) return 0;
  if (v->n < 0 || v->n > 6) return pn_fail("%s: %s has %d numbers", op->name, a->name, v->n);
  for (int i = 0; i < v->n; i++)
    if ((double)v->i[i] < a->min || (double)v->i[i] > a->max) return out_of_range(op, a, (double)v->i[i]);
  return 0;
}

int pn_op_defaults(const pn_op *op, const bool *given, pn_value *args) {
  if (!op || !args) return pn_fail("op_defaults: NULL");
  int n = count_args(op);
  for (int i = 0; i < n; i++) {
    const pn_arg *a = &op->args[i];
    if (!given || !given[i]) {
      if (!a->def) return pn_fail("%s: %s is required (%s)", op->name, a->name, a->help ? a->help : "");
      if (a->def[0] == '=') {
        int j = 0;
        while (j < i && strcmp(op->args[j].name, a->def + 1)) j++;
        if (j == i) return pn_fail("%s: default of %s names no earlier argument", op->name, a->name);
        args[i] = args[j];
      } else if (parse_value(op, a, a->def, &args[i])) return -1;
    }
    if (check_value(op, a, &args[i])) return -1;
  }
  return 0;
}

int pn_op_parse(const pn_op *op, const char *text, pn_value *args) {
  if (!op || !text || !args) return pn_fail("op_parse: NULL");
  bool given[PN_MAX_ARGS] = { 0 };
  int n = count_args(op);
  for (const char *p = text; *(p += strspn(p, " "));) {
    char word[160];
    size_t length = strcspn(p, " ");
    if (length >= sizeof word) return pn_fail("%s: argument too long: %.40s...", op->name, p);
    memcpy(word, p, length);
    word[length] = 0;
    p += length;
    char *value = strchr(word, '=');
    if (!value) return pn_fail("%s: \"%s\" is not key=value", op->name, word);
    *value++ = 0;
    int i = 0;
    while (i < n && strcmp(op->args[i].name, word)) i++;
    if (i == n) return pn_fail("%s: no argument \"%s\"", op->name, word);
    if (parse_value(op, &op->args[i], value, &args[i])) return -1;
    given[i] = true;
  }
  return pn_op_defaults(op, given, args);
}
