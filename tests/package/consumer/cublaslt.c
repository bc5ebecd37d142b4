/* A host of the head path on a device whose product is cuBLASLt's: it links, and says what it
 * misses. */
#include <prospect/c/cublaslt.h>

int main(void) {
  prospect_error error;
  return prospect_cublaslt_create(NULL, NULL, 0, 0, NULL, &error) != PROSPECT_INVALID_ARGUMENT;
}
