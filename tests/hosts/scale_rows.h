/* One call of the C API that uses the archive's threads: every row of a matrix times 2. */
#include <prospect/c/prospect.h>

static int scale_rows(float* data, int64_t rows, int64_t columns, const float* twos) {
  return prospect_scale_rows_cpu(PROSPECT_MATRIX(data, rows, columns), PROSPECT_ROW(twos, rows),
                                 NULL, NULL) == PROSPECT_OK;
}
