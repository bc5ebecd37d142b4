/* What every part of the C surface is written with: statuses, rows, matrices, where a call runs.
 */
#ifndef PROSPECT_C_BASE_H
#define PROSPECT_C_BASE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if !defined(__cplusplus)
#include <stdbool.h>
#endif

#if defined(__GNUC__)
#define PROSPECT_API __attribute__((visibility("default")))
#else
#define PROSPECT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Enumerations are int32_t with named values, in structs and everywhere else. All of them are open:
 * a later version may know more values, none is ever given another meaning. */

typedef int32_t prospect_status;
enum {
  PROSPECT_OK = 0,
  PROSPECT_INVALID_ARGUMENT = 1, /* a size, pointer, value or combination; see the message */
  PROSPECT_UNKNOWN_NAME = 2,     /* no loss, parameter or metric of this name */
  PROSPECT_UNSUPPORTED = 3,      /* a dtype, kind or struct this version does not know */
  PROSPECT_INTERNAL_ERROR = 4,   /* out of memory, or a defect of ours */
  PROSPECT_ABSENT = 5,           /* a metric of which nothing was counted */
  PROSPECT_CUDA_ERROR = 0x10000, /* PROSPECT_CUDA_ERROR + the cudaError_t that CUDA answered */
  PROSPECT_CUDA_ERROR_LAST = 0x1ffff
};

/* A message of at most 511 characters, written on failure only. */
typedef struct prospect_error {
  char message[512];
} prospect_error;

/* MAJOR * 10000 + MINOR * 100 + PATCH of the library. */
PROSPECT_API uint32_t prospect_version(void);
PROSPECT_API const char* prospect_status_string(prospect_status status);

/* Ends the library's own threads, after the work they are at; whoever calls afterwards works alone.
 * They end by themselves when the process does or the library is unloaded: this is for hosts that
 * want to choose the time. */
PROSPECT_API void prospect_shutdown(void);

/* Zeroes a struct that starts with struct_size, and sets that. */
#define PROSPECT_INIT(object) \
  (memset(&(object), 0, sizeof(object)), (void)((object).struct_size = sizeof(object)))

/* ---- Rows and matrices ----------------------------------------------------------------------- */

typedef int32_t prospect_dtype;
enum {
  PROSPECT_F32 = 0,
  PROSPECT_F64 = 1,
  PROSPECT_F16 = 2,
  PROSPECT_BF16 = 3,
  PROSPECT_I32 = 4,
  PROSPECT_I64 = 5,
  PROSPECT_U8 = 6,
  PROSPECT_BOOL = 7 /* a byte that is 0 or 1 */
};

/* `size` elements of one type, `stride` elements apart; a stride may be negative, and 0 (one
 * element again and again) where the row is read. Data must be aligned to its element. Which rows
 * are read and which are written stands at each function; no row that is read is written.
 *
 * size 0 means "not given" (inputs) or "not wanted" (outputs): {0} is such a row. What a row must
 * be of is said where it is taken, and checked: "float" stands for PROSPECT_F32, "double" for
 * PROSPECT_F64, "real" for any of the four floating-point types, "index" for I32 or I64, "count"
 * for I32, "flag" for U8 or BOOL. */
typedef struct prospect_row {
  void* data;
  int64_t size;
  int64_t stride;
  int32_t dtype;
  int32_t reserved; /* 0 */
} prospect_row;

/* Row-major [rows, columns]; `pitch` elements from one row to the next. */
typedef struct prospect_matrix {
  void* data;
  int64_t rows, columns, pitch;
  int32_t dtype;
  int32_t reserved; /* 0 */
} prospect_matrix;

/* Bytes of an element, or 0 for a dtype that is not known here. */
static inline size_t prospect_dtype_size(prospect_dtype dtype) {
  switch (dtype) {
    case PROSPECT_F64:
    case PROSPECT_I64:
      return 8;
    case PROSPECT_F32:
    case PROSPECT_I32:
      return 4;
    case PROSPECT_F16:
    case PROSPECT_BF16:
      return 2;
    case PROSPECT_U8:
    case PROSPECT_BOOL:
      return 1;
    default:
      return 0;
  }
}

/* The row of `size` elements that lie one after the other. From memory that is const only for rows
 * that are read. */
