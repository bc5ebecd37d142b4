/* What frames in C share: a check that ends the program with a message, and closeness. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define REQUIRE(what)                                          \
  do {                                                         \
    if (!(what)) {                                             \
      printf("after the snippet this is not so: %s\n", #what); \
      exit(1);                                                 \
    }                                                          \
  } while (0)

static int near(double got, double expected) {
  return fabs(got - expected) <= 1e-6 * (1 + fabs(expected));
}
