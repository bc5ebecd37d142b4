// A program in C++17 that uses the C API.
#include <cstdio>
#include <vector>

#include "../scale_rows.h"

#if __cplusplus >= 202002L
#error "this is to be compiled as C++17"
#endif

int main() {
  std::vector<float> data{1, 2, 3, 4, 5, 6};
  const std::vector<float> twos{2, 2};
  prospect_loss loss;
  const bool right = scale_rows(data.data(), 2, 3, twos.data()) != 0 && data[0] == 2 &&
                     data[5] == 12 && prospect_loss_init(&loss, "kto", nullptr) == PROSPECT_OK;
  std::puts(right ? "right" : "WRONG");
  return right ? 0 : 1;
}
