/* A plug-in that holds the archive. */
#include "scale_rows.h"

static float data[1024 * 64], twos[1024];

__attribute__((visibility("default"))) int plugin_work(void);
int plugin_work(void) {
  int right;
  for (size_t i = 0; i < sizeof data / sizeof data[0]; ++i) data[i] = (float)(i % 1000);
  for (size_t i = 0; i < sizeof twos / sizeof twos[0]; ++i) twos[i] = 2;
  right = scale_rows(data, 1024, 64, twos);
  for (size_t i = 0; i < sizeof data / sizeof data[0]; ++i) {
    right = right && data[i] == (float)(2 * (i % 1000));
  }
  return right;
}
