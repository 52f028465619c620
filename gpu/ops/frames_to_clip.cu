/* frames_to_clip.cu: see core/ops/frames_to_clip.c. */
#include "kernels/clip.h"
#include "loop.h"

PN_KERNEL void to_clip(pn_loop loop, bool bgr) {
  PN_EACH(i, loop.count) {
    int64_t at[PN_LOOP_OPERANDS];
    pn_loop_at(&loop, i, at);
    pn_loop_put(&loop, 0, at, pn_pixel_value(((const uint8_t *)loop.base[1])[at[1]], bgr));
  }
}

static int forward(pn_call *call) {
  pn_gpu *gpu = pn_gpu_of(call->y[0]);
  bool bgr = pn_arg_int(call, "rule") == PN_BGR_01;
  pn_tensor *x;
  pn_loop loop;
  if (!gpu || pn_frames_as_clip(&x, call->x[0], bgr)) return -1;
  pn_loop_start(&loop, 5, call->y[0]->shape);
  pn_loop_add(&loop, call->y[0]);
  pn_loop_add(&loop, x);
  pn_loop_plan(&loop);
  int rc = !loop.count ? 0 : PN_LAUNCH(gpu, to_clip, pn_gpu_blocks(gpu, loop.count, 256), 256, loop, bgr);
  pn_tensor_release(x);
  return rc;
}

PN_CUDA_KERNEL(frames_to_clip, forward, NULL)
