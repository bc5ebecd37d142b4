// The C API on a device in an archive that was built without CUDA: every function says so.
#include "../boundary.hpp"

namespace pk = prospect::kernels;

namespace {

prospect_status absent(prospect_error* error) {
  return pk::report(error, PROSPECT_UNSUPPORTED, "prospect: this archive was built without CUDA");
}

}  // namespace

prospect_status prospect_pairs_cuda(const prospect_loss*, const prospect_pairs*, void*, void*,
                                    size_t*, CUstream_st*, prospect_error* error) {
  return absent(error);
}
prospect_status prospect_completions_cuda(const prospect_loss*, const prospect_completions*, void*,
                                          void*, size_t*, CUstream_st*, prospect_error* error) {
  return absent(error);
}
prospect_status prospect_mismatched_kl_cuda(prospect_dtype, prospect_const_row, prospect_const_row,
                                            prospect_const_row, prospect_sum_count*, void*, size_t*,
                                            CUstream_st*, prospect_error* error) {
  return absent(error);
}
prospect_status prospect_token_log_probs_cuda(const prospect_logits*, const prospect_indices*,
                                              const prospect_token_options*, prospect_row,
                                              prospect_row, const prospect_token_statistics*, void*,
                                              size_t*, CUstream_st*, prospect_error* error) {
  return absent(error);
}
prospect_status prospect_token_log_probs_and_gradient_cuda(
    const prospect_logits*, const prospect_indices*, const prospect_token_options*, prospect_row,
    prospect_row, const prospect_token_statistics*, CUstream_st*, prospect_error* error) {
  return absent(error);
}
prospect_status prospect_logits_gradient_cuda(const prospect_logits*, const prospect_indices*,
                                              const prospect_token_options*, prospect_const_row,
                                              prospect_const_row, prospect_const_row, CUstream_st*,
                                              prospect_error* error) {
  return absent(error);
}
prospect_status prospect_logits_gradient_into_cuda(const prospect_logits*, const prospect_logits*,
                                                   const prospect_indices*,
                                                   const prospect_token_options*,
                                                   prospect_const_row, prospect_const_row,
                                                   prospect_const_row, prospect_const_row,
                                                   CUstream_st*, prospect_error* error) {
  return absent(error);
}
prospect_status prospect_scale_rows_cuda(const prospect_logits*, prospect_const_row, CUstream_st*,
                                         prospect_error* error) {
  return absent(error);
}
prospect_status prospect_vocabulary_partials_cuda(const prospect_logits*, const prospect_indices*,
                                                  const prospect_token_options*, int,
                                                  prospect_partial*, void*, size_t*, CUstream_st*,
                                                  prospect_error* error) {
  return absent(error);
}
prospect_status prospect_combine_partials_cuda(const prospect_partial*, int64_t,
                                               const prospect_indices*, prospect_row, prospect_row,
                                               const prospect_token_statistics*, CUstream_st*,
                                               prospect_error* error) {
  return absent(error);
}
prospect_status prospect_sequence_sums_cuda(prospect_dtype, prospect_const_row,
                                            const prospect_indices*, const prospect_layout*,
                                            prospect_row, prospect_row, CUstream_st*,
                                            prospect_error* error) {
  return absent(error);
}
prospect_status prospect_spread_cuda(prospect_dtype, prospect_const_row, const prospect_indices*,
                                     const prospect_layout*, prospect_row, CUstream_st*,
                                     prospect_error* error) {
  return absent(error);
}
prospect_status prospect_shift_targets_cuda(const prospect_indices*, const prospect_layout*,
                                            prospect_row, CUstream_st*, prospect_error* error) {
  return absent(error);
}
