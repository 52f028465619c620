/* clip.h: what a network reads for a byte of a picture; for the CPU's loops and the GPU's kernels. */
#ifndef PENUMBRA_KERNELS_CLIP_H
#define PENUMBRA_KERNELS_CLIP_H
#include "internal.h"
#include "shared.h"

/* PN_RGB_PM1: v/127.5 - 1; PN_BGR_01: v/255 */
PN_SHARED real pn_pixel_value(int v, bool bgr) { return (real)(bgr ? v / 255.0 : v / 127.5 - 1); }

/* Frames u8 (H,W,3), (T,H,W,3) or (N,T,H,W,3) seen as (N,3,T,H,W), where asked with blue first. */
#ifdef __cplusplus
extern "C" {
#endif
PN_API PN_CHECKED int pn_frames_as_clip(pn_tensor **out, pn_tensor *frames, bool bgr);
#ifdef __cplusplus
}
#endif
#endif
