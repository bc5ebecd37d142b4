/* The C surface of the archive prospect::kernels: C11, nothing beyond the standard library, nothing
 * to free but the workspaces and tickets of the head path (head.h).
 *
 * Losses and parameters go by name, so a binding does not change when a loss is added. Every
 * function returns a status and, where `error` is not NULL, a sentence that names the argument.
 * Nothing is thrown, printed or kept: there is no global state, and calls are thread-safe as long
 * as their outputs do not overlap. Within a call, outputs must overlap neither inputs nor each
 * other, unless it says so.
 *
 * Structs that may grow start with `struct_size`: PROSPECT_INIT sets it and zeroes the rest; then
 * fill in what is needed. A newer library reads an older, shorter struct as if its missing fields
 * were zero; an older library refuses a longer struct whose extra bytes are not zero. A size below
 * that of the first release is refused.
 *
 * The phases have a header each; this one is all of them. What is in a library of its own is not
 * among them: prospect/c/cublaslt.h.
 */
#ifndef PROSPECT_C_PROSPECT_H
#define PROSPECT_C_PROSPECT_H

#include <prospect/c/base.h>
#include <prospect/c/cuda.h>
#include <prospect/c/cuda_head.h>
#include <prospect/c/head.h>
#include <prospect/c/losses.h>
#include <prospect/c/rewards.h>
#include <prospect/c/sequences.h>
#include <prospect/c/step.h>
#include <prospect/c/token_losses.h>
#include <prospect/c/tokens.h>
#include <prospect/c/values.h>

#endif
