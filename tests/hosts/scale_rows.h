/* One call of the C API that uses the archive's threads: row i of a matrix times factors[i]. */
#include <prospect/c/prospect.h>

#include <stddef.h>

static inline int scale_rows(float* data, int64_t rows, int64_t columns, const float* factors) {
  return prospect_scale_rows_cpu(PROSPECT_MATRIX(data, rows, columns), PROSPECT_ROW(factors, rows),
                                 NULL, NULL) == PROSPECT_OK;
}
