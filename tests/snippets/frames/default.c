/* What a snippet in C may assume: the header, and an error to write to. */
#include <prospect/c/prospect.h>

#include <stdio.h>
#include <stdlib.h>

/* here, declarations */

int main(void) {
  prospect_error error;
  (void)error;
  /* here, statements */
  return 0;
}
