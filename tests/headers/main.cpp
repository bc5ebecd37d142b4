// A program for the header objects to be linked into.
int main() {}
