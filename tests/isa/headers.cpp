// A program whose own calls are in a plain unit; linked with one for a newer processor that is
// called only where there is an argument.
bool plain_unit();
bool newer_unit();

int main(int count, char**) { return (count > 1 ? newer_unit() : plain_unit()) ? 0 : 1; }
