/* One call of the C API that uses the archive's threads: every row of a matrix times 2. */
#include <prospect/c/prospect.h>

#include <stddef.h>

static int scale_rows(float* data, int64_t rows, int64_t columns, const float* twos) {
  prospect_logits matrix = {data, rows, columns, columns, PROSPECT_F32, 0};
  const prospect_const_row factors = {twos, rows, 1};
  return prospect_scale_rows_cpu(&matrix, factors, NULL) == PROSPECT_OK;
}
