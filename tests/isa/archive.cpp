// A program that calls the archive alone; linked with a unit for a newer processor that uses the
// headers and is called only where there is an argument.
#include <prospect/c/prospect.h>

bool newer_unit();

int main(int count, char**) {
  if (count > 1) return newer_unit() ? 0 : 1;
  prospect_error error{};
  prospect_loss loss{};
  if (prospect_loss_init(&loss, "no such loss", &error) != PROSPECT_UNKNOWN_NAME) return 2;
  return archive_is_right() ? 0 : 1;
}
