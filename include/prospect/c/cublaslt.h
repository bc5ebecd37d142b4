/* cuBLASLt's matrix product for the head path on a device (prospect/c/cuda_head.h), in a library of
 * its own, prospect::cublaslt, which is built where cuBLASLt is found: whoever brings another
 * product links neither. */
#ifndef PROSPECT_C_CUBLASLT_H
#define PROSPECT_C_CUBLASLT_H

#include <prospect/c/cuda_head.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cublasLtContext; /* what a cublasLtHandle_t points to */

/* Keeps the algorithms it was told of, one for each kind of product: the first of a kind asks
 * cuBLASLt, on the host. One call at a time. See prospect/cuda/gemm_cublaslt.hpp. */
typedef struct prospect_cublaslt prospect_cublaslt;

/* `handle` stays the caller's; NULL: one is made. `workspace` is device memory of `bytes` bytes,
 * 256-byte aligned, for one stream at a time, and stays the caller's too; 32 MiB suit Hopper, and
 * it may be none. `tf32` not 0: products of F32 in TF32, faster, to 10 bits. */
PROSPECT_API prospect_status prospect_cublaslt_create(struct cublasLtContext* handle,
                                                      void* workspace, size_t bytes, int32_t tf32,
                                                      prospect_cublaslt** created,
                                                      prospect_error* error);
/* Once what it has put on streams has run; or at any time, if handle and workspace are the caller's
 * and outlive that. NULL is none. */
PROSPECT_API void prospect_cublaslt_destroy(prospect_cublaslt* cublaslt);

/* For prospect_head_rows, as long as it lives. */
PROSPECT_API prospect_gemm prospect_cublaslt_gemm(prospect_cublaslt* cublaslt);

#ifdef __cplusplus
}
#endif

#endif