static inline prospect_row prospect_row_of(const void* data, int64_t size, prospect_dtype dtype) {
  prospect_row row;
  memset(&row, 0, sizeof row);
  memcpy(&row.data, &data, sizeof data);
  row.size = size;
  row.stride = 1;
  row.dtype = dtype;
  return row;
}

/* Elements first, first + 1, ... of a row: chosen and rejected are often halves of one. */
static inline prospect_row prospect_row_slice(prospect_row row, int64_t first, int64_t count) {
  const ptrdiff_t bytes = (ptrdiff_t)prospect_dtype_size(row.dtype);
  row.data = (char*)row.data + (ptrdiff_t)(first * row.stride) * bytes;
  row.size = count;
  return row;
}

static inline prospect_matrix prospect_matrix_of(const void* data, int64_t rows, int64_t columns,
                                                 prospect_dtype dtype) {
  prospect_matrix matrix;
  memset(&matrix, 0, sizeof matrix);
  memcpy(&matrix.data, &data, sizeof data);
  matrix.rows = rows;
  matrix.columns = matrix.pitch = columns;
  matrix.dtype = dtype;
  return matrix;
}

/* The same with the dtype that the pointer says: a row that claims to be what it is not does not
 * compile. bfloat16 and fp16 have no type in C: name their dtype. */
#define PROSPECT_ROW(pointer, size) prospect_row_of((pointer), (size), PROSPECT_DTYPE_OF(pointer))
#define PROSPECT_MATRIX(pointer, rows, columns) \
  prospect_matrix_of((pointer), (rows), (columns), PROSPECT_DTYPE_OF(pointer))

#ifdef __cplusplus
extern "C++" {
inline prospect_dtype prospect_dtype_of(const float*) { return PROSPECT_F32; }
inline prospect_dtype prospect_dtype_of(const double*) { return PROSPECT_F64; }
inline prospect_dtype prospect_dtype_of(const int32_t*) { return PROSPECT_I32; }
inline prospect_dtype prospect_dtype_of(const int64_t*) { return PROSPECT_I64; }
inline prospect_dtype prospect_dtype_of(const uint8_t*) { return PROSPECT_U8; }
inline prospect_dtype prospect_dtype_of(const bool*) { return PROSPECT_BOOL; }
}
#define PROSPECT_DTYPE_OF(pointer) prospect_dtype_of(pointer)
#else
#define PROSPECT_DTYPE_OF(pointer)  \
  _Generic((pointer),               \
      float*: PROSPECT_F32,         \
      const float*: PROSPECT_F32,   \
      double*: PROSPECT_F64,        \
      const double*: PROSPECT_F64,  \
      int32_t*: PROSPECT_I32,       \
      const int32_t*: PROSPECT_I32, \
      int64_t*: PROSPECT_I64,       \
      const int64_t*: PROSPECT_I64, \
      uint8_t*: PROSPECT_U8,        \
      const uint8_t*: PROSPECT_U8,  \
      bool*: PROSPECT_BOOL,         \
      const bool*: PROSPECT_BOOL)
#endif

/* ---- Where a call runs ----------------------------------------------------------------------- */

/* Who runs the loops: run(context, n, body, argument) calls body(argument, i) once for every i in
 * [0, n), on any threads, and returns when all are done. Results do not depend on it. */
typedef struct prospect_executor {
  void* context;
  void (*run)(void* context, int64_t n, void (*body)(void* argument, int64_t i), void* argument);
} prospect_executor;

struct CUstream_st; /* what a cudaStream_t points to */

/* The last argument but one of every function with work to do; NULL is one of zeros.
 *
 * Some functions take scratch memory: prospect_step_cpu, and several on a device. How much, a whole
 * step can be asked: run it once with a `query` that points to 0, and each call raises *query to
 * the bytes it takes and does nothing else. That many bytes then serve every call of the step, one
 * after the other. */
typedef struct prospect_context {
  size_t struct_size;
  const prospect_executor* executor; /* for _cpu; NULL: the library's own threads */
  struct CUstream_st* stream;        /* for _cuda */
  void* scratch; /* aligned as malloc's memory is on the host, as cudaMalloc's on a device */
  size_t scratch_size;
  size_t* query;
} prospect_context;

#ifdef __cplusplus
}
#endif

#endif
